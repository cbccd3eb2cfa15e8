//! Programs that watch files with inotify(7) see them change, appear and go.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_bind, mount_remount, unmount};
use rustix::process::Signal;

use crate::harness::mount::is_mounted;
use crate::harness::requirement::trials;
use crate::harness::service_manager::ServiceManager;
use crate::harness::traced::{READING, Stopped};
use crate::harness::watch::Watch;
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount];
    a_change_is_seen_as_a_write_and_what_is_read_then_is_new,
    a_change_is_seen_as_a_touch_where_that_is_configured,
    where_it_is_off_nobody_is_told_and_nothing_can_be_written,
    what_comes_and_goes_is_seen_in_its_directory,
    nobody_else_writes_through_a_mount_that_could_be_written_to,
    a_notifier_has_no_more_rights_than_it_needs,
    a_notifier_that_is_killed_is_replaced_and_what_it_had_to_do_is_done,
    a_worker_that_is_killed_while_the_notifier_waits_for_it_is_replaced_at_once,
    a_change_that_a_killed_worker_had_not_told_of_is_seen,
    a_daemon_that_is_killed_whole_goes_on_and_tells_nothing_twice,
    that_somebody_else_unmounts_it_is_noticed,
    a_daemon_that_is_stopped_leaves_no_process_and_no_connection,
}

fn serving() -> (Site, Node) {
    serving_with("")
}

fn serving_with(settings: &str) -> (Site, Node) {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value"), ("other", b"another")]);
    let mut node = site.join("web-1");
    node.configure_mounts(settings);
    node.run_connected();
    node.wait_for("web/key", b"value");
    settle(&site, &node);
    (site, node)
}

/// Waits until those that were there at the start have been told of, which happens in order.
fn settle(site: &Site, node: &Node) {
    let mut root = Watch::new(node.mount());
    site.create_service("marker", "web-1");
    if node.status()["mounts"][0]["inotify"] == "off" {
        return node.wait_for_path("marker");
    }
    deadline::eventually("the start is over", || {
        root.seen().last().is_some_and(|event| event == "CREATE|ISDIR marker")
    });
}

fn a_change_is_seen_as_a_write_and_what_is_read_then_is_new() {
    let (site, node) = serving();
    assert_eq!(node.status()["mounts"][0]["inotify"], "write");
    let before = fs::metadata(node.path("web/key")).expect("a file");
    let (mut directory, mut file) = (Watch::new(&node.path("web")), Watch::new(&node.path("web/key")));
    for round in 0..20 {
        let value = format!("value {round} of twenty");
        site.rotate("key", value.as_bytes());
        deadline::eventually("a change is seen", || !file.seen().is_empty());
        assert_eq!(fs::read(node.path("web/key")).expect("a value"), value.as_bytes());
        file.wait_for(&["MODIFY", "CLOSE_WRITE"]);
        directory.wait_for(&["MODIFY key", "CLOSE_WRITE key"]);
    }
    let after = fs::metadata(node.path("web/key")).expect("a file");
    assert_eq!((after.ino(), after.nlink(), after.mode()), (before.ino(), 1, before.mode()));
    assert_eq!(after.len(), "value 19 of twenty".len() as u64);
    // A change that is no business of this file's, and then one that is.
    site.rotate("other", b"changed");
    directory.wait_for(&["MODIFY other", "CLOSE_WRITE other"]);
    assert_eq!(file.seen(), [""; 0]);
}

fn a_change_is_seen_as_a_touch_where_that_is_configured() {
    let (site, node) = serving_with("inotify = \"attrib\"");
    assert_eq!(node.status()["mounts"][0]["inotify"], "attrib");
    let mut directory = Watch::new(&node.path("web"));
    site.rotate("key", b"changed");
    directory.wait_for(&["ATTRIB key"]);
    assert_eq!(node.read("web/key").expect("a value"), b"changed");
}

fn where_it_is_off_nobody_is_told_and_nothing_can_be_written() {
    let (site, node) = serving_with("inotify = \"off\"");
    assert_eq!((node.holder().notifier, node.status()["mounts"][0]["inotify"].as_str()), (0, Some("off")));
    let mut directory = Watch::new(&node.path("web"));
    site.rotate("key", b"changed");
    node.wait_for("web/key", b"changed");
    assert_eq!(directory.seen(), [""; 0]);
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    let line = table.lines().find(|line| line.contains(node.mount().to_str().expect("a plain path")));
    assert!(line.is_some_and(|line| line.contains("secretfs ro,")), "{line:?}");
}

fn what_comes_and_goes_is_seen_in_its_directory() {
    let (site, node) = serving();
    let mut directory = Watch::new(&node.path("web"));
    site.create_secret("late", b"late");
    for _ in 0..5 {
        site.attach("web", "late", &[]);
        directory.wait_for(&["CREATE late", "MODIFY late", "CLOSE_WRITE late"]);
        assert_eq!(fs::read(node.path("web/late")).expect("a value"), b"late");
        let metadata = fs::metadata(node.path("web/late")).expect("a file");
        assert_eq!((metadata.nlink(), metadata.len(), metadata.mode() & 0o777), (1, 4, 0o444));
        site.operator.ok(&["service", "detach", "web", "late"]);
        directory.wait_for(&["DELETE late"]);
        assert!(!node.path("web/late").exists());
    }
    let mut root = Watch::new(node.mount());
    site.create_service("new", "web-1");
    root.wait_for(&["CREATE|ISDIR new"]);
}

fn nobody_else_writes_through_a_mount_that_could_be_written_to() {
    let (site, node) = serving();
    let mut watch = Watch::new(&node.path("web"));
    let place = site.area().directory("bind");
    let bind = Bind::new(&node.path("web"), &place);
    refused(&node.path("web"));
    refused(bind.0);
    assert_eq!(watch.seen(), [""; 0]);
    // Also while the notifier is at work on the same files.
    let ending = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ending.load(std::sync::atomic::Ordering::Relaxed) {
                refused(bind.0);
            }
        });
        for value in [b"one", b"two", b"six"] {
            site.rotate("key", value);
            watch.wait_for(&["MODIFY key", "CLOSE_WRITE key"]);
        }
        ending.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(node.read("web/key").expect("a value"), b"six");
}

/// A bind that root has made writable, as far as that goes.
struct Bind<'a>(&'a Path);

impl<'a> Bind<'a> {
    fn new(of: &Path, at: &'a Path) -> Self {
        mount_bind(of, at).expect("a bind mount");
        mount_remount(at, MountFlags::BIND, "").expect("a mount that may be written to");
        let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
        let line = table.lines().find(|line| line.contains(at.to_str().expect("a plain path")));
        assert!(line.is_some_and(|line| line.contains(" rw,")), "{line:?}");
        Self(at)
    }
}

impl Drop for Bind<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Root tries everything that could change something, or that watchers would take for a change.
fn refused(directory: &Path) {
    let (there, new) = (directory.join("key"), directory.join("new"));
    let attempts: [(&str, io::Result<()>); 9] = [
        ("write", OpenOptions::new().write(true).open(&there).map(drop)),
        ("write and read", OpenOptions::new().write(true).read(true).open(&there).map(drop)),
        ("truncate", OpenOptions::new().write(true).truncate(true).open(&there).map(drop)),
        ("make", fs::write(&new, "x")),
        ("make a directory", fs::create_dir(&new)),
        ("remove", fs::remove_file(&there)),
        ("rename", fs::rename(&there, &new)),
        ("change the mode", fs::set_permissions(&there, fs::Permissions::from_mode(0o600))),
        ("touch", touch(&there)),
    ];
    for (what, result) in attempts {
        let error = result.expect_err(what);
        assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()), "{what}: {error}");
    }
}

fn touch(path: &Path) -> io::Result<()> {
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    Ok(rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty())?)
}

fn a_notifier_has_no_more_rights_than_it_needs() {
    let (_site, node) = serving();
    let notifier = node.holder().notifier;
    let read = |file: &str| fs::read_to_string(format!("/proc/{notifier}/{file}")).expect("a process");
    assert_eq!(read("cmdline").trim_end_matches('\0'), "secretfs: notifier");
    let status = read("status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split_once(':').expect("a field").1.trim().to_owned()
    };
    const DAC_OVERRIDE: u64 = 1 << 1;
    for (set, expected) in
        [("CapInh", 0), ("CapPrm", DAC_OVERRIDE), ("CapEff", DAC_OVERRIDE), ("CapBnd", 0), ("CapAmb", 0)]
    {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(expected), "{set} in {status}");
    }
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"), "{status}");
    assert_eq!(field("Seccomp_filters"), "2", "{status}");
    assert_eq!(field("Threads"), "1");
}

fn a_notifier_that_is_killed_is_replaced_and_what_it_had_to_do_is_done() {
    let (site, node) = serving();
    let mut watch = Watch::new(&node.path("web"));
    let first = node.holder().notifier;
    assert_ne!(first, 0);
    // It stands still with something to do, and is killed so.
    node.signal(first, Signal::STOP);
    site.rotate("key", b"changed");
    node.wait_for("web/key", b"changed");
    assert_eq!(watch.seen(), [""; 0]);
    node.signal(first, Signal::KILL);
    watch.wait_for(&["MODIFY key", "CLOSE_WRITE key"]);
    deadline::eventually("another one is there", || ![0, first].contains(&node.holder().notifier));
    // In the middle of it: it has opened the file, or is about to.
    let (active, second) = (node.holder().active, node.holder().notifier);
    let stopped = Stopped::stop(active, READING);
    site.rotate("key", b"again");
    deadline::eventually("it waits for an answer", || waits_for_an_answer(second));
    node.signal(second, Signal::KILL);
    deadline::eventually("another one is there", || ![0, second].contains(&node.holder().notifier));
    assert_eq!(watch.seen(), [""; 0]);
    drop(stopped);
    watch.wait_for(&["MODIFY key", "CLOSE_WRITE key"]);
}

fn waits_for_an_answer(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/wchan")).is_ok_and(|place| place.contains("request_wait"))
}

/// Had the worker made the call itself, it would wait for its own answer, would not end when it is
/// killed, and nobody would ever take over.
fn a_worker_that_is_killed_while_the_notifier_waits_for_it_is_replaced_at_once() {
    let (site, node) = serving();
    for round in 0..3 {
        node.wait_for_standby();
        let mut watch = Watch::new(&node.path("web"));
        let (active, notifier) = (node.holder().active, node.holder().notifier);
        let stopped = Stopped::stop(active, READING);
        site.rotate("key", format!("value {round}").as_bytes());
        deadline::eventually("the notifier waits for an answer", || waits_for_an_answer(notifier));
        let began = Instant::now();
        node.signal(active, Signal::KILL);
        stopped.reap();
        assert_eq!(node.read("web/key").expect("a value"), format!("value {round}").as_bytes());
        assert!(began.elapsed() < Duration::from_millis(500), "it took {:?}", began.elapsed());
        // At least once.
        deadline::eventually("the change is seen", || {
            watch.seen().ends_with(&["MODIFY key".to_owned(), "CLOSE_WRITE key".to_owned()])
        });
        assert_eq!(node.holder().notifier, notifier, "it goes on");
    }
}

fn a_change_that_a_killed_worker_had_not_told_of_is_seen() {
    let (site, node) = serving();
    node.wait_for_standby();
    let mut watch = Watch::new(&node.path("web"));
    let holder = node.holder();
    node.signal(holder.active, Signal::STOP);
    site.rotate("key", b"changed");
    deadline::eventually("another worker serves", || node.holder().active != holder.active);
    watch.wait_for(&["MODIFY key", "CLOSE_WRITE key"]);
    assert_eq!(node.read("web/key").expect("a value"), b"changed");
}

/// Who has ended and is not reaped has no arguments any more.
fn runs(process: u32) -> bool {
    fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|arguments| !arguments.is_empty())
}

fn a_daemon_that_is_killed_whole_goes_on_and_tells_nothing_twice() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.join("web-1");
    let manager = ServiceManager::listen(site.area().path().join("notify"));
    let start = |manager: &ServiceManager, node: &mut Node| {
        let (mut command, kept) = manager.start_command(&node.config());
        node.run_as(&mut command);
        drop(kept);
    };
    start(&manager, &mut node);
    node.wait_for("web/key", b"value");
    settle(&site, &node);
    for round in 0..3 {
        node.wait_for_standby();
        let mut watch = Watch::new(&node.path("web"));
        manager.hear();
        let holder = node.holder();
        let processes = [holder.pid, holder.notifier, holder.active, holder.standby];
        processes.iter().for_each(|pid| node.signal(*pid, Signal::KILL));
        node.take_process().wait();
        // As a service manager does before it starts a service again.
        deadline::eventually("all have ended", || !processes.iter().any(|pid| runs(*pid)));
        start(&manager, &mut node);
        deadline::eventually("the node connects", || node.status()["connected"] == true);
        site.rotate("key", format!("value {round}").as_bytes());
        watch.wait_for(&["MODIFY key", "CLOSE_WRITE key"]);
    }
    node.stop();
    assert_eq!(manager.stored(), [""; 0]);
}

/// The notifier's own mount must not keep alive what nobody else can see any more.
fn that_somebody_else_unmounts_it_is_noticed() {
    let (_site, mut node) = serving();
    assert_eq!(node.status()["mounts"][0]["served"], true);
    unmount(node.mount(), rustix::mount::UnmountFlags::DETACH).expect("an administrator unmounts it");
    deadline::eventually("it is noticed", || node.status()["mounts"][0]["served"] == false);
    node.stop();
}

fn a_daemon_that_is_stopped_leaves_no_process_and_no_connection() {
    let (site, mut node) = serving();
    let control = site.area().directory("connections");
    rustix::mount::mount("fusectl", &control, "fusectl", MountFlags::empty(), None).expect("fusectl");
    let _guard = crate::harness::mount::MountPoint::create(control.clone());
    let device = fs::metadata(node.mount()).expect("the root").dev();
    let connection = control.join(rustix::fs::minor(device).to_string());
    assert!(connection.exists());
    let (notifier, mount) = (node.holder().notifier, node.mount().to_owned());
    let began = Instant::now();
    node.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    assert!(!is_mounted(&mount));
    assert!(!Path::new(&format!("/proc/{notifier}")).exists(), "the notifier is still there");
    // Another daemon's witness that is just being started has all mounts for a moment, before it lets them go.
    deadline::eventually("the connection has ended", || !connection.exists());
}
