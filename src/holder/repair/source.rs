//! What replaces dead mounts: the host's mount that is alive, and binds of its parts.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, mount_change, open_tree};

use super::error::RepairError;
use super::plan::PlannedMount;
use crate::fuse::device::{Device, look};
use crate::fuse::mount_table::{MountTable, Mounted};

/// A mount of the host that is alive.
pub(super) struct Live {
    path: PathBuf,
    root: OwnedFd,
    dead: Vec<Device>,
}

/// A mount that is nowhere yet.
pub(super) struct Detached {
    pub(super) mount: OwnedFd,
    /// The number of the file or directory at its root.
    pub(super) inode: u64,
}

impl Live {
    /// Opens a mount of the plan and sees that it is one.
    pub(super) fn open(mount: PlannedMount) -> Result<Self, RepairError> {
        let PlannedMount { path, dead } = mount;
        let unopened = |source| RepairError::Unopened { path: path.clone(), source };
        let root = openat2(CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())
            .map_err(unopened)?;
        let id = look(&root, StatxFlags::MNT_ID).map_err(unopened)?.stx_mnt_id;
        let table = MountTable::read().map_err(RepairError::Table)?;
        let is_it = |mounted: &Mounted| mounted.id == id && mounted.is_ours() && mounted.is_whole();
        match table.iter().find(|mounted| is_it(mounted)) {
            Some(mounted) if !dead.contains(&mounted.device) => Ok(Self { path, root, dead }),
            _ => Err(RepairError::NotMounted(path)),
        }
    }

    /// Whether this mount takes the place of what had that device.
    pub(super) fn lost(&self, device: Device) -> bool {
        self.dead.contains(&device)
    }

    /// Where the host has what had the path `root` in the dead file system.
    pub(super) fn path_of(&self, root: &Path) -> PathBuf {
        match root.strip_prefix("/") {
            Ok(below) if below != Path::new("") => self.path.join(below),
            _ => self.path.clone(),
        }
    }

    /// A bind of what had the path `root` in the dead file system `old`.
    pub(super) fn bind(&self, old: &Mounted) -> Result<Detached, RepairError> {
        check_connection(old.device)?;
        if old.root.as_os_str().as_bytes().ends_with(b"//deleted") {
            return Err(RepairError::Removed);
        }
        let path = self.path_of(&old.root);
        let below = old.root.strip_prefix("/").unwrap_or(&old.root);
        let below = if below == Path::new("") { Path::new(".") } else { below };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = openat2(&self.root, below, flags, Mode::empty(), resolve)
            .map_err(|source| RepairError::NoSource { path: path.clone(), source })?;
        // Asks the worker: the number must be that of the file that it serves now.
        let status = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::INO)
            .map_err(|source| RepairError::NoSource { path: path.clone(), source })?;
        let unbound = |source: Errno| RepairError::Unbound { path: path.clone(), source: source.into() };
        let flags =
            OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(&file, "", flags).map_err(unbound)?;
        // A bind is a peer of what it was made of: without this, what its container mounts on it would
        // appear in the host.
        let path_of_mount = format!("/proc/self/fd/{}", mount.as_raw_fd());
        mount_change(path_of_mount, MountPropagationFlags::PRIVATE).map_err(unbound)?;
        Ok(Detached { mount, inode: status.stx_ino })
    }
}

/// Where the kernel shows its FUSE connections, the dead one must have been made by root.
fn check_connection(device: Device) -> Result<(), RepairError> {
    match fs::metadata(format!("/sys/fs/fuse/connections/{}", device.minor())) {
        Ok(connection) if connection.uid() != 0 => Err(RepairError::NotRoots(device)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RepairError::NotRoots(device)),
        _ => Ok(()),
    }
}
