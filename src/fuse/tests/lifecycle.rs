//! Mounts come and go without a trace.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::Errno;

use super::super::attach::{self, Audience};
use super::super::{Mount, MountError};
use super::{NEVER, Rig, eventually, is_mounted, key, serve};
use crate::fs::test_manifest::{manifest, target};
use crate::fs::test_memory::handles;
use crate::fs::{FileSystem, Layout};

#[test]
fn unmounting_leaves_no_mount_and_no_reader_behind() {
    let rig = Rig::new(&[("web", "db", 1, b"value")]);
    let path = rig.mount.path().to_owned();
    let open = File::open(rig.path("web/db")).expect("the file");
    assert!(is_mounted(&path));
    rig.mount.unmount().expect("unmounted, although a file is open");
    assert!(!is_mounted(&path));
    assert_eq!(fs::read_dir(&path).expect("the directory below").count(), 0);
    let mut value = [0; 5];
    open.read_exact_at(&mut value, 0).expect("open files stay readable");
    assert_eq!(&value, b"value");
}

#[test]
fn dropping_unmounts() {
    let rig = Rig::new(&[]);
    let path = rig.mount.path().to_owned();
    assert!(is_mounted(&path));
    drop(rig.mount);
    assert!(!is_mounted(&path));
}

#[test]
fn what_somebody_else_mounted_is_left_alone() {
    let rig = Rig::new(&[]);
    let path = rig.mount.path().to_owned();
    attach::detach(&path).expect("an administrator unmounts it");
    eventually("nobody asks any more", || !rig.server.is_serving());
    let other = attach::attach(&path, Audience::Everyone).expect("and mounts something");
    rig.mount.unmount().expect("nothing left to do");
    assert!(is_mounted(&path));
    attach::detach(&path).expect("tidied up");
    drop(other);
}

#[test]
fn a_directory_has_one_mount() {
    let rig = Rig::new(&[]);
    let again = Mount::new(rig.mount.path(), Audience::Everyone);
    assert!(matches!(again, Err(MountError::AlreadyMounted(_))));
    assert!(is_mounted(rig.mount.path()));
}

#[test]
fn dead_mounts_are_replaced() {
    let rig = Rig::new(&[("web", "db", 1, b"value")]);
    let path = rig.scratch.path().join("other");
    fs::create_dir(&path).expect("a directory");
    for _ in 0..2 {
        drop(attach::attach(&path, Audience::Everyone).expect("a mount that nobody serves"));
    }
    let error = fs::read_dir(&path).expect_err("it is dead");
    assert_eq!(error.raw_os_error(), Some(Errno::NOTCONN.raw_os_error()));
    let mount = Mount::new(&path, Audience::Everyone).expect("a new mount");
    let _server = serve(&mount, &rig.fs, &rig.runtime);
    assert_eq!(fs::read(path.join("web/db")).expect("the value"), b"value");
    mount.unmount().expect("unmounted");
    assert!(!is_mounted(&path), "a dead one is left below");
}

#[test]
fn one_process_has_many_mounts() {
    let rig = Rig::new(&[("web", "db", 1, b"value"), ("job", "db", 2, b"other")]);
    let path = rig.scratch.path().join("web");
    fs::create_dir(&path).expect("a directory");
    let layout = Layout::OneService("web".parse().expect("a name"));
    let flat = FileSystem::new(rig.cache.clone(), rig.freshness.clone(), handles(), key(), layout, NEVER);
    let rows = [("web", "db", target(1, 5)), ("job", "db", target(2, 5))];
    flat.update(&Arc::new(manifest(rows)));
    let mount = Mount::new(&path, Audience::Everyone).expect("a mount");
    let _server = serve(&mount, &flat, &rig.runtime);
    assert_eq!(rig.read("web/db"), b"value");
    assert_eq!(fs::read(path.join("db")).expect("the value"), b"value");
    assert_eq!(fs::read_dir(&path).expect("a listing").count(), 1);
    assert_eq!(rig.source.asked().len(), 1, "they share a cache");
    mount.unmount().expect("unmounted");
    assert_eq!(rig.read("job/db"), b"other");
}

#[test]
fn the_helper_of_ordinary_users_mounts_and_unmounts() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().canonicalize().expect("a path");
    let device = attach::mount_with_helper(&path, Audience::OnlyMe).expect("a mount");
    assert!(is_mounted(&path));
    attach::detach_with_helper(&path).expect("unmounted");
    eventually("it is gone", || !is_mounted(&path));
    drop(device);
}
