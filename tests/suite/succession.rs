//! Workers end, in every way that a process can, and the mount does not.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::requirement::trials;
use crate::harness::traced::{READING, Stopped};
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount];
    workers_are_unprivileged_and_confined_and_ps_tells_them_apart,
    an_open_file_reads_its_version_through_a_kill_while_the_manager_is_away,
    what_is_cached_is_there_after_a_kill_while_the_manager_is_away,
    closed_files_are_closed_for_the_next_worker_too,
    a_waiter_is_woken_by_a_later_worker,
    a_change_that_was_made_while_nobody_served_is_seen,
    an_outage_is_as_old_as_it_is_whoever_serves,
    a_worker_that_stands_still_is_replaced_within_the_deadline,
    a_killed_worker_that_does_not_end_is_replaced_all_the_same,
    a_reader_can_be_killed_while_nobody_serves,
    a_request_that_ends_two_workers_is_answered_and_the_others_live,
    a_crash_loop_is_answered_with_errors_and_ends,
    a_renewed_certificate_is_the_next_workers_too,
}

fn serving() -> (Site, Node) {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value"), ("other", b"another")]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    (site, node)
}

fn workers_are_unprivileged_and_confined_and_ps_tells_them_apart() {
    let (_site, node) = serving();
    node.wait_for_standby();
    let holder = node.holder();
    assert_eq!(title(holder.pid), "secretfs: holder");
    assert_eq!(title(holder.active), "secretfs: worker (active)");
    assert_eq!(title(holder.standby), "secretfs: worker (standby)");
    const IPC_LOCK: u64 = 1 << 14;
    for worker in [holder.active, holder.standby] {
        let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("a process");
        let field = |name: &str| {
            let line =
                status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
            line.split_once(':').expect("a field").1.trim().to_owned()
        };
        let capabilities = |name| u64::from_str_radix(&field(name), 16).expect("hexadecimal");
        assert!(!field("Uid").split_whitespace().any(|uid| uid == "0"), "{status}");
        assert!(!field("Gid").split_whitespace().any(|gid| gid == "0"), "{status}");
        assert_eq!(field("Groups"), "", "{status}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(capabilities(set) & !IPC_LOCK, 0, "{set} in {status}");
        }
        assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"), "{status}");
        assert_eq!(field("Seccomp_filters"), "2", "{status}");
        // The owner of the files in /proc is root where a process may not be looked into.
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(fs::metadata(format!("/proc/{worker}/environ")).expect("a process").uid(), 0);
    }
}

fn title(pid: u32) -> String {
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a process");
    arguments.trim_end_matches('\0').to_owned()
}

fn an_open_file_reads_its_version_through_a_kill_while_the_manager_is_away() {
    let (site, node) = serving();
    let mut open = File::open(node.path("web/key")).expect("an open file");
    let mut begin = [0; 2];
    open.read_exact(&mut begin).expect("its begin");
    site.rotate("key", b"changed");
    node.wait_for("web/key", b"changed");
    site.manager.pause();
    for _ in 0..3 {
        node.kill_worker(Signal::KILL);
        assert_eq!(node.read("web/key").expect("the next open"), b"changed");
        let mut whole = [0; 5];
        open.read_exact_at(&mut whole, 0).expect("the open file");
        assert_eq!(&whole, b"value");
    }
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).expect("the rest of the open file");
    assert_eq!([&begin[..], &rest[..]].concat(), b"value");
    site.manager.resume();
}

fn what_is_cached_is_there_after_a_kill_while_the_manager_is_away() {
    let (site, node) = serving();
    site.manager.pause();
    node.kill_worker(Signal::KILL);
    let began = Instant::now();
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    assert!(began.elapsed() < Duration::from_secs(1), "it asked the manager");
    let mut names: Vec<_> = fs::read_dir(node.path("web"))
        .expect("a listing")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    assert_eq!(names, ["key", "other"]);
    site.manager.resume();
}

fn closed_files_are_closed_for_the_next_worker_too() {
    let (_site, node) = serving();
    let open_files = || node.status()["mounts"][0]["open_files"].as_u64();
    let files: Vec<_> = (0..5).map(|_| File::open(node.path("web/key")).expect("an open file")).collect();
    assert_eq!(open_files(), Some(5));
    node.kill_worker(Signal::KILL);
    assert_eq!(open_files(), Some(5), "they are inherited");
    drop(files);
    deadline::eventually("none is open", || open_files() == Some(0));
    node.kill_worker(Signal::KILL);
    assert_eq!((open_files(), node.status()["pinned_versions"].as_u64()), (Some(0), Some(0)));
}

fn a_waiter_is_woken_by_a_later_worker() {
    let (site, node) = serving();
    let open = File::open(node.path("web/key")).expect("an open file");
    let waiter = std::thread::spawn(move || {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut waits = [PollFd::new(&open, PollFlags::PRI)];
        let limit = Timespec { tv_sec: 45, tv_nsec: 0 };
        poll(&mut waits, Some(&limit)).map(|ready| (ready, waits[0].revents()))
    });
    deadline::eventually("it waits", || node.status()["mounts"][0]["polled"] == 1);
    node.kill_worker(Signal::KILL);
    let began = Instant::now();
    site.rotate("key", b"changed");
    let (ready, events) = waiter.join().expect("a result").expect("a poll");
    assert!(ready == 1 && events.contains(rustix::event::PollFlags::PRI), "{events:?}");
    assert!(began.elapsed() < Duration::from_secs(30), "it woke by itself");
}

fn a_change_that_was_made_while_nobody_served_is_seen() {
    let (site, node) = serving();
    assert_eq!(node.read("web/other").expect("a value"), b"another");
    // The kernel knows names and sizes for an hour: only who is told forgets them.
    let holder = node.holder();
    node.signal(holder.active, Signal::STOP);
    site.rotate("key", b"a longer value");
    site.operator.ok(&["service", "detach", "web", "other"]);
    deadline::eventually("another worker serves", || node.holder().active != holder.active);
    node.wait_for("web/key", b"a longer value");
    assert_eq!(fs::metadata(node.path("web/key")).expect("a file").len(), 14);
    node.wait_gone("web/other");
}

fn an_outage_is_as_old_as_it_is_whoever_serves() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.join("web-1");
    node.configure("max_stale = \"3s\"");
    node.run_connected();
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    site.manager.pause();
    node.process().wait_for_log("not connected to the manager");
    let since = node.status()["stale_since"].clone();
    assert!(since.is_string());
    let begin = Instant::now();
    deadline::eventually("it is too old", || {
        node.kill_worker(Signal::KILL);
        assert_eq!(node.status()["stale_since"], since, "a new worker is no new outage");
        node.read("web/key").is_err()
    });
    assert!(begin.elapsed() < Duration::from_secs(20), "each worker began to count anew");
    site.manager.resume();
    node.wait_for("web/key", b"value");
}

fn a_worker_that_stands_still_is_replaced_within_the_deadline() {
    let (_site, node) = serving();
    for _ in 0..3 {
        let holder = node.holder();
        node.signal(holder.active, Signal::STOP);
        let began = Instant::now();
        assert_eq!(node.read("web/key").expect("a value"), b"value");
        // The deadline of a read is 2 s.
        assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
        assert_ne!(node.holder().active, holder.active);
        node.wait_for_standby();
    }
}

/// A thread of the worker's waits in the kernel for the lock of a directory, to take a name out of it.
/// Who has the lock waits for an answer, which the worker's other threads will never give.
fn a_killed_worker_that_does_not_end_is_replaced_all_the_same() {
    let (site, node) = serving();
    node.wait_for_standby();
    let active = node.holder().active;
    let stopped = Stopped::stop(active, READING);
    let absent = node.path("web/absent");
    let reader = std::thread::spawn(move || fs::metadata(absent));
    let waits = |place: &str| {
        let threads = fs::read_dir(format!("/proc/{active}/task")).expect("a process");
        threads.flatten().any(|thread| {
            let read = |file| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            read("comm").trim_end() == "secretfs-notify" && read("stack").contains(place)
        })
    };
    site.operator.ok(&["service", "detach", "web", "other"]);
    deadline::eventually("the worker waits for the directory", || waits("fuse_reverse_inval_entry"));
    node.signal(active, Signal::KILL);
    stopped.reap();
    let began = Instant::now();
    let error = reader.join().expect("an answer").expect_err("it is not there");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    // A second at the most until it is noticed, within what any read may wait for.
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    node.wait_gone("web/other");
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    deadline::eventually("nothing is left of it", || !fs::exists(format!("/proc/{active}")).unwrap_or(true));
}

fn a_reader_can_be_killed_while_nobody_serves() {
    let (_site, node) = serving();
    let holder = node.holder();
    // Nobody takes over, and nobody refuses: the holder itself stands still.
    node.signal(holder.pid, Signal::STOP);
    node.signal(holder.active, Signal::KILL);
    // One that dies with the request in hand leaves a reader that only the next worker can free.
    deadline::eventually("the worker has ended", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", holder.active)).map(Iterator::count);
        let status = fs::read_to_string(format!("/proc/{}/status", holder.active)).unwrap_or_default();
        tasks.is_ok_and(|tasks| tasks == 1) && status.contains("State:\tZ")
    });
    let mut reader = std::process::Command::new("cat").arg(node.path("web/key")).spawn().expect("cat");
    deadline::eventually("it waits in the kernel", || {
        fs::read_to_string(format!("/proc/{}/wchan", reader.id()))
            .is_ok_and(|place| place.contains("fuse") || place.contains("request_wait"))
    });
    reader.kill().expect("it is there");
    deadline::eventually("it ends", || reader.try_wait().expect("a child").is_some());
    node.signal(holder.pid, Signal::CONT);
    assert_eq!(node.read("web/key").expect("a value"), b"value");
}

fn a_request_that_ends_two_workers_is_answered_and_the_others_live() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value"), ("cold", b"never read")]);
    let mut node = site.join("web-1");
    node.configure("deadline = \"30s\"");
    node.run_connected();
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    site.manager.pause();
    // A worker that has not asked for anything yet.
    node.kill_worker(Signal::KILL);
    // It waits for the manager, and whoever has it in hand crashes.
    let cold = node.path("web/cold");
    let waiting = std::thread::spawn(move || fs::read(cold));
    for _ in 0..2 {
        deadline::eventually("it is in hand", || node.status()["cache_misses"] == 1);
        node.kill_worker(Signal::ABORT);
        assert_eq!(node.read("web/key").expect("the others live"), b"value");
    }
    let error = deadline::within(deadline::PATIENCE, "the third worker answers", move || {
        waiting.join().expect("a result").expect_err("an error")
    });
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    site.manager.resume();
    node.wait_for("web/cold", b"never read");
}

fn a_crash_loop_is_answered_with_errors_and_ends() {
    let (_site, node) = serving();
    let crash = || {
        let before = node.holder();
        node.signal(before.active, Signal::ABORT);
        deadline::eventually("it is replaced", || {
            let now = node.holder();
            now.refusing || (now.active != 0 && now.active != before.active)
        });
    };
    let mut crashes = 0;
    while !node.holder().refusing {
        node.wait_for_standby();
        crash();
        crashes += 1;
        assert!(crashes < 20, "no crash is one too many");
    }
    let error = deadline::poll("requests are refused", || node.read("web/key").err());
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    node.wait_for("web/key", b"value");
    deadline::eventually("nothing is refused any more", || !node.holder().refusing);
}

fn a_renewed_certificate_is_the_next_workers_too() {
    let site = Site::with("node_certificate_lifetime = \"8s\"");
    site.serve("web-1", "web", &[("key", b"value")]);
    let node = site.node("web-1");
    let ends = || node.status()["certificate_expires"].clone();
    let first = ends();
    deadline::eventually("it is renewed", || ends() != first);
    node.wait_for_standby();
    node.kill_worker(Signal::KILL);
    deadline::eventually("the next worker is let in", || node.status()["connected"] == true);
}
