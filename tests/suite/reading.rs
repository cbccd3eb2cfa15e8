//! What a program sees below the mount.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::io::Errno;

use crate::harness::requirement::trials;
use crate::harness::{Node, Site};

trials! {
    needs [Mount];
    every_byte_of_a_value_is_read_cold_and_warm,
    a_listing_shows_what_is_assigned_with_size_owner_and_mode,
    what_is_not_there_is_enoent,
    nobody_writes_not_even_root,
    a_second_open_does_not_ask_the_manager,
    the_version_is_an_extended_attribute,
}

fn every_byte_of_a_value_is_read_cold_and_warm() {
    let site = Site::start();
    let every_byte: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let values: [(&str, &[u8]); 4] = [
        ("one_byte", b"\0"),
        ("newline", b"hunter2\n"),
        ("no_newline", b"hunter2"),
        ("one_mebibyte", &every_byte),
    ];
    site.serve("web-1", "web", &values);
    let node = site.node("web-1");
    for (name, value) in values {
        for temperature in ["cold", "warm"] {
            let read = node.read(&format!("web/{name}")).expect(temperature);
            assert!(read == value, "{name}, {temperature}: {} bytes read", read.len());
        }
    }
}

fn a_listing_shows_what_is_assigned_with_size_owner_and_mode() {
    let site = Site::start();
    site.serve("web-1", "web", &[("a", b"four")]);
    site.create_secret("b", b"eleven byte");
    site.attach("web", "b", &["--target", "renamed.key", "--uid", "1001", "--gid", "2002", "--mode", "0440"]);
    site.create_service("empty", "web-1");
    site.operator.ok(&["service", "create", "elsewhere"]);
    let node = site.node("web-1");

    assert_eq!(names(node.mount()), ["empty", "web"]);
    assert_eq!(names(&node.path("web")), ["a", "renamed.key"]);
    assert_eq!(names(&node.path("empty")), [""; 0]);
    let file = |name: &str| {
        let file = node.path(name).metadata().expect(name);
        assert!(file.is_file() && file.nlink() == 1, "{file:?}");
        (file.len(), file.uid(), file.gid(), file.permissions().mode() & 0o7777)
    };
    assert_eq!(file("web/a"), (4, 0, 0, 0o444));
    assert_eq!(file("web/renamed.key"), (11, 1001, 2002, 0o440));
    let directory = node.path("web").metadata().expect("a directory");
    assert_eq!(directory.permissions().mode() & 0o7777, 0o555, "everybody may look, nobody may write");
}

fn what_is_not_there_is_enoent() {
    let site = Site::start();
    site.serve("web-1", "web", &[("a", b"value")]);
    site.create_secret("not_attached", b"value");
    let node = site.node("web-1");
    for absent in ["web/b", "web/not_attached", "nobody", "nobody/a", ".git", "web/.hidden", "web/a b"] {
        let error = node.read(absent).expect_err(absent);
        assert_eq!(errno(&error), Errno::NOENT, "{absent}: {error}");
    }
}

fn nobody_writes_not_even_root() {
    let site = Site::start();
    site.serve("web-1", "web", &[("a", b"value")]);
    let node = site.node("web-1");
    let a = node.path("web/a");
    let new = node.path("web/new");
    let attempts: [(&str, io::Result<()>); 9] = [
        ("open for writing", OpenOptions::new().write(true).open(&a).map(drop)),
        ("append", OpenOptions::new().append(true).open(&a).map(drop)),
        ("truncate", OpenOptions::new().write(true).truncate(true).open(&a).map(drop)),
        ("create", fs::write(&new, "x")),
        ("remove", fs::remove_file(&a)),
        ("rename", fs::rename(&a, &new)),
        ("make a directory", fs::create_dir(&new)),
        ("link", std::os::unix::fs::symlink("/", &new)),
        ("chmod", fs::set_permissions(&a, fs::Permissions::from_mode(0o777))),
    ];
    for (attempt, result) in attempts {
        let error = result.expect_err(attempt);
        assert_eq!(errno(&error), Errno::ROFS, "{attempt}: {error}");
    }
    assert_eq!(node.read("web/a").expect("still there"), b"value");
}

fn a_second_open_does_not_ask_the_manager() {
    let site = Site::start();
    site.serve("web-1", "web", &[("a", b"value")]);
    let node = site.node("web-1");
    for _ in 0..5 {
        node.read("web/a").expect("a value");
    }
    let status = node.status();
    assert_eq!(status["cache_misses"], 1, "{status}");
    assert_eq!(status["cache_hits"], 4, "{status}");
}

fn the_version_is_an_extended_attribute() {
    let site = Site::start();
    site.serve("web-1", "web", &[("a", b"one")]);
    let node = site.node("web-1");
    assert_eq!(version(&node), "1");
    site.rotate("a", b"two");
    node.wait_for("web/a", b"two");
    assert_eq!(version(&node), "2");
}

fn version(node: &Node) -> String {
    let mut value = [0; 32];
    let path = node.path("web/a");
    let length = rustix::fs::getxattr(&path, "user.secretfs.version", &mut value[..]).expect("an attribute");
    String::from_utf8_lossy(&value[..length]).into_owned()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a listing");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("ASCII")).collect();
    names.sort();
    names
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).expect("an error of the system")
}
