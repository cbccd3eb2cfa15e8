//! Mount points.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

/// A directory to mount at. Whatever is mounted there is detached when it is dropped, so that no
/// failed test leaves a mount behind, and no dead mount keeps a temporary directory.
pub(crate) struct MountPoint(PathBuf);

impl MountPoint {
    pub(crate) fn create(path: PathBuf) -> Self {
        fs::create_dir_all(&path).expect("a mount point");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        while is_mounted(&self.0) && unmount(&self.0, UnmountFlags::DETACH).is_ok() {}
    }
}

/// Whether the mount table has a mount at `path`. Asking the path itself would ask a file system
/// that may not answer.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    // proc(5): the fifth field is the mount point. No test's path has a character that it escapes.
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|field| Path::new(field) == path))
}
