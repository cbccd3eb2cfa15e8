//! A file system in a process of its own, for as long as it is measured.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::bare;

/// How long a daemon may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running file system. Dropping it ends it and leaves no mount.
pub(super) struct Daemon {
    child: Child,
    point: TempDir,
    file: PathBuf,
}

impl Daemon {
    /// The product as it is built.
    pub(super) fn secretfs() -> io::Result<Self> {
        let point = tempfile::tempdir()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_secretfs"));
        command.args(["dev", "--mount"]).arg(point.path());
        Self::start(&mut command, point, "demo/api_key")
    }

    /// The same, without records of opens.
    #[cfg(feature = "unaudited")]
    pub(super) fn unaudited() -> io::Result<Self> {
        let point = tempfile::tempdir()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_secretfs"));
        command.args(["dev", "--mount"]).arg(point.path()).env("SECRETFS_UNAUDITED", "1");
        Self::start(&mut command, point, "demo/api_key")
    }

    /// A file system with one file of `size` bytes.
    pub(super) fn bare(size: u64) -> io::Result<Self> {
        let point = tempfile::tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(bare::COMMAND).arg(point.path()).arg(size.to_string());
        Self::start(&mut command, point, bare::FILE)
    }

    fn start(command: &mut Command, point: TempDir, file: &str) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let file = point.path().join(file);
        let mut daemon = Self { child, point, file };
        let deadline = Instant::now() + PATIENCE;
        // The first read also warms the cache.
        while fs::read(&daemon.file).is_err() {
            if let Some(status) = daemon.child.try_wait()? {
                return Err(io::Error::other(format!("the daemon ended: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{} never appeared", daemon.file.display())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(daemon)
    }

    /// Moves the process that was started to another CPU, and leaves those where they are that it has started:
    /// of `secretfs dev` the manager, which is on another host than a node.
    pub(super) fn move_to(&self, cpu: usize) -> io::Result<()> {
        let mut other = rustix::thread::CpuSet::new();
        other.set(cpu);
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let thread = task?.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
            rustix::thread::sched_setaffinity(thread, &other)?;
        }
        Ok(())
    }

    /// The file to read.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM).ok();
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                self.child.kill().ok();
                self.child.wait().ok();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // The bare one leaves its mount behind; ours has unmounted, and this finds nothing.
        rustix::mount::unmount(self.point.path(), UnmountFlags::DETACH).ok();
    }
}
