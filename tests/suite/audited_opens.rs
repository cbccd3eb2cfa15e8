//! Each open at a node is on record: by whom it really was, once, and before it succeeds where that is
//! demanded.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, setfsuid};
use rustix::io::Errno;
use rustix::process::Signal;
use secretfs_wire::api::Open;
use secretfs_wire::audit::AuditMode;
use secretfs_wire::manifest::RawTarget;

use crate::harness::area::{Area, Logs};
use crate::harness::fake_manager::{Answer, FakeManager, Recording, target};
use crate::harness::requirement::trials;
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount];
    opens_of_several_users_are_on_record_as_what_they_are,
    nothing_is_opened_without_a_record_where_one_is_required,
    over_killed_workers_and_a_manager_in_trouble_every_success_is_on_record,
    a_killed_witness_is_replaced_and_costs_no_open,
    a_witness_has_no_more_rights_than_it_needs,
    what_is_opened_faster_than_it_is_told_is_counted,
    an_outage_is_caught_up_with,
    an_attachment_says_whether_a_record_is_required,
}

/// The user of the first open while everything is killed. Nobody else opens anything as such a user.
pub(crate) const FIRST_USER: u32 = 100_000;

/// How many opens there are while everything is killed.
pub(crate) fn audited_opens() -> usize {
    std::env::var("SECRETFS_TEST_OPENS").map_or(200, |count| count.parse().expect("a number"))
}

pub(crate) fn node(area: &Area, manager: &FakeManager, settings: &str) -> Node {
    let logs = Logs::at(area.directory("logs"));
    let mut node = Node::new("web-1", &area.directory("hosts"), &area.directory("mounts"), &logs);
    let outcome = node.join(&manager.url(), &manager.token());
    assert_eq!(outcome.code, 0, "{outcome:?}");
    node.configure(settings);
    node.run_connected();
    node
}

/// One file, `key`.
pub(crate) fn manager(audit: AuditMode) -> FakeManager {
    let key = RawTarget { audit, ..target("key", 5) };
    FakeManager::start(vec![key], &[("key", Answer::Value(b"value".to_vec()))], vec![])
}

/// Reads a file as another user. Tells the process id.
pub(crate) fn cat_as(user: u32, path: &std::path::Path) -> u32 {
    let mut cat = Command::new("cat");
    let child = cat.arg(path).uid(user).gid(user).stdout(Stdio::piped()).spawn().expect("cat");
    let pid = child.id();
    assert_eq!(child.wait_with_output().expect("its end").stdout, b"value");
    pid
}

pub(crate) fn path_of(program: &str) -> String {
    let which = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().expect("a shell");
    let path = String::from_utf8(which.stdout).expect("a path");
    fs::canonicalize(path.trim()).expect(program).to_str().expect("a plain path").to_owned()
}

fn opens_of_several_users_are_on_record_as_what_they_are() {
    let area = Area::new();
    let manager = manager(AuditMode::Buffered);
    let node = node(&area, &manager, "");
    let mut expected = BTreeSet::new();
    for number in 0..20 {
        let user = 2_000 + number % 5;
        expected.insert((user, cat_as(user, &node.path("web/key"))));
    }
    let cat = path_of("cat");
    let found = deadline::poll("all are on record", || {
        let opens = manager.opens();
        (opens.len() >= expected.len()).then_some(opens)
    });
    let seen: BTreeSet<_> = found.iter().map(|open| (open.process.uid, open.process.pid)).collect();
    assert_eq!(seen, expected);
    assert_eq!(found.len(), expected.len());
    for Open { service, target, process, failure, .. } in &found {
        assert_eq!((service.as_str(), target.as_str(), failure), ("web", "key", &None));
        assert_eq!(process.executable.as_deref(), Some(cat.as_str()), "{process:?}");
        assert_eq!((process.gid, process.container.as_deref()), (process.uid, None));
        assert!(process.started.is_some() && process.cgroup.is_some(), "{process:?}");
    }
    deadline::eventually("nothing is left", || node.status()["audit"]["buffered"] == 0);
}

fn nothing_is_opened_without_a_record_where_one_is_required() {
    let area = Area::new();
    let manager = manager(AuditMode::Required);
    let node = node(&area, &manager, "deadline = \"500ms\"");
    // When it succeeds, it is there: no waiting.
    assert_eq!(node.read("web/key").expect("it is on record"), b"value");
    assert_eq!(manager.opens().len(), 1);
    manager.set_recording(Recording::No);
    let began = Instant::now();
    let error = node.read("web/key").expect_err("cached, and not on record");
    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{error}");
    assert!(began.elapsed().as_secs() < 3);
    let status = node.status();
    let reason = status["trouble"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("on record"), "{status}");
    assert!(status["audit"]["reason"].is_string(), "{status}");
    assert_eq!(status["mounts"][0]["open_files"], 0, "{status}");
    manager.set_recording(Recording::Yes);
    deadline::eventually("it is opened again", || node.read("web/key").is_ok());
    assert!(node.status()["trouble"].is_null());
    deadline::eventually("how the other one ended is told too", || {
        manager.opens().iter().any(|open| open.failure.is_some())
    });
}

fn over_killed_workers_and_a_manager_in_trouble_every_success_is_on_record() {
    let area = Area::new();
    let manager = manager(AuditMode::Required);
    let node = node(&area, &manager, "deadline = \"5s\"");
    manager.set_recording(Recording::InTrouble);
    let (succeeded, kills) = open_while_killing(&node, |_| {});
    assert!(kills > 2, "workers were killed meanwhile");
    assert!(succeeded.len() > audited_opens() / 2, "{} opens succeeded", succeeded.len());
    let opens = manager.opens();
    let done = opens.iter().filter(|open| open.failure.is_none());
    let recorded: BTreeSet<_> = done.map(|open| open.process.uid).collect();
    let missing: Vec<_> = succeeded.difference(&recorded).collect();
    assert!(missing.is_empty(), "these users opened it, and that is not on record: {missing:?}");
    assert!(manager.told_again() > 0, "nothing was in doubt");
    assert_eq!(manager.lost(), 0);
}

/// Opens `web/key` again and again, each time as another user, so that no record of one is taken for that of
/// another; and kills workers under it, as often as some opens have ended since the last time. `disturb` is
/// called all the while with how many have. Tells which users succeeded, and how many workers were killed.
pub(crate) fn open_while_killing(node: &Node, mut disturb: impl FnMut(usize)) -> (BTreeSet<u32>, usize) {
    const EACH: usize = 10;
    const LOOK: Duration = Duration::from_millis(1);
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let path = node.path("web/key");
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let (mut kills, mut next) = (0, EACH);
            while !over.load(Ordering::Relaxed) {
                if done.load(Ordering::Relaxed) < next {
                    thread::sleep(LOOK);
                    continue;
                }
                node.wait_for_standby();
                node.signal(node.holder().active, Signal::KILL);
                kills += 1;
                next = done.load(Ordering::Relaxed) + EACH;
            }
            kills
        });
        let reader = scope.spawn(|| {
            let users = (FIRST_USER..).take(audited_opens());
            let succeeded = users.filter(|user| {
                // Of this thread alone, which ends with it.
                setfsuid(Uid::from_raw(*user));
                let succeeded = File::open(&path).is_ok();
                done.fetch_add(1, Ordering::Relaxed);
                succeeded
            });
            let succeeded = succeeded.collect();
            over.store(true, Ordering::Relaxed);
            succeeded
        });
        while !over.load(Ordering::Relaxed) {
            disturb(done.load(Ordering::Relaxed));
            thread::sleep(LOOK);
        }
        (reader.join().expect("no panic"), killer.join().expect("no panic"))
    })
}

fn a_killed_witness_is_replaced_and_costs_no_open() {
    let area = Area::new();
    let manager = manager(AuditMode::Buffered);
    let node = node(&area, &manager, "");
    let before = deadline::poll("there is a witness", || Some(node.holder().witness).filter(|pid| *pid != 0));
    node.signal(before, Signal::KILL);
    cat_as(2_000, &node.path("web/key"));
    deadline::eventually("there is another one", || ![0, before].contains(&node.holder().witness));
    let pid = cat_as(2_001, &node.path("web/key"));
    let last = deadline::poll("both are on record", || {
        let opens = manager.opens();
        opens.into_iter().find(|open| open.process.pid == pid)
    });
    assert_eq!(last.process.executable, Some(path_of("cat")));
}

fn a_witness_has_no_more_rights_than_it_needs() {
    let area = Area::new();
    let manager = manager(AuditMode::Buffered);
    let node = node(&area, &manager, "");
    // Who has answered is confined.
    cat_as(2_000, &node.path("web/key"));
    let witness = node.holder().witness;
    let read = |file: &str| fs::read_to_string(format!("/proc/{witness}/{file}")).expect("a process");
    assert_eq!(read("cmdline").trim_end_matches('\0'), "secretfs: witness");
    let status = read("status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split_once(':').expect("a field").1.trim().to_owned()
    };
    const DAC_READ_SEARCH: u64 = 1 << 2;
    const SYS_PTRACE: u64 = 1 << 19;
    let looks = DAC_READ_SEARCH | SYS_PTRACE;
    for (set, expected) in [("CapInh", 0), ("CapPrm", looks), ("CapEff", looks), ("CapBnd", 0), ("CapAmb", 0)]
    {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(expected), "{set} in {status}");
    }
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"), "{status}");
    assert_eq!(field("Threads"), "1");
    let mounts = read("mountinfo");
    assert!(!mounts.contains("fuse") && mounts.lines().count() <= 1, "it sees {mounts}");
}

fn what_is_opened_faster_than_it_is_told_is_counted() {
    let area = Area::new();
    let manager = manager(AuditMode::Buffered);
    let node = node(&area, &manager, "audit_bytes = 65536");
    manager.set_recording(Recording::No);
    let path = node.path("web/key");
    const OPENS: u64 = 3_000;
    for _ in 0..OPENS {
        File::open(&path).expect("no open waits for a record");
    }
    let audit = node.status()["audit"].clone();
    let (buffered, lost) = (audit["buffered"].as_u64(), audit["lost"].as_u64());
    assert_eq!(buffered.zip(lost).map(|(buffered, lost)| buffered + lost), Some(OPENS), "{audit}");
    assert!(lost > Some(0) && audit["oldest_unsent"].is_string(), "{audit}");
    manager.set_recording(Recording::Yes);
    deadline::eventually("the manager knows of all", || {
        manager.opens().len() as u64 + manager.lost() == OPENS
    });
}

fn an_outage_is_caught_up_with() {
    let area = Area::new();
    let manager = manager(AuditMode::Buffered);
    let node = node(&area, &manager, "");
    manager.set_recording(Recording::No);
    let path = node.path("web/key");
    for number in 0..50 {
        File::open(&path).expect("no open waits for a record");
        if number % 20 == 10 {
            node.kill_worker(Signal::KILL);
        }
    }
    manager.set_recording(Recording::Yes);
    deadline::eventually("all are on record", || manager.opens().len() == 50);
    let metrics = node.metrics();
    assert!(metrics.stdout.contains("secretfs_node_audit_lost_total 0"), "{}", metrics.stdout);
    assert!(metrics.stdout.contains("secretfs_node_audit_buffered"), "{}", metrics.stdout);
}

fn an_attachment_says_whether_a_record_is_required() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value"), ("other", b"value")]);
    site.attach("web", "key", &["--audit", "required"]);
    let inspected = site.operator.ok(&["service", "inspect", "web"]);
    let key = inspected.lines().find(|line| line.trim().starts_with("key ")).expect("the attachment");
    assert!(key.contains("audit required"), "{inspected}");
    let other = inspected.lines().find(|line| line.trim().starts_with("other ")).expect("the attachment");
    assert!(other.contains("audit buffered"), "{inspected}");
    let details = site.operator.json(&["service", "inspect", "web"]);
    assert_eq!(details["attachments"][0]["audit"], "required", "{details}");
    let refused = site.operator.run(&["service", "attach", "web", "key", "--audit", "sometimes"]);
    assert_eq!(refused.code, 2, "{refused:?}");
}
