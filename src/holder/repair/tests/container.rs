//! A container, as far as its mounts go: a mount namespace with a root directory of its own.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::fuse::mount_table::MountTable;

/// Arguments: a directory, then source, mount point and propagation of each bind. It leaves the host's
/// mounts behind and waits for the end of its input.
const SCRIPT: &str = r#"
set -e
root=$1; shift
mount -t tmpfs tmpfs "$root"
for directory in bin sbin lib lib64 usr proc dev; do
    [ -d "/$directory" ] || continue
    mkdir "$root/$directory"
    mount --rbind "/$directory" "$root/$directory"
done
while [ $# -gt 0 ]; do
    mkdir -p "$root$(dirname "$2")"
    # What is bound into an earlier bind is there already.
    [ -e "$root$2" ] || if [ -d "$1" ]; then mkdir "$root$2"; else touch "$root$2"; fi
    mount --bind "$1" "$root$2"
    mount "--make-$3" "$root$2"
    shift 3
done
mkdir "$root/old"
cd "$root"
pivot_root . old
umount --lazy /old
echo ready
exec cat
"#;

/// How a bind takes part in what is mounted on its source.
#[derive(Debug, Clone, Copy)]
pub(super) enum Propagation {
    /// Docker's default.
    Private,
    /// Docker's `rslave`.
    Slave,
}

/// Ends when it is dropped.
pub(super) struct Container {
    process: Child,
    _root: TempDir,
}

impl Container {
    /// A container with binds of the host's files and directories.
    pub(super) fn start(binds: &[(&Path, &str, Propagation)]) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave", "sh", "-c", SCRIPT, "sh"]).arg(root.path());
        for (source, point, propagation) in binds {
            let propagation = match propagation {
                Propagation::Private => "private",
                Propagation::Slave => "slave",
            };
            command.arg(source).args([point, propagation]);
        }
        Self::spawn(command, root)
    }

    /// A copy of the host's mounts in a user namespace, which cannot part with them.
    pub(super) fn with_locked_mounts() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", "echo ready; exec cat"]);
        Self::spawn(command, tempfile::tempdir().expect("a directory"))
    }

    fn spawn(mut command: Command, root: TempDir) -> Self {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("util-linux is installed");
        let mut ready = [0; 6];
        process.stdout.as_mut().expect("its output").read_exact(&mut ready).expect("it gets ready");
        assert_eq!(&ready, b"ready\n");
        Self { process, _root: root }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A path inside, as the host finds it.
    pub(super) fn path(&self, point: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{point}", self.pid()))
    }

    pub(super) fn read(&self, point: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(point))
    }

    /// Runs a shell command inside.
    pub(super) fn run(&self, command: &str) {
        let mut enter = Command::new("nsenter");
        enter.args(["--mount", "--root", "--target", &self.pid().to_string(), "sh", "-c", command]);
        assert!(enter.status().expect("util-linux is installed").success(), "{command}");
    }

    /// Mount point, flags and tags, type and source of what is mounted at a path inside.
    pub(super) fn line(&self, point: &str) -> String {
        let table = self.table();
        let table = String::from_utf8_lossy(&table);
        let line = table.lines().find(|line| line.contains(&format!(" {point} "))).expect("a mount");
        line.splitn(5, ' ').nth(4).expect("its mount point and more").to_owned()
    }

    /// How many mounts lie at a path inside.
    pub(super) fn layers(&self, point: &str) -> usize {
        MountTable::parse(&self.table()).layers(Path::new(point)).len()
    }

    fn table(&self) -> Vec<u8> {
        fs::read(format!("/proc/{}/mountinfo", self.pid())).expect("its mount table")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}
