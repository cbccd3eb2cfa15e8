//! From root to an unprivileged user.

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::SandboxError;
use crate::handover::User;

/// Becomes `user`, without groups and with no capability but the one to lock memory.
///
/// That one is kept because a limit on locked memory can be raised only where root may raise it, and
/// because without it no thread could be started once everything is locked.
pub(in crate::worker) fn drop_privileges(user: User) -> Result<(), SandboxError> {
    // For as long as there is the capability to do so: nothing that is executed could get any back.
    for capability in CapabilitySet::all().difference(CapabilitySet::IPC_LOCK).iter() {
        // Refused for what this kernel does not have.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    rustix::thread::set_keep_capabilities(true).map_err(SandboxError::Capabilities)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&[]).map_err(SandboxError::User)?;
    setresgid(gid, gid, gid).map_err(SandboxError::User)?;
    setresuid(uid, uid, uid).map_err(SandboxError::User)?;
    rustix::thread::set_keep_capabilities(false).map_err(SandboxError::Capabilities)?;
    // A service manager that has raised the limit need not have given the capability.
    let had = rustix::thread::capabilities(None).map_err(SandboxError::Capabilities)?.permitted;
    let kept = had & CapabilitySet::IPC_LOCK;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(SandboxError::Capabilities)
}
