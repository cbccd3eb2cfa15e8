//! Puts a living mount where a dead one is, in whichever namespace that is.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::fchdir;

use super::error::RepairError;
use super::liveness::Liveness;
use super::namespaces::{Home, View};
use super::source::{Detached, Live};
use crate::fuse::device::{Device, look};
use crate::fuse::mount_table::Mounted;

/// How often a path is looked up that is not in the kernel's cache at once: a rename anywhere may
/// have been in the way.
const TRIES: usize = 5;

/// Replaces `old`, which is the topmost at its mount point.
pub(super) fn replace(
    home: &Home,
    view: &View,
    old: &Mounted,
    live: &Live,
    liveness: &mut Liveness,
) -> Result<(), RepairError> {
    let new = live.bind(old)?;
    let point = view.absolute(&old.point);
    let dead = home.visit(view, || {
        let dead = open_point(&point)?;
        check(&dead, old, &new).map(|()| dead)
    })?;
    if !liveness.is_dead(old.device, &dead) {
        return Err(RepairError::Alive);
    }
    home.visit(view, || {
        // Beneath the dead one first, so that no reader finds the bare directory in between.
        match put(&new.mount, &dead, MoveMountFlags::MOVE_MOUNT_BENEATH) {
            Ok(()) => detach(home, &dead)?,
            // Before Linux 6.5, and where the dead mount is locked in place, it stays below.
            Err(_) => put(&new.mount, &dead, MoveMountFlags::empty()).map_err(RepairError::Unattached)?,
        }
        let id = |mount| look(mount, StatxFlags::MNT_ID).map(|status| status.stx_mnt_id);
        let (there, here) = (id(&open_point(&point)?), id(&new.mount));
        if there.map_err(RepairError::Unattached)? == here.map_err(RepairError::Unattached)? {
            return Ok(());
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
    if !old.is_whole() && status.stx_ino != new.inode {
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
