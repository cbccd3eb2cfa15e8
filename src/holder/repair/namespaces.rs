//! The mount namespaces of a machine, and how to be in another one for a while.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

use super::error::RepairError;
use crate::fuse::mount_table::MountTable;

/// A mount namespace as one of its processes sees it.
pub(super) struct View {
    pub(super) pid: u32,
    /// The inode number of the namespace, as `lsns` shows it.
    pub(super) namespace: u64,
    pub(super) table: MountTable,
    /// The process's root directory, in its namespace.
    root: PathBuf,
    descriptor: OwnedFd,
}

impl View {
    /// A mount point in the table, as seen from the namespace's root.
    pub(super) fn absolute(&self, point: &Path) -> PathBuf {
        self.root.join(point.strip_prefix("/").unwrap_or(point))
    }
}

/// This process's own namespace, and what has to be opened before it is left.
pub(super) struct Home {
    pub(super) number: u64,
    namespace: OwnedFd,
    /// The only path by which a mount that is open can be unmounted. A container's /proc may be false.
    pub(super) open_files: OwnedFd,
}

impl Home {
    pub(super) fn new() -> Result<Self, RepairError> {
        let open = |path, flags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| RepairError::Home(error.into()))
        };
        let namespace = open("/proc/thread-self/ns/mnt", OFlags::RDONLY)?;
        let status = fstat(&namespace).map_err(|error| RepairError::Home(error.into()))?;
        Ok(Self {
            number: status.st_ino,
            namespace,
            open_files: open("/proc/thread-self/fd", OFlags::PATH | OFlags::DIRECTORY)?,
        })
    }

    /// Does something in another mount namespace, with that namespace's root as root directory.
    pub(super) fn visit<T>(
        &self,
        view: &View,
        work: impl FnOnce() -> Result<T, RepairError>,
    ) -> Result<T, RepairError> {
        let enter = |namespace: &OwnedFd| setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS);
        enter(&view.descriptor).map_err(|error| RepairError::Refused(error.into()))?;
        let done = work();
        // What follows would be done to the wrong mounts.
        enter(&self.namespace).expect("the namespace that this process comes from lets it in");
        done
    }
}

/// Each mount namespace that a process is in, once for each root directory in it. A process that ends
/// meanwhile is no error; one that hides its namespace is.
pub(super) fn views() -> Result<impl Iterator<Item = Result<View, RepairError>>, RepairError> {
    let mut seen = BTreeSet::new();
    Ok(processes()?.into_iter().filter_map(move |pid| match view(pid, &mut seen) {
        Ok(view) => view.map(Ok),
        Err(Errno::NOENT | Errno::SRCH) => None,
        Err(source) => Some(Err(RepairError::Hidden { pid, source })),
    }))
}

fn processes() -> Result<Vec<u32>, RepairError> {
    let entries = fs::read_dir("/proc").map_err(RepairError::Processes)?;
    let mut processes: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // What runs longest stands for its namespace.
    processes.sort_unstable();
    Ok(processes)
}

fn view(pid: u32, seen: &mut BTreeSet<(u64, PathBuf)>) -> Result<Option<View>, Errno> {
    // Opened once: the number may be another process's a moment later.
    let process = openat(CWD, format!("/proc/{pid}"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let open = |name| openat(&process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let descriptor = open("ns/mnt")?;
    let namespace = fstat(&descriptor)?.st_ino;
    let root = readlinkat(&process, "root", Vec::new())?;
    let root = PathBuf::from(OsStr::from_bytes(root.as_bytes()));
    if !seen.insert((namespace, root.clone())) {
        return Ok(None);
    }
    let mut table = Vec::new();
    File::from(open("mountinfo")?)
        .read_to_end(&mut table)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(Some(View { pid, namespace, table: MountTable::parse(&table), root, descriptor }))
}
