//! What programs see, and what they may not do.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use jiff::Timestamp;
use rustix::io::Errno;
use secretfs_wire::manifest::Target;
use secretfs_wire::{Mode, Ownership, VersionId};

use super::{Rig, manifest, target, template};

#[test]
fn a_file_has_the_value_and_what_the_manifest_says_of_it() {
    let rig = Rig::new(&[]);
    rig.source.put(VersionId::from_u64(1).expect("an id"), Ok(b"\0binary\xff\n"));
    let mode = Mode::from_bits(0o440).expect("a mode");
    let details = Target {
        ownership: Ownership { uid: 1000, gid: 2000, mode },
        modified: Timestamp::from_second(1_700_000_000).expect("a time"),
        ..target(1, 9)
    };
    rig.server.apply(rig.fs.update(&Arc::new(manifest([("web", "db", details)]))), ());

    let metadata = fs::metadata(rig.path("web/db")).expect("metadata");
    assert_eq!(metadata.len(), 9);
    assert_eq!(metadata.mode(), 0o100440);
    assert_eq!((metadata.uid(), metadata.gid(), metadata.nlink()), (1000, 2000, 1));
    assert_eq!(metadata.mtime(), 1_700_000_000);
    assert!(rig.source.asked().is_empty(), "metadata never leave the node");

    assert_eq!(rig.read("web/db"), b"\0binary\xff\n");
    let file = File::open(rig.path("web/db")).expect("the file");
    let mut part = [0; 3];
    assert_eq!(file.read_at(&mut part, 7).expect("a read"), 2);
    assert_eq!(part, *b"\xff\n\0");
    assert_eq!(file.read_at(&mut part, 1 << 40).expect("a read far behind the end"), 0);
    assert_eq!(rig.source.asked().len(), 1);

    let directory = fs::metadata(rig.path("web")).expect("metadata");
    assert_eq!((directory.mode(), directory.uid(), directory.gid()), (0o040555, 0, 0));
}

#[test]
fn a_mebibyte_is_read_as_it_is() {
    let value: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    let rig = Rig::new(&[("web", "large", 1, &value)]);
    assert!(rig.read("web/large") == value);
}

#[test]
fn nobody_writes() {
    let rig = Rig::new(&[("web", "db", 1, b"value")]);
    let file = rig.path("web/db");
    let new = rig.path("web/new");
    let attempts = [
        ("write", OpenOptions::new().write(true).open(&file).map(drop)),
        ("read and write", OpenOptions::new().read(true).write(true).open(&file).map(drop)),
        ("truncate", OpenOptions::new().write(true).truncate(true).open(&file).map(drop)),
        ("create", File::create(&new).map(drop)),
        ("unlink", fs::remove_file(&file)),
        ("rmdir", fs::remove_dir(rig.path("web"))),
        ("mkdir", fs::create_dir(&new)),
        ("rename", fs::rename(&file, &new)),
        ("link", fs::hard_link(&file, &new)),
        ("symlink", std::os::unix::fs::symlink("db", &new)),
        ("chmod", fs::set_permissions(&file, Permissions::from_mode(0o777))),
        ("chown", std::os::unix::fs::chown(&file, Some(1), None)),
        (
            "setxattr",
            rustix::fs::setxattr(&file, "user.a", b"b", rustix::fs::XattrFlags::empty()).map_err(Into::into),
        ),
    ];
    for (attempt, result) in attempts {
        assert_eq!(result.expect_err(attempt).kind(), ErrorKind::ReadOnlyFilesystem, "{attempt}");
    }
    assert_eq!(rig.read("web/db"), b"value");
}

#[test]
fn what_is_not_granted_is_not_there() {
    let rig = Rig::new(&[("web", "db", 1, b"value")]);
    for absent in ["job", "web/other", "web/DB", "web/.hidden", "web/\u{fffd}"] {
        assert_eq!(fs::metadata(rig.path(absent)).expect_err(absent).kind(), ErrorKind::NotFound);
    }
    assert_eq!(fs::read(rig.path("web")).expect_err("a directory").kind(), ErrorKind::IsADirectory);
    assert_eq!(fs::read(rig.path("web/db/x")).expect_err("a file").kind(), ErrorKind::NotADirectory);
}

#[test]
fn owner_and_mode_are_enforced() {
    let rig = Rig::new(&[]);
    rig.source.put(VersionId::from_u64(1).expect("an id"), Ok(b"value"));
    let mode = Mode::from_bits(0o400).expect("a mode");
    let details = Target { ownership: Ownership { uid: 1000, gid: 0, mode }, ..target(1, 5) };
    rig.server.apply(rig.fs.update(&Arc::new(manifest([("web", "db", details)]))), ());
    fs::set_permissions(rig.scratch.path(), Permissions::from_mode(0o755)).expect("permissions");

    let cat = |uid| {
        let mut cat = Command::new("cat");
        cat.arg(rig.path("web/db")).uid(uid).gid(65534).output().expect("cat")
    };
    assert_eq!(cat(1000).stdout, b"value");
    let denied = cat(1001);
    assert!(String::from_utf8_lossy(&denied.stderr).contains("Permission denied"), "{denied:?}");
    assert!(denied.stdout.is_empty());
}

#[test]
fn the_version_and_an_outage_are_extended_attributes() {
    let rig = Rig::new(&[("web", "db", 7, b"value")]);
    let path = rig.path("web/db");
    let get = |name: &str| {
        let mut buffer = [0; 100];
        let length = rustix::fs::getxattr(&path, name, &mut buffer[..])?;
        Ok::<_, Errno>(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let list = || {
        let mut buffer = [0; 100];
        let length = rustix::fs::listxattr(&path, &mut buffer[..]).expect("a list");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(get("user.secretfs.version").as_deref(), Ok("7"));
    assert_eq!(get("user.secretfs.stale_since"), Err(Errno::NODATA));
    assert_eq!(get("user.other"), Err(Errno::NODATA));
    assert_eq!(list(), "user.secretfs.version\0");
    assert_eq!(rustix::fs::getxattr_query(&path, "user.secretfs.version"), Ok(1));
    let mut one = [0; 1];
    assert_eq!(rustix::fs::listxattr(&path, &mut one[..]), Err(Errno::RANGE));

    rig.freshness.disconnected();
    let since = get("user.secretfs.stale_since").expect("stale");
    since.parse::<Timestamp>().expect("RFC 3339");
    assert_eq!(since.len(), "2026-01-01T00:00:00Z".len(), "{since}");
    assert_eq!(list(), "user.secretfs.version\0user.secretfs.stale_since\0");
    assert_eq!(rig.read("web/db"), b"value", "last known good");
    let of_directory = |name: &str| rustix::fs::getxattr_query(rig.path("web"), name);
    assert_eq!(of_directory("user.secretfs.version"), Err(Errno::NODATA));
    assert_eq!(of_directory("user.secretfs.stale_since"), Ok(since.len()));
    rig.freshness.connected();
    assert_eq!(of_directory("user.secretfs.stale_since"), Err(Errno::NODATA));
}

#[test]
fn the_kernel_does_not_remember_that_a_template_had_no_size_yet() {
    let rig = Rig::new(&[]);
    let key = target(1, 5);
    rig.source.put(VersionId::from_u64(1).expect("an id"), Ok(b"value"));
    let conf = template("k={{ secrets.key }}", [("key", key.clone())]);
    rig.server.apply(rig.fs.update(&Arc::new(manifest([("web", "key", key), ("web", "conf", conf)]))), ());
    let size = || fs::metadata(rig.path("web/conf")).expect("metadata").len();
    assert_eq!((size(), rig.source.asked().len()), (0, 0), "as a file in /proc, and nobody waits");
    // As programs do that read what stat says: opened, and then asked for its size.
    let file = File::open(rig.path("web/conf")).expect("the file");
    assert_eq!(file.metadata().expect("metadata").len(), 7);
    assert_eq!(size(), 7);
    assert_eq!(rig.read("web/conf"), b"k=value");
}
