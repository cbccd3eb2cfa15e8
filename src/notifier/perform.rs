//! The system calls that watchers see. They change nothing.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timestamps, UTIME_NOW, fstat, mkdirat, mknodat, openat,
    openat2, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::fs::Place;
use crate::fuse::{Deed, Event, Stage};

/// What is written, and thrown away.
const NOTHING: &[u8] = &[0];

/// How often the kernel is asked what it knows.
const TRIES: usize = 5;

/// Makes an event on a mount that can be written to. What came and went meanwhile is no error.
///
/// Waits until a worker answers, and longer than that if there is none.
pub(super) fn perform(event: &Event, mount: impl AsFd, stage: &Stage) -> Result<(), Errno> {
    stage.begin(event);
    let done = call(event.deed, &path(&event.place), mount.as_fd());
    stage.end();
    match done {
        // Somebody has just looked it up, as what `is_known` is about.
        Err(Errno::EXIST) => Ok(()),
        // It has been removed since, of which there is another event; or it has not been noticed yet
        // that it was, and nobody could have seen it.
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn call(deed: Deed, path: &Path, mount: BorrowedFd<'_>) -> Result<(), Errno> {
    match deed {
        Deed::Write => {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(mount, path, flags, Mode::empty())?;
            rustix::io::write(&file, NOTHING).map(drop)
        }
        // Both, or it would look like a read or a write; and "now" is what who may write may set.
        Deed::Touch => {
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let times = Timestamps { last_access: now, last_modification: now };
            utimensat(mount, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        }
        Deed::Create | Deed::CreateDirectory if is_known(mount, path)? => Ok(()),
        Deed::Create => mknodat(mount, path, FileType::RegularFile, Mode::empty(), 0),
        Deed::CreateDirectory => mkdirat(mount, path, Mode::empty()),
        Deed::Remove => unlinkat(mount, path, AtFlags::empty()),
    }
}

/// Whether the kernel knows that a name is there, because somebody has looked it up already.
///
/// To make it the kernel would have to forget it first. Whoever has mounted the file elsewhere would
/// then have one that counts as deleted: readable, but nothing could be mounted in its place should
/// this daemon die. The worker knows it of those whom it has told itself; this is for the others.
fn is_known(mount: BorrowedFd<'_>, path: &Path) -> Result<bool, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let directory = openat2(mount, directory, flags, Mode::empty(), ResolveFlags::BENEATH)?;
    // Or else the kernel would have to ask who may enter it, and so would not look at all.
    fstat(&directory)?;
    let name = path.file_name().unwrap_or_default();
    let cached = ResolveFlags::BENEATH | ResolveFlags::CACHED;
    // A rename anywhere may have been in the way.
    Ok((0..TRIES).any(|_| openat2(&directory, name, flags, Mode::empty(), cached).is_ok()))
}

fn path(place: &Place) -> PathBuf {
    let below = place.directory.as_deref().unwrap_or_default();
    Path::new(below).join(&place.name)
}
