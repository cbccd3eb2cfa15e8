//! What stands between the supervisor and its program for an instant: it asks the kernel to end the
//! program together with the supervisor, and becomes the program.
//!
//! The request (`PR_SET_PDEATHSIG`) is a process's own to make, and outlives execve(2), unless the
//! program is setuid or has file capabilities.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use crate::host::{end_with_parent, error_chain, logging::last_words};
use crate::role::{Role, THIS_PROGRAM};

/// As shells have it.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// The command that starts `program` by way of a launcher.
pub(super) fn command(program: &[OsString]) -> Command {
    let mut command = Role::Launcher.command(THIS_PROGRAM.as_ref());
    command.arg(std::process::id().to_string()).args(program);
    command
}

/// The whole life of a launcher.
pub(crate) fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(supervisor), Some(program)) = (arguments.next(), arguments.next()) else {
        return ExitCode::FAILURE;
    };
    if let Err(error) = end_with_parent() {
        last_words(&error_chain(&error));
        return ExitCode::FAILURE;
    }
    // One that ended before the request was made is not noticed by it.
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().to_string());
    if parent.as_deref() != supervisor.to_str() {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).args(arguments).exec();
    last_words(&format!("cannot run {}: {error}", program.display()));
    ExitCode::from(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    })
}
