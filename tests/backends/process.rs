//! Programs that never outlive the test that started them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use super::deadline;
use super::requirement::{Missing, program};

/// Killed when this is dropped, and by the kernel when the test's process ends without dropping it.
pub(super) struct Process {
    child: Child,
    log: PathBuf,
    keeper: Option<(Sender<()>, JoinHandle<()>)>,
}

/// A command that [`Process::start`] can bind to the life of its starter.
pub(super) fn bound_command(to_run: &Path) -> Result<Command, Missing> {
    let mut command = Command::new(program(&["setpriv"])?);
    command.args(["--pdeathsig", "KILL", "--"]).arg(to_run);
    Ok(command)
}

impl Process {
    /// Starts it; what it prints goes to the file `log`.
    pub(super) fn start(mut command: Command, log: &Path) -> Self {
        let file = File::create(log).expect("a log file");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second descriptor")).stderr(file);
        // To the kernel its parent is the thread that started it. A test's thread may end while other
        // tests still use what it started, so this is a thread that stays as long as the process.
        let (started, child) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let keeper = thread::spawn(move || {
            // It is waited for, below.
            let _ = started.send(command.spawn());
            // Until the other side is dropped, which is an error here.
            let _: Result<(), _> = ended.recv();
        });
        let child = child.recv().expect("the keeper answers").expect("the program starts");
        Self { child, log: log.to_owned(), keeper: Some((end, keeper)) }
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits until it ends by itself.
    pub(super) fn wait(&mut self, what: &str) -> ExitStatus {
        deadline::poll(what, || self.ended())
    }

    /// All that it has printed.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some((end, keeper)) = self.keeper.take() {
            drop(end);
            let _ = keeper.join();
        }
    }
}
