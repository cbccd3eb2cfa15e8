//! A test that runs once more as a process of its own, for what a process does to all of itself.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

/// Says which part of a test a child is to run.
const PART: &str = "SECRETFS_TEST_CHILD";

/// Nobody's uid and gid.
pub(crate) const NOBODY: u32 = 65534;

/// Which part this process is to run; `None` in the process that runs all tests.
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Runs one test, named with its modules, in a child that is to run `part`.
pub(crate) fn command(test: &str, part: &str) -> Command {
    // Not the binary's path: another user might not be allowed to walk it.
    let mut command = Command::new("/proc/self/exe");
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(PART, part);
    command
}

/// Has a child be nobody instead of root.
pub(crate) fn as_nobody(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY)
}

/// Runs a child to its end, which must be a good one.
#[track_caller]
pub(crate) fn succeeds(test: &str, part: &str) {
    expect_success(&command(test, part).output().expect("a child"));
}

/// Shows what a child said unless all was well.
#[track_caller]
pub(crate) fn expect_success(output: &Output) {
    let said = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success() && said.contains("1 passed"), "{}\n{said}", output.status);
}
