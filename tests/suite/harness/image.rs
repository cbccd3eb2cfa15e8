//! A disk of its own: a file with an ext4 file system that is mounted through a loop device, so that
//! a test can read every byte that was ever written to it, deleted files too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::area::Area;
use super::mount::MountPoint;

const BYTES: u64 = 32 << 20;

pub(crate) struct LoopImage {
    file: PathBuf,
    mount: Option<MountPoint>,
    // The last one: it holds the mount point.
    _area: Area,
}

impl LoopImage {
    pub(crate) fn mount() -> Self {
        let area = Area::new();
        let file = area.path().join("disk.img");
        File::create(&file).and_then(|image| image.set_len(BYTES)).expect("an image file");
        let mount = MountPoint::create(area.directory("disk"));
        done(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file));
        done(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(mount.path()));
        Self { file, mount: Some(mount), _area: area }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.mount.as_ref().expect("a mounted image").path()
    }

    /// Unmounts it, which writes everything down; the raw image.
    pub(crate) fn unmount(&mut self) -> &Path {
        let mount = self.mount.take().expect("a mounted image");
        done(Command::new("umount").arg(mount.path()));
        &self.file
    }
}

fn done(command: &mut Command) {
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
