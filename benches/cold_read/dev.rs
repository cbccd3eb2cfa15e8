//! The product as its users run it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A running `secretfs dev`.
pub(super) struct Dev {
    child: Child,
    /// The mount point.
    pub(super) mount: PathBuf,
    /// The operator's configuration.
    pub(super) config: PathBuf,
    _directory: tempfile::TempDir,
}

impl Dev {
    /// Starts it and waits until it has printed its guide.
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mount = directory.path().join("mount");
        let mut child = Command::new(env!("CARGO_BIN_EXE_secretfs"))
            .args(["dev", "--mount"])
            .arg(&mount)
            .stdout(Stdio::piped())
            .spawn()
            .expect("secretfs dev starts");
        let mut config = None;
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.expect("a line");
            if let Some((_, path)) = line.split_once("export SECRETFS_CONFIG=") {
                config = Some(PathBuf::from(path));
            }
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        let config = config.expect("secretfs dev printed its configuration");
        Self { child, mount, config, _directory: directory }
    }

    /// Runs an operator's command.
    pub(super) fn run(&self, arguments: &[&str], input: &[u8]) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_secretfs"))
            .args(arguments)
            .env("SECRETFS_CONFIG", &self.config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("secretfs runs");
        child.stdin.take().expect("piped").write_all(input).expect("written");
        assert!(child.wait().expect("ended").success(), "{arguments:?}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
    }
}
