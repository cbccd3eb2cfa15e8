//! The processes of a supervisor: its program, and the command of an action.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::launcher;

/// The program. It shares the supervisor's terminal, process group and standard streams.
pub(super) struct Program(Child);

impl Program {
    pub(super) fn start(command: &[OsString]) -> io::Result<Self> {
        launcher::command(command).spawn().map(Self)
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended; it is not reaped yet, so its number is no other's.
        if let Some(pid) = pid(&self.0)
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!(%error, ?signal, "the program was not sent a signal");
        }
    }

    /// How it ended, if it has.
    pub(super) fn try_wait(&mut self) -> Option<ExitStatus> {
        // There is nothing to fail: it is a child, and nobody else waits for it.
        self.0.try_wait().ok().flatten()
    }
}

/// The command of an action. It has a process group of its own, so that all of it can be ended.
pub(super) struct Hook(Child);

impl Hook {
    /// Runs `command` by a shell, which finds the program's process id in `SECRETFS_PID`.
    pub(super) fn start(command: &str, program: u32) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).env("SECRETFS_PID", program.to_string());
        shell.stdin(Stdio::null()).process_group(0).spawn().map(Self)
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends all of it.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = pid(&self.0) {
            let _ = kill_process_group(group, signal);
        }
    }

    pub(super) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// An exit code as shells have it: a signal is 128 and its number.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
            let status = Command::new("/bin/sh").args(["-c", script]).status().unwrap();
            assert_eq!(exit_code(status), code, "{script}");
        }
    }
}
