//! The processes that are this program and no command that somebody typed; `ps` tells them apart.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// The program that runs, also when its file has been replaced or removed.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// What such a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Has the mounts and watches the workers.
    Holder,
    /// Serves, or is ready to.
    Worker,
    /// Tells those who watch files.
    Notifier,
    /// Tells a worker who opens files.
    Witness,
    /// Brings dead mounts in containers back, and ends.
    Repair,
    /// Becomes the program that `secretfs run` supervises.
    Launcher,
}

impl Role {
    const ALL: [Self; 6] =
        [Self::Holder, Self::Worker, Self::Notifier, Self::Witness, Self::Repair, Self::Launcher];

    /// What `ps` shows at the start. It is a daemon's only argument: no option of any of them is seen by
    /// other users.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Holder => "secretfs: holder",
            Self::Worker => "secretfs: worker (standby)",
            Self::Notifier => "secretfs: notifier",
            Self::Witness => "secretfs: witness",
            Self::Repair => "secretfs: repair",
            Self::Launcher => "secretfs: launcher",
        }
    }

    /// The role of this process, unless it is a command that somebody typed.
    pub(crate) fn of_this_process() -> Option<Self> {
        let title = std::env::args_os().next()?;
        Self::ALL.into_iter().find(|role| title == OsStr::new(role.title()))
    }

    /// The command that starts a process in this role.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg0(self.title());
        command
    }
}
