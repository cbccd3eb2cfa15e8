//! Programs that a machine may lack.

use std::fmt::{self, Display, Formatter};
use std::io::Write as _;
use std::path::PathBuf;

/// What a test needs and this machine does not have.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl Display for Missing {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The first of these programs that is on PATH.
pub(super) fn program(names: &[&str]) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| directories.iter().map(move |directory| directory.join(name)))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Missing(format!("the program {} is not installed", names.join(" or "))))
}

/// For a unit test, which libtest cannot show as ignored once it runs: what it needs, or nothing, and
/// then the test is to end. That is said past libtest's capture, and in CI the test fails instead.
pub(crate) fn available<T>(needed: Result<T, Missing>) -> Option<T> {
    let missing = match needed {
        Ok(value) => return Some(value),
        Err(missing) => missing,
    };
    let in_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!in_ci, "this machine lacks what the test needs: {missing}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("SKIPPED {test}: {missing}; `tests/run` as root installs what is missing\n");
    // Nobody may be listening.
    let _ = std::io::stderr().write_all(line.as_bytes());
    None
}
