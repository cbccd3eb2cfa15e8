//! What keeps cleartext in this process and out of swap, core dumps and debuggers.

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, setrlimit};

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
    /// The kernel does not tie this process to its parent.
    #[error("cannot end together with the process that started this one")]
    Parent(#[source] Errno),
}

/// No core dump, no ptrace by the same user, no swap for this process, from now on.
///
/// Pages are locked when they are first touched (MCL_ONFAULT): locking all that is mapped would
/// make 8 MB of resident memory 32.
pub(crate) fn harden() -> Result<(), HardeningError> {
    forbid_dumps()?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(HardeningError::LockMemory)
}

/// No core dump and no ptrace by the same user.
pub(crate) fn forbid_dumps() -> Result<(), HardeningError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(HardeningError::CoreDumps)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(HardeningError::CoreDumps)
}

/// This process is killed when the one that started it ends.
pub(crate) fn die_with_parent() -> Result<(), HardeningError> {
    follow_parent(Signal::KILL)
}

/// This process is asked to end when the one that started it ends.
pub(crate) fn end_with_parent() -> Result<(), HardeningError> {
    follow_parent(Signal::TERM)
}

/// A parent that has ended before this call is not noticed by it, but by the end of the channel or
/// terminal that it had with this process.
fn follow_parent(signal: Signal) -> Result<(), HardeningError> {
    rustix::process::set_parent_process_death_signal(Some(signal)).map_err(HardeningError::Parent)
}

/// How willing the kernel is to end this process when memory runs out: -1000, never, to 1000.
///
/// Only where this process may say so: everybody may raise it, root may lower it.
pub(crate) fn set_oom_score(score: i16) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::debug!(%error, score, "the kernel's choice when memory runs out stays as it is");
    }
}
