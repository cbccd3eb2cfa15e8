//! What keeps cleartext in this process and out of swap, core dumps and debuggers.

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// What could not be had. Each names what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HardeningError {
    /// Core dumps could not be switched off.
    #[error("cannot switch core dumps off")]
    CoreDumps(#[source] Errno),
    /// Memory could not be locked, so that values might reach swap.
    #[error(
        "cannot lock memory, so that a secret might be swapped out; run as root, or raise `ulimit -l` (LimitMEMLOCK=infinity)"
    )]
    LockMemory(#[source] Errno),
}

/// No core dump, no ptrace by the same user, no swap for this process, from now on.
///
/// Pages are locked when they are first touched (MCL_ONFAULT): locking all that is mapped would
/// make 8 MB of resident memory 32.
pub(crate) fn harden() -> Result<(), HardeningError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(HardeningError::CoreDumps)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(HardeningError::CoreDumps)?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(HardeningError::LockMemory)
}
