//! Waiting without guessing: a condition is polled until it holds, and a call that might hang is
//! given up, each with a deadline.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Far beyond what anything here takes on two busy cores; reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

const STEP: Duration = Duration::from_millis(10);

/// Polls until there is something.
pub(crate) fn poll<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "still waiting after {PATIENCE:?}: {what}");
        thread::sleep(STEP);
    }
}

/// Polls until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    poll(what, || condition().then_some(()));
}

/// Does what must not take longer than `limit`. A system call that hangs fails the test instead of
/// hanging the suite; its thread is left behind.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    match result.recv_timeout(limit) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("took longer than {limit:?}: {what}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("panicked: {what}"),
    }
}
