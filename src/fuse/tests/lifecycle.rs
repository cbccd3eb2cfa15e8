//! Mounts come and go without a trace.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::Errno;

use super::super::attach::{self, Audience, Superblock};
use super::super::mount_point::MountPoint;
use super::super::{Mount, MountError};
use super::{NEVER, Rig, eventually, is_mounted, key, layers, serve};
use crate::audit::test_auditor::TestAuditor;
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
    let other =
        attach::attach(&path, Audience::Everyone, Superblock::ReadOnly).expect("and mounts something");
    rig.mount.unmount().expect("nothing left to do");
    assert!(is_mounted(&path));
    attach::detach(&path).expect("tidied up");
    drop(other);
}

#[test]
fn a_directory_has_one_mount() {
    let rig = Rig::new(&[]);
    let again = Mount::new(rig.mount.path(), Audience::Everyone, Superblock::ReadOnly);
    assert!(matches!(again, Err(MountError::AlreadyMounted(_))));
    assert!(is_mounted(rig.mount.path()));
}

#[test]
fn a_dead_mount_is_mounted_over_and_goes_with_what_lies_on_it() {
    let rig = Rig::new(&[("web", "db", 1, b"value")]);
    let path = rig.scratch.path().join("other");
    fs::create_dir(&path).expect("a directory");
    // However many have died, one by one or on each other, one layer stays.
    for _ in 0..5 {
        drop(
            MountPoint::claim(&path)
                .expect("ours")
                .attach(Audience::Everyone, Superblock::ReadOnly)
                .expect("served by nobody"),
        );
        drop(attach::attach(&path, Audience::Everyone, Superblock::ReadOnly).expect("nor this one"));
        let error = fs::read_dir(&path).expect_err("it is dead");
        assert_eq!(error.raw_os_error(), Some(Errno::NOTCONN.raw_os_error()));
    }
    let mount = Mount::new(&path, Audience::Everyone, Superblock::ReadOnly).expect("a new mount");
    let _server = serve(&mount, &rig.fs, &rig.runtime);
    assert_eq!(fs::read(path.join("web/db")).expect("the value"), b"value");
    assert_eq!(layers(&path), 2, "itself and the dead one that stays");
    mount.unmount().expect("unmounted");
    assert!(!is_mounted(&path), "a dead one is left below");
    assert_eq!(fs::read_dir(&path).expect("the directory below").count(), 0);
}

#[test]
fn of_two_that_find_a_dead_mount_the_first_has_it() {
    let rig = Rig::new(&[]);
    let path = rig.scratch.path().join("other");
    fs::create_dir(&path).expect("a directory");
    drop(
        attach::attach(&path, Audience::Everyone, Superblock::ReadOnly).expect("a mount that nobody serves"),
    );
    let first = MountPoint::claim(&path).expect("nobody lives there");
    let second = MountPoint::claim(&path).expect("nobody lives there yet");
    let attached = first.attach(Audience::Everyone, Superblock::ReadOnly).expect("the first one mounts");
    assert!(matches!(second.attach(Audience::Everyone, Superblock::ReadOnly), Err(MountError::Claimed(_))));
    assert_eq!(layers(&path), 2, "the second one's is gone");
    assert!(matches!(MountPoint::claim(&path), Err(MountError::AlreadyMounted(_))));
    attach::detach(&path).expect("unmounted");
    first.clear().expect("and the dead one");
    assert!(!is_mounted(&path));
    drop(attached);
}

#[test]
fn when_somebody_else_unmounts_it_the_dead_mount_below_goes_too() {
    let rig = Rig::new(&[]);
    let path = rig.scratch.path().join("other");
    fs::create_dir(&path).expect("a directory");
    drop(
        attach::attach(&path, Audience::Everyone, Superblock::ReadOnly).expect("a mount that nobody serves"),
    );
    let mount = Mount::new(&path, Audience::Everyone, Superblock::ReadOnly).expect("a new mount");
    let server = serve(&mount, &rig.fs, &rig.runtime);
    attach::detach(&path).expect("an administrator unmounts it");
    eventually("nobody asks any more", || !server.is_serving());
    mount.unmount().expect("the rest is tidied up");
    assert!(!is_mounted(&path));
}

#[test]
fn one_process_has_many_mounts() {
    let rig = Rig::new(&[("web", "db", 1, b"value"), ("job", "db", 2, b"other")]);
    let path = rig.scratch.path().join("web");
    fs::create_dir(&path).expect("a directory");
    let layout = Layout::OneService("web".parse().expect("a name"));
    let flat = FileSystem::new(
        rig.cache.clone(),
        rig.freshness.clone(),
        TestAuditor::new(),
        handles(),
        key(),
        layout,
        NEVER,
    );
    let rows = [("web", "db", target(1, 5)), ("job", "db", target(2, 5))];
    flat.update(&Arc::new(manifest(rows)));
    let mount = Mount::new(&path, Audience::Everyone, Superblock::ReadOnly).expect("a mount");
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
