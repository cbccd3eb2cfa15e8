//! Changes reach open files, closed files, watchers and bind mounts as promised.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::{Rig, eventually};

#[test]
fn an_open_file_stays_as_it_was_and_the_next_open_is_new() {
    let rig = Rig::new(&[("web", "db", 1, b"the old value")]);
    let mut old = File::open(rig.path("web/db")).expect("the file");
    let mut beginning = [0; 4];
    old.read_exact(&mut beginning).expect("a read");
    let inode = old.metadata().expect("metadata").ino();

    rig.publish(&[("web", "db", 2, b"NEW")]);
    assert_eq!(rig.read("web/db"), b"NEW");
    let mut rest = Vec::new();
    old.read_to_end(&mut rest).expect("the rest");
    assert_eq!([&beginning[..], &rest].concat(), b"the old value");
    eventually("the inode has the new size", || old.metadata().expect("metadata").len() == 3);
    assert_eq!(old.metadata().expect("metadata").ino(), inode);

    assert_eq!(rig.fs.pinned(), 1);
    drop(old);
    eventually("the old value is let go", || rig.fs.pinned() == 0);
}

#[test]
fn size_and_time_follow_in_spite_of_the_long_ttl() {
    let rig = Rig::new(&[("web", "db", 1, b"12345")]);
    assert_eq!(fs::metadata(rig.path("web/db")).expect("metadata").len(), 5);
    rig.publish(&[("web", "db", 2, b"1234567")]);
    eventually("the new size", || fs::metadata(rig.path("web/db")).expect("metadata").len() == 7);
}

#[test]
fn what_is_revoked_disappears_and_what_is_granted_appears() {
    let rig = Rig::new(&[("web", "db", 1, b"value"), ("job", "db", 2, b"value")]);
    let open = File::open(rig.path("web/db")).expect("the file");
    assert!(rig.path("job/db").exists());
    rig.publish(&[("new", "db", 3, b"new value")]);
    eventually("the targets are gone", || !rig.path("web/db").exists() && !rig.path("job/db").exists());
    eventually("the services are gone", || !rig.path("web").exists());
    assert_eq!(rig.read("new/db"), b"new value");
    let names: Vec<_> =
        fs::read_dir(rig.path("")).expect("a listing").map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["new"]);
    let error = open.read_exact_at(&mut [0; 5], 0).expect_err("its service is gone");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn an_open_file_and_its_poller_end_with_the_service_for_good() {
    let rig = Rig::new(&[("web", "db", 1, b"value"), ("job", "db", 2, b"stays")]);
    let open = File::open(rig.path("web/db")).expect("the file");
    let stays = File::open(rig.path("job/db")).expect("the file");
    let read = |file: &File| {
        let mut value = [0; 5];
        file.read_exact_at(&mut value, 0).map(|()| value.to_vec())
    };
    assert_eq!(read(&open).expect("granted"), b"value");
    let change = PollFlags::PRI | PollFlags::ERR;
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut polled = [PollFd::new(&open, change)];
            rustix::event::poll(&mut polled, Some(&patience)).expect("poll");
            polled[0].revents()
        });
        eventually("it waits", || rig.fs.polled() == 1);
        let began = Instant::now();
        rig.publish(&[("job", "db", 2, b"stays")]);
        assert_eq!(read(&open).expect_err("at once").kind(), ErrorKind::PermissionDenied);
        assert_eq!(waiting.join().expect("a result"), change);
        assert!(began.elapsed() < Duration::from_secs(9), "nobody woke it");
    });
    assert_eq!(rig.fs.pinned(), 1, "its value is let go");
    assert_eq!(read(&stays).map_err(|error| error.kind()), Ok(b"stays".to_vec()));
    rig.publish(&[("web", "db", 1, b"value"), ("job", "db", 2, b"stays")]);
    assert_eq!(rig.read("web/db"), b"value", "opened again");
    assert_eq!(read(&open).expect_err("for good").kind(), ErrorKind::PermissionDenied);
}

#[test]
fn who_holds_a_service_sees_it_come_back() {
    let rows: &[_] = &[("web", "db", 1, b"value".as_slice())];
    let rig = Rig::new(rows);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(rig.path("web"), flags, Mode::empty()).expect("the directory");
    let read = || {
        let file = rustix::fs::openat(&held, "db", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut value = Vec::new();
        File::from(file).read_to_end(&mut value).ok()?;
        Some(value)
    };
    assert_eq!(read().as_deref(), Some(b"value".as_slice()));
    rig.publish(&[]);
    assert!(read().is_none());
    // The kernel has been told of the directory too.
    eventually("it is gone", || !rig.path("web").exists());
    rig.publish(rows);
    eventually("it is back", || read().as_deref() == Some(b"value"));
    assert_eq!(rig.read("web/db"), b"value");
}

/// A bind mount that is gone when the test is.
pub(super) struct Bind(pub(super) PathBuf);

impl Drop for Bind {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).ok();
    }
}

#[test]
fn a_bind_mount_of_one_file_follows_rotation_removal_and_return() {
    let rig = Rig::new(&[("web", "db", 1, b"one")]);
    let bind = Bind(rig.scratch.path().join("bound"));
    fs::write(&bind.0, "").expect("a file to mount on");
    rustix::mount::mount_bind(rig.path("web/db"), &bind.0).expect("a bind mount");
    assert_eq!(fs::read(&bind.0).expect("version 1"), b"one");
    rig.publish(&[("web", "db", 2, b"two two")]);
    assert_eq!(fs::read(&bind.0).expect("version 2"), b"two two");
    rig.publish(&[]);
    assert!(fs::read(&bind.0).is_err());
    eventually("it is gone", || fs::metadata(&bind.0).is_err());
    rig.publish(&[("web", "db", 3, b"three")]);
    eventually("it is back", || fs::read(&bind.0).is_ok_and(|value| value == b"three"));
    eventually("with one link", || fs::metadata(&bind.0).is_ok_and(|m| m.nlink() == 1 && m.len() == 5));
}

#[test]
fn poll_wakes_when_the_file_is_worth_opening_again() {
    let rig = Rig::new(&[("web", "db", 1, b"one")]);
    let file = File::open(rig.path("web/db")).expect("the file");
    let poll = |wanted, timeout| {
        let mut polled = [PollFd::new(&file, wanted)];
        let timeout = Timespec::try_from(timeout).expect("a time");
        rustix::event::poll(&mut polled, Some(&timeout)).expect("poll");
        polled[0].revents()
    };
    let change = PollFlags::PRI | PollFlags::ERR;
    assert_eq!(poll(PollFlags::IN, Duration::ZERO), PollFlags::IN, "always readable");
    assert_eq!(poll(change, Duration::ZERO), PollFlags::empty());
    std::thread::scope(|scope| {
        let patience = Duration::from_secs(10);
        let began = Instant::now();
        let waiting = scope.spawn(move || poll(change, patience));
        eventually("it waits", || rig.fs.polled() == 1);
        rig.publish(&[("web", "db", 2, b"two")]);
        assert_eq!(waiting.join().expect("a result"), change);
        // The system call looks once more when its time is over.
        assert!(began.elapsed() < patience, "nobody woke it");
    });
    let file = File::open(rig.path("web/db")).expect("the file");
    let mut again = [PollFd::new(&file, change)];
    assert_eq!(rustix::event::poll(&mut again, Some(&Timespec::default())).expect("poll"), 0);
}
