//! Puts a living mount where a dead one is, in whichever namespace that is.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::fchdir;

use super::error::RepairError;
use super::namespaces::{Home, View};
use super::source::{Detached, Live};
use crate::fuse::device::{Device, look};
use crate::fuse::mount_table::Mounted;

/// How often a path is looked up that is not in the kernel's cache at once: a rename anywhere may
/// have been in the way.
const TRIES: usize = 5;

/// What has become of a dead mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// Something alive is there.
    Replaced,
    /// It is gone, and the dead mount below is the next one to replace.
    Detached,
}

/// Replaces `old`, which is the topmost at its mount point.
pub(super) fn replace(
    home: &Home,
    view: &View,
    old: &Mounted,
    live: &Live,
    lies_on_stale: bool,
) -> Result<Done, RepairError> {
    let new = live.bind(old)?;
    let point = view.absolute(&old.point);
    home.visit(view, || {
        let dead = open_point(&point)?;
        check(&dead, old, &new)?;
        // Beneath the dead one first, so that no reader finds the bare directory in between.
        match put(&new.mount, &dead, MoveMountFlags::MOVE_MOUNT_BENEATH) {
            Ok(()) => detach(home, &dead)?,
            // Before Linux 6.5, or where the dead mount is locked in place.
            Err(_) if lies_on_stale => return detach(home, &dead).map(|()| Done::Detached),
            Err(_) => put(&new.mount, &dead, MoveMountFlags::empty()).map_err(RepairError::Unattached)?,
        }
        let id = |mount| look(mount, StatxFlags::MNT_ID).map(|status| status.stx_mnt_id);
        let (there, here) = (id(&open_point(&point)?), id(&new.mount));
        if there.map_err(RepairError::Unattached)? == here.map_err(RepairError::Unattached)? {
            return Ok(Done::Replaced);
        }
        Err(RepairError::Changed)
    })
}

/// The topmost mount at a path. No symbolic link is followed, and nothing on the way is asked: a
/// container's own file systems could keep us waiting for ever.
fn open_point(point: &Path) -> Result<OwnedFd, RepairError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
    let mut opened = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        opened = openat2(CWD, point, flags, Mode::empty(), resolve);
        if !matches!(opened, Err(Errno::AGAIN)) {
            break;
        }
    }
    opened.map_err(RepairError::Unresolved)
}

fn check(dead: &OwnedFd, old: &Mounted, new: &Detached) -> Result<(), RepairError> {
    let status = look(dead, StatxFlags::INO | StatxFlags::MNT_ID).map_err(RepairError::Unresolved)?;
    if status.stx_mnt_id != old.id || Device::from_statx(&status) != old.device {
        return Err(RepairError::Changed);
    }
    // Who binds a part of a file system of its own can give it any path, but not the number, which
    // only those know who see that service. The root has the same number in each.
    if old.root != Path::new("/") && status.stx_ino != new.inode {
        return Err(RepairError::Inode { expected: new.inode, found: status.stx_ino });
    }
    Ok(())
}

fn put(mount: &OwnedFd, on: &OwnedFd, how: MoveMountFlags) -> Result<(), Errno> {
    let by_descriptors = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", on, "", by_descriptors | how)
}

/// Detaches a mount that is open, wherever it is.
fn detach(home: &Home, mount: &OwnedFd) -> Result<(), RepairError> {
    // There is no call that takes a descriptor. The link below is followed into the very mount.
    fchdir(&home.open_files).map_err(RepairError::Undetached)?;
    unmount(mount.as_raw_fd().to_string(), UnmountFlags::DETACH).map_err(RepairError::Undetached)
}
