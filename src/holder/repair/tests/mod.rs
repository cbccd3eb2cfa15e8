//! Real mounts, in real mount namespaces. They need /dev/fuse and root.

mod container;
mod host;

use std::io;
use std::path::Path;

use rustix::io::Errno;

use self::container::Container;
use self::container::Propagation::{Private, Slave};
use self::host::{Host, device, failed, repaired};
use crate::fuse::attach;
use crate::fuse::tests::layers;

fn is_dead<T>(read: &io::Result<T>) -> bool {
    let error = read.as_ref().err().and_then(io::Error::raw_os_error);
    error == Some(Errno::NOTCONN.raw_os_error()) || error == Some(Errno::CONNABORTED.raw_os_error())
}

#[test]
fn plain_binds_of_everything_a_service_and_a_file_come_back() {
    let mut host = Host::new();
    let container = Container::start(&[
        (&host.path, "/run/all", Private),
        (&host.path.join("web"), "/run/secrets", Private),
        (&host.path.join("web/db"), "/etc/db password", Private),
    ]);
    let values =
        [("/run/all/job/db", "private"), ("/run/secrets/api", "token"), ("/etc/db password", "hunter2")];
    // More than once: what has been put in place must be replaceable too.
    for _ in 0..3 {
        for (point, value) in values {
            assert_eq!(container.read(point).expect(point), value.as_bytes());
        }
        host.die();
        host.revive();
        for (point, _) in values {
            assert!(is_dead(&container.read(point)), "{point} receives no mounts");
        }
        let report = host.repair();
        let mut points = repaired(&report, &container);
        points.sort_unstable();
        assert_eq!(points, ["/etc/db password", "/run/all", "/run/secrets"], "{report:?}");
        assert!(failed(&report, &container).is_empty(), "{report:?}");
        for point in points {
            assert_eq!(container.layers(point), 1, "{point}");
        }
    }
    assert!(repaired(&host.repair(), &container).is_empty(), "nothing is left to repair");
    host.stop();
    assert_eq!(layers(&host.path), 0);
}

#[test]
fn what_is_put_in_place_has_the_same_flags() {
    let mut host = Host::new();
    let container = Container::start(&[(&host.path.join("web"), "/run/secrets", Private)]);
    let before = container.line("/run/secrets");
    host.die();
    host.revive();
    assert_eq!(repaired(&host.repair(), &container), ["/run/secrets"]);
    assert_eq!(container.line("/run/secrets"), before);
    assert!(before.contains(" ro,nosuid,nodev,noexec,relatime - fuse.secretfs "), "{before}");
}

#[test]
fn a_bind_that_receives_mounts_comes_back_without_repair() {
    let mut host = Host::new();
    let container = Container::start(&[(&host.path, "/run/secrets", Slave)]);
    for _ in 0..5 {
        assert_eq!(container.read("/run/secrets/web/db").expect("alive"), b"hunter2");
        host.die();
        assert!(is_dead(&container.read("/run/secrets/web/db")));
        host.revive();
        assert_eq!(container.read("/run/secrets/web/db").expect("alive again"), b"hunter2");
        assert_eq!((layers(&host.path), container.layers("/run/secrets")), (2, 2), "one dead layer each");
        assert!(repaired(&host.repair(), &container).is_empty());
    }
    host.stop();
    host.revive();
    assert!(is_dead(&container.read("/run/secrets/web/db")), "there was nothing to mount over");
    assert_eq!(repaired(&host.repair(), &container), ["/run/secrets"]);
    assert_eq!(container.layers("/run/secrets"), 1);
    host.stop();
}

#[test]
fn a_bind_of_a_part_receives_no_mount_and_is_replaced() {
    let mut host = Host::new();
    let container = Container::start(&[(&host.path.join("web"), "/run/secrets", Slave)]);
    for _ in 0..2 {
        host.die();
        host.revive();
        assert!(is_dead(&container.read("/run/secrets/db")));
        assert_eq!(repaired(&host.repair(), &container), ["/run/secrets"]);
        assert_eq!(container.read("/run/secrets/db").expect("alive again"), b"hunter2");
    }
}

#[test]
fn what_a_container_mounts_on_a_replaced_bind_stays_in_it() {
    let mut host = Host::new();
    let container = Container::start(&[(&host.path.join("web"), "/run/secrets", Private)]);
    host.die();
    host.revive();
    assert_eq!(repaired(&host.repair(), &container), ["/run/secrets"]);
    container.run("mount -t tmpfs tmpfs /run/secrets");
    assert_eq!(container.layers("/run/secrets"), 2);
    assert_eq!(layers(&host.path.join("web")), 0);
}

#[test]
fn a_mount_that_was_never_ours_is_left_alone() {
    let mut host = Host::new();
    let (foreign, path) = host.foreign();
    let container = Container::start(&[(&path, "/run/secrets", Private)]);
    host.kill(foreign);
    attach::detach(&path).expect("only the container has it");
    host.die();
    host.revive();
    let report = host.repair();
    assert!(repaired(&report, &container).is_empty(), "{report:?}");
    let [(point, reason)] = failed(&report, &container)[..] else { panic!("{report:?}") };
    assert_eq!(point, "/run/secrets");
    assert!(reason.contains("never ours"), "{reason}");
    assert!(is_dead(&container.read("/run/secrets/web/db")));
}

#[test]
fn a_mount_of_a_living_daemon_is_left_alone() {
    let mut host = Host::new();
    let (foreign, path) = host.foreign();
    let container = Container::start(&[(&path, "/run/secrets", Private)]);
    // Its device was ours before it was that daemon's.
    host.record.add(&host.path, device(&path)).expect("noted");
    host.die();
    host.revive();
    let report = host.repair();
    assert!(repaired(&report, &container).is_empty(), "{report:?}");
    let [("/run/secrets", reason)] = failed(&report, &container)[..] else { panic!("{report:?}") };
    assert!(reason.contains("alive"), "{reason}");
    assert!(container.path("/run/secrets/job").symlink_metadata().is_err(), "it is the other's");
    foreign.0.unmount().expect("unmounted");
}

#[test]
fn a_bind_with_another_inode_number_is_left_alone() {
    let mut host = Host::new();
    let (foreign, path) = host.foreign();
    let container = Container::start(&[
        (&path.join("web/db"), "/run/db", Private),
        (&host.path.join("web/db"), "/run/ours", Private),
    ]);
    // Its device gets onto the record, as if the number had been ours before.
    host.record.add(&host.path, device(&path)).expect("noted");
    host.kill(foreign);
    attach::detach(&path).expect("only the container has it");
    host.die();
    host.revive();
    let report = host.repair();
    assert_eq!(repaired(&report, &container), ["/run/ours"]);
    let [("/run/db", reason)] = failed(&report, &container)[..] else { panic!("{report:?}") };
    assert!(reason.starts_with("inode "), "{reason}");
    assert!(is_dead(&container.read("/run/db")));
}

#[test]
fn what_is_gone_covered_or_occupied_stays_as_it_is() {
    let mut host = Host::new();
    let container = Container::start(&[
        (&host.path.join("web/db"), "/run/db", Private),
        (&host.path.join("web"), "/run/covered", Private),
        (Path::new("/dev"), "/run/covered", Private),
        (&host.path.join("web"), "/run/occupied", Private),
        (Path::new("/dev/null"), "/run/occupied/api", Private),
    ]);
    host.leave_only_the_token();
    host.die();
    host.revive();
    let report = host.repair();
    assert!(repaired(&report, &container).is_empty(), "{report:?}");
    let mut failures = failed(&report, &container);
    failures.sort_unstable();
    let [("/run/db", removed), ("/run/occupied", occupied)] = failures[..] else { panic!("{report:?}") };
    assert!(removed.contains("removed"), "{removed}");
    assert!(occupied.contains("inside"), "{occupied}");
    assert!(container.path("/run/covered/null").exists(), "the container's own mount is on top");
}

#[test]
fn a_mount_that_is_locked_in_place_is_mounted_over() {
    let mut host = Host::new();
    let container = Container::with_locked_mounts();
    let point = host.path.to_str().expect("a plain path").to_owned();
    let file = format!("{point}/web/db");
    assert_eq!(container.read(&file).expect("alive"), b"hunter2");
    for _ in 0..3 {
        host.die();
        host.revive();
        assert!(is_dead(&container.read(&file)));
        let report = host.repair();
        assert!(repaired(&report, &container).contains(&point.as_str()), "{report:?}");
        assert_eq!(container.read(&file).expect("alive again"), b"hunter2");
        assert_eq!(container.layers(&point), 2, "the dead one stays, and only that");
    }
}

#[test]
fn the_record_is_pruned_by_what_was_seen() {
    let mut host = Host::new();
    let container = Container::start(&[(&host.path.join("web"), "/run/secrets", Private)]);
    host.die();
    host.revive();
    let first = host.repair().seen;
    assert_eq!(first.len(), 1, "the dead layer, and what the container had");
    host.die();
    host.revive();
    let second = host.repair().seen;
    assert_eq!(second.len(), 2, "the layer that stays, and what the container had");
    drop(container);
    host.stop();
    host.revive();
    assert!(host.repair().seen.is_empty());
}
