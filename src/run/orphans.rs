//! The first process of a container gets the children of those that ended, and nobody else reaps them.

use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};

/// Reaps what has ended and was not started here, if this is the first process. `ours` are left to
/// those who wait for them: once they have, the rest is reaped.
pub(super) fn reap(ours: &[u32]) {
    if std::process::id() != 1 {
        return;
    }
    let ended = || {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::All, look).ok()?.pid()
    };
    let is_ours = |pid: i32| ours.iter().any(|ours| i64::from(*ours) == i64::from(pid));
    while let Some(pid) = ended().filter(|pid| !is_ours(pid.as_raw())) {
        if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
    }
}
