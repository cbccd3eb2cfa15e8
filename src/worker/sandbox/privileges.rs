//! From root to an unprivileged user.

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use rustix::thread::CapabilitySet;

use super::SandboxError;
use crate::handover::User;
use crate::host::confinement::capabilities;

/// Becomes `user`, without groups. Of the capabilities only the one to lock memory stays, if it was
/// there: a limit on locked memory can be raised only where root may raise it, and without the one or
/// the other no thread could be started once everything is locked.
pub(in crate::worker) fn drop_privileges(user: User) -> Result<(), SandboxError> {
    // While there is the capability to do it: no program that is executed could bring any back.
    capabilities::empty_bounding_set().map_err(SandboxError::Capabilities)?;
    rustix::thread::set_keep_capabilities(true).map_err(SandboxError::Capabilities)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&[]).map_err(SandboxError::User)?;
    setresgid(gid, gid, gid).map_err(SandboxError::User)?;
    setresuid(uid, uid, uid).map_err(SandboxError::User)?;
    rustix::thread::set_keep_capabilities(false).map_err(SandboxError::Capabilities)?;
    capabilities::keep_only(CapabilitySet::IPC_LOCK).map(|_| ()).map_err(SandboxError::Capabilities)
}
