//! What watchers see, on real mounts. This thread is the notifier.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::perform::perform;
use crate::fuse::Inotify;
use crate::fuse::tests::{Rig, Row};

const VALUE: &[u8] = b"value";

/// Makes all events that there are to make; each rig begins with those of its first manifest.
fn notify(rig: &Rig, count: usize) {
    let (queue, stage, mount) = rig.for_notifier.as_ref().expect("a watched rig");
    stage.appoint(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    let mut made = 0;
    while made < count {
        for event in queue.peek().expect("events") {
            perform(&event, mount, stage).unwrap_or_else(|error| panic!("{event:?}: {error}"));
            made += 1;
        }
        queue.take().expect("the same ones");
    }
    assert_eq!(made, count);
    stage.dismiss();
}

fn rig(rows: &[Row<'_>]) -> Rig {
    let rig = Rig::watched(Inotify::Write, rows);
    let directories: std::collections::BTreeSet<_> = rows.iter().map(|(service, ..)| service).collect();
    notify(&rig, directories.len() + 2 * rows.len());
    rig
}

struct Watch(OwnedFd);

impl Watch {
    fn new(path: &Path) -> Self {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
        // Who opens what is seen by all; here it would only be in the way.
        let wanted =
            WatchFlags::ALL_EVENTS - WatchFlags::OPEN - WatchFlags::ACCESS - WatchFlags::CLOSE_NOWRITE;
        inotify::add_watch(&watch, path, wanted).expect("a watch");
        Self(watch)
    }

    /// All that was seen by now, which for a system call that is over is all that there is to see.
    fn seen(&self) -> Vec<String> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut space);
        let mut seen = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let name =
                        event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_string_lossy());
                    let names: Vec<_> = [
                        (ReadFlags::MODIFY, "MODIFY"),
                        (ReadFlags::CLOSE_WRITE, "CLOSE_WRITE"),
                        (ReadFlags::ATTRIB, "ATTRIB"),
                        (ReadFlags::CREATE, "CREATE"),
                        (ReadFlags::DELETE, "DELETE"),
                        (ReadFlags::DELETE_SELF, "DELETE_SELF"),
                        (ReadFlags::IGNORED, "IGNORED"),
                        (ReadFlags::ISDIR, "ISDIR"),
                    ]
                    .into_iter()
                    .filter_map(|(flag, name)| event.events().contains(flag).then_some(name))
                    .collect();
                    seen.push(
                        format!("{} {}", names.join("|"), name.unwrap_or_default()).trim_end().to_owned(),
                    );
                }
                Err(Errno::AGAIN) => return seen,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_rotation_looks_like_a_write_and_what_is_opened_then_is_new() {
    let rig = rig(&[("web", "db", 1, VALUE), ("web", "other", 9, VALUE)]);
    let (directory, file) = (Watch::new(&rig.path("web")), Watch::new(&rig.path("web/db")));
    let before = fs::metadata(rig.path("web/db")).expect("metadata");
    let open = File::open(rig.path("web/db")).expect("the old version");
    rig.publish(&[("web", "db", 2, b"something longer"), ("web", "other", 9, VALUE)]);
    notify(&rig, 1);
    assert_eq!(directory.seen(), ["MODIFY db", "CLOSE_WRITE db"]);
    assert_eq!(file.seen(), ["MODIFY", "CLOSE_WRITE"]);
    assert_eq!(fs::read(rig.path("web/db")).expect("the new version"), b"something longer");
    let after = fs::metadata(rig.path("web/db")).expect("metadata");
    assert_eq!((after.len(), after.ino(), after.nlink(), after.mode()), (16, before.ino(), 1, before.mode()));
    let mut old = [0; 5];
    open.read_exact_at(&mut old, 0).expect("the old version");
    assert_eq!(&old, VALUE);
    rig.publish(&[("web", "db", 2, b"something longer"), ("web", "other", 9, VALUE)]);
    notify(&rig, 0);
    assert_eq!((directory.seen(), file.seen()), (vec![], vec![]), "nothing has changed");
}

#[test]
fn a_touch_is_enough_where_that_is_what_is_configured() {
    let rig = Rig::watched(Inotify::Attrib, &[("web", "db", 1, VALUE)]);
    notify(&rig, 3);
    let (directory, file) = (Watch::new(&rig.path("web")), Watch::new(&rig.path("web/db")));
    rig.publish(&[("web", "db", 2, b"something longer")]);
    notify(&rig, 1);
    assert_eq!((directory.seen(), file.seen()), (vec!["ATTRIB db".to_owned()], vec!["ATTRIB".to_owned()]));
    assert_eq!(fs::metadata(rig.path("web/db")).expect("metadata").len(), 16);
}

#[test]
fn what_is_granted_is_created_and_what_is_revoked_is_deleted() {
    let rig = rig(&[("web", "db", 1, VALUE)]);
    let root = Watch::new(&rig.path(""));
    let directory = Watch::new(&rig.path("web"));
    // Known to the kernel as absent, and asked for again when it has come.
    assert!(!rig.path("web/late").exists());
    rig.publish(&[("web", "db", 1, VALUE), ("web", "late", 2, b"late"), ("new", "db", 3, VALUE)]);
    notify(&rig, 5);
    assert_eq!(fs::read(rig.path("web/late")).expect("it is there"), b"late");
    assert_eq!(directory.seen(), ["CREATE late", "MODIFY late", "CLOSE_WRITE late"]);
    assert_eq!(root.seen(), ["CREATE|ISDIR new"]);
    for path in ["web/late", "new/db"] {
        let metadata = fs::metadata(rig.path(path)).expect("metadata");
        assert_eq!((metadata.nlink(), metadata.mode()), (1, 0o100_444), "{path}");
    }
    let file = Watch::new(&rig.path("web/late"));
    rig.publish(&[("web", "db", 1, VALUE)]);
    notify(&rig, 2);
    assert_eq!(directory.seen(), ["DELETE late"]);
    assert_eq!(file.seen(), ["DELETE_SELF", "IGNORED"]);
    assert_eq!(root.seen(), [""; 0], "a directory goes without a word");
    assert!(!rig.path("web/late").exists() && !rig.path("new").exists() && !rig.path("new/db").exists());
    let names: Vec<_> =
        fs::read_dir(rig.path("web")).expect("a listing").map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["db"]);
}

#[test]
fn what_somebody_has_bound_before_anybody_was_told_is_not_made_anew() {
    let rig = rig(&[("web", "db", 1, VALUE)]);
    let directory = Watch::new(&rig.path("web"));
    rig.publish(&[("web", "db", 1, VALUE), ("web", "late", 2, b"late"), ("new", "db", 3, VALUE)]);
    let binds = ["web/late", "new", "new/db"].map(|path| {
        let bind = rig.scratch.path().join(path.replace('/', "-"));
        match rig.path(path).is_dir() {
            true => fs::create_dir(&bind).expect("a directory to mount on"),
            false => fs::write(&bind, "").expect("a file to mount on"),
        }
        rustix::mount::mount_bind(rig.path(path), &bind).expect("a bind mount");
        (path, bind)
    });
    notify(&rig, 5);
    assert_eq!(directory.seen(), ["MODIFY late", "CLOSE_WRITE late"]);
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    for (path, bind) in binds {
        let line = format!(" /{path} {} ", bind.display());
        assert!(table.contains(&line), "{line:?}: it counts as deleted in {table}");
        rustix::mount::unmount(&bind, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
    }
}

#[test]
fn who_holds_a_service_that_goes_and_comes_back_sees_both() {
    let rows: &[Row<'_>] = &[("web", "db", 1, VALUE)];
    let rig = rig(rows);
    let bind = rig.scratch.path().join("bound");
    fs::create_dir(&bind).expect("a directory to mount on");
    rustix::mount::mount_bind(rig.path("web"), &bind).expect("a bind mount");
    let watch = Watch::new(&bind);
    for _ in 0..3 {
        rig.publish(&[]);
        notify(&rig, 1);
        assert_eq!(watch.seen(), ["DELETE db"]);
        assert!(!bind.join("db").exists() && !rig.path("web").exists());
        rig.publish(rows);
        notify(&rig, 3);
        assert_eq!(watch.seen(), ["CREATE db", "MODIFY db", "CLOSE_WRITE db"]);
        assert_eq!(fs::read(bind.join("db")).expect("through the bind"), VALUE);
        assert_eq!(fs::read(rig.path("web/db")).expect("and beside it"), VALUE);
    }
    rustix::mount::unmount(&bind, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
}

#[test]
fn a_bind_of_one_file_is_as_it_was_when_the_file_comes_back() {
    let rig = rig(&[("web", "db", 1, VALUE)]);
    let bind = rig.scratch.path().join("bound");
    fs::write(&bind, "").expect("a file to mount on");
    rustix::mount::mount_bind(rig.path("web/db"), &bind).expect("a bind mount");
    // Both at once: what is done is done to a file that is back already.
    for version in 2..5 {
        rig.publish(&[]);
        rig.publish(&[("web", "db", version, b"back again")]);
        notify(&rig, 4);
        assert_eq!(fs::read(&bind).expect("through the bind"), b"back again");
        for path in [&bind, &rig.path("web/db")] {
            let metadata = fs::metadata(path).expect("metadata");
            assert_eq!((metadata.len(), metadata.nlink(), metadata.mode()), (10, 1, 0o100_444));
        }
    }
    let watch = Watch::new(&bind);
    rig.publish(&[("web", "db", 9, b"rotated")]);
    notify(&rig, 1);
    assert_eq!(watch.seen(), ["MODIFY", "CLOSE_WRITE"]);
    rustix::mount::unmount(&bind, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
}

#[test]
fn nobody_else_can_change_anything_whatever_is_mounted() {
    let rig = rig(&[("web", "db", 1, VALUE)]);
    let (_, stage, mount) = rig.for_notifier.as_ref().expect("a watched rig");
    let watch = Watch::new(&rig.path("web"));
    let own = |path: &str| {
        Path::new(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(mount))).join(path)
    };
    // As root, once through what everybody sees and once through a mount that may be written to.
    for path in [rig.path("web"), own("web")] {
        let (there, new) = (path.join("db"), path.join("new"));
        let refused = [
            fs::OpenOptions::new().write(true).open(&there).map(drop),
            fs::OpenOptions::new().write(true).truncate(true).open(&there).map(drop),
            fs::write(&new, "x"),
            fs::create_dir(&new),
            fs::remove_file(&there),
            fs::remove_dir(&path),
            fs::rename(&there, &new),
            fs::hard_link(&there, &new),
            std::os::unix::fs::symlink("db", &new),
            fs::set_permissions(&there, std::os::unix::fs::PermissionsExt::from_mode(0o600)),
            std::os::unix::fs::chown(&there, Some(1), None),
            perform_as_notifier_would(&rig, &path),
        ];
        for (place, result) in refused.into_iter().enumerate() {
            let error = result.expect_err("nobody writes");
            assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()), "{place}: {error}");
        }
    }
    assert_eq!(watch.seen(), [""; 0]);
    // Not even the notifier, while it does something else.
    stage.appoint(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    assert!(fs::remove_file(own("web/db")).is_err());
    assert_eq!((watch.seen(), fs::read(rig.path("web/db")).expect("a value")), (vec![], VALUE.to_vec()));
}

/// With all that the notifier has, its user too, in another process than the one that is appointed.
fn perform_as_notifier_would(rig: &Rig, directory: &Path) -> std::io::Result<()> {
    let (_, stage, _) = rig.for_notifier.as_ref().expect("a watched rig");
    stage.appoint(1);
    let place = crate::fs::Place { parent: inode(directory), directory: None, name: "db".into() };
    let event = crate::fuse::Event {
        mount: 0,
        deed: crate::fuse::Deed::Write,
        inode: inode(&directory.join("db")),
        place,
    };
    let done = perform(&event, File::open(directory)?, stage);
    stage.dismiss();
    Ok(done?)
}

fn inode(path: &Path) -> crate::fs::Inode {
    crate::fs::Inode::from_u64(fs::metadata(path).expect("metadata").ino())
}

#[test]
fn what_is_mounted_on_a_file_stays_through_a_rotation() {
    let rig = rig(&[("web", "db", 1, VALUE)]);
    let other = rig.scratch.path().join("other");
    fs::write(&other, "other").expect("a file");
    rustix::mount::mount_bind(&other, rig.path("web/db")).expect("a bind mount");
    rig.publish(&[("web", "db", 2, b"rotated")]);
    notify(&rig, 1);
    assert_eq!(fs::read(rig.path("web/db")).expect("what covers it"), b"other");
    rustix::mount::unmount(rig.path("web/db"), rustix::mount::UnmountFlags::DETACH).expect("unmounted");
    assert_eq!(fs::read(rig.path("web/db")).expect("the secret"), b"rotated");
}

#[test]
fn while_names_come_and_go_nobody_sees_what_only_the_notifier_is_told() {
    let rig = rig(&[("web", "db", 1, VALUE), ("web", "stays", 2, VALUE)]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut looks = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(fs::read(rig.path("web/stays")).expect("it is always there"), VALUE);
                // Either is right at any moment, but a file without a size is none.
                if let Ok(metadata) = fs::metadata(rig.path("web/db")) {
                    assert_eq!((metadata.len(), metadata.mode()), (5, 0o100_444));
                }
                looks += 1;
            }
            looks
        });
        for _ in 0..300 {
            rig.publish(&[("web", "stays", 2, VALUE)]);
            notify(&rig, 1);
            assert!(!rig.path("web/db").exists());
            rig.publish(&[("web", "db", 1, VALUE), ("web", "stays", 2, VALUE)]);
            notify(&rig, 2);
            assert!(rig.path("web/db").exists());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(looking.join().expect("nothing strange") > 300);
    });
}
