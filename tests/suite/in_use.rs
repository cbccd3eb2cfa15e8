//! When an old value can be retired where it is used: who still has it, and waiting until nobody has.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::process::Outcome;
use crate::harness::requirement::trials;
use crate::harness::{Node, Operator, Site, deadline};

trials! {
    needs [Mount];
    inspect_counts_the_files_that_hold_an_old_version_and_where,
    a_rotation_waits_until_the_last_old_file_is_closed,
    a_rollback_waits_as_a_rotation_does,
    a_wait_ends_in_time_and_names_the_node,
    a_node_that_cannot_be_asked_is_unknown_until_it_is_back_or_revoked,
    counts_stay_exact_whoever_serves,
}

fn serving() -> (Site, Node) {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    (site, node)
}

/// What `secret inspect --json` says of each node.
fn usage(site: &Site) -> Value {
    site.operator.json(&["secret", "inspect", "key"])["usage"].clone()
}

/// Waits until the one node is said to serve this version and to hold these, with their open files.
pub(crate) fn wait_for_usage(site: &Site, version: u64, old: &[(u64, u64)]) {
    let old: Vec<_> =
        old.iter().map(|(version, handles)| json!({ "version": version, "handles": handles })).collect();
    let mut last = Value::Null;
    let begin = Instant::now();
    while begin.elapsed() < deadline::PATIENCE {
        last = usage(site);
        let all = last.as_array().expect("a list");
        if all.len() == 1 && all[0]["version"] == version && all[0]["old"] == json!(old) {
            return;
        }
    }
    panic!("not version {version} and {old:?} but {last}");
}

fn inspect_counts_the_files_that_hold_an_old_version_and_where() {
    let (site, mut node) = serving();
    wait_for_usage(&site, 1, &[]);
    let of = usage(&site);
    assert_eq!((&of[0]["node"], &of[0]["connected"]), (&json!("web-1"), &json!(true)), "{of}");
    // The same file through another mount is one more open file of the same version.
    node.stop();
    let flat = site.area().directory("mounts").join("flat");
    node.add_mount(flat.clone(), Some("web"));
    node.run_connected();
    let open = File::open(node.path("web/key")).expect("an open file");
    let other = File::open(flat.join("key")).expect("an open file");
    site.rotate("key", b"second");
    wait_for_usage(&site, 2, &[(1, 2)]);
    let second = File::open(node.path("web/key")).expect("an open file");
    drop(other);
    site.rotate("key", b"third");
    wait_for_usage(&site, 3, &[(1, 1), (2, 1)]);
    let text = site.operator.ok(&["secret", "inspect", "key"]);
    let line = "web-1  serves version 3, holds version 1 in 1 open file, holds version 2 in 1 open file";
    assert!(text.contains(line), "{text}");
    drop((open, second));
    wait_for_usage(&site, 3, &[]);
    // Open on the current version is nothing to wait for, and becomes something with the next one.
    let current = File::open(node.path("web/key")).expect("an open file");
    site.operator.ok(&["service", "detach", "web", "key"]);
    wait_unassigned(&site);
    site.rotate("key", b"fourth");
    deadline::eventually("what is detached and open is seen", || {
        let of = usage(&site);
        of[0]["assigned"] == false && of[0]["old"] == json!([{ "version": 3, "handles": 1 }])
    });
    drop(current);
    deadline::eventually("nobody has it", || usage(&site) == json!([]));
}

fn wait_unassigned(site: &Site) {
    deadline::eventually("the node serves it no more", || {
        usage(site).as_array().is_some_and(|all| all.iter().all(|of| of["version"].is_null()))
    });
}

/// Runs a command in a thread, and waits until it has begun to wait.
pub(crate) fn begin(
    operator: &Operator,
    arguments: &[&str],
    value: &[u8],
) -> thread::JoinHandle<(Outcome, Instant)> {
    let (operator, value) = (operator.clone(), value.to_vec());
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    thread::spawn(move || {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let outcome = operator.run_with(&arguments, &value);
        (outcome, Instant::now())
    })
}

/// A process that has a file open, until it is dropped.
struct Holder(Child);

impl Holder {
    fn of(file: File) -> Self {
        let mut command = Command::new("tail");
        command.args(["-f", "/dev/null"]).stdin(file).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("a process"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_rotation_waits_until_the_last_old_file_is_closed() {
    let (site, node) = serving();
    // In another process, which the kernel closes everything for when it is killed.
    let path = node.path("web/key");
    let holder = Holder::of(File::open(&path).expect("an open file"));
    let mine = File::open(&path).expect("an open file");
    let arguments = ["secret", "rotate", "key", "-", "--wait", "--json", "--timeout", "40s"];
    let waiting = begin(&site.operator, &arguments, b"changed");
    node.wait_for("web/key", b"changed");
    wait_for_usage(&site, 2, &[(1, 2)]);
    drop(holder);
    wait_for_usage(&site, 2, &[(1, 1)]);
    assert!(!waiting.is_finished(), "one file is still open");
    let closed = Instant::now();
    drop(mine);
    let (outcome, ended) = waiting.join().expect("an outcome");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(ended > closed && ended - closed < Duration::from_secs(20), "{outcome:?}");
    let details: Value = serde_json::from_str(&outcome.stdout).expect("one JSON document");
    assert_eq!((&details["current"], &details["usage"][0]["version"]), (&json!(2), &json!(2)), "{details}");
    let lines: Vec<_> = outcome.stderr.lines().filter(|line| line.starts_with("waiting for")).collect();
    assert!(lines.iter().any(|line| line.contains("web-1 serves version 2, holds version 1")), "{lines:?}");
    assert!(lines.windows(2).all(|pair| pair[0] != pair[1]), "a line for each change: {lines:?}");
}

fn a_rollback_waits_as_a_rotation_does() {
    let (site, node) = serving();
    let quick = ["secret", "rotate", "key", "-", "--wait"];
    let outcome = site.operator.run_with(&quick, b"second");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "key version 2\n"), "{outcome:?}");
    assert_eq!(node.read("web/key").expect("a value"), b"second", "it is everywhere");
    let open = File::open(node.path("web/key")).expect("an open file");
    let waiting = begin(&site.operator, &["secret", "rollback", "key", "--wait"], b"");
    wait_for_usage(&site, 1, &[(2, 1)]);
    assert!(!waiting.is_finished());
    drop(open);
    let (outcome, _) = waiting.join().expect("an outcome");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "key version 1\n"), "{outcome:?}");
}

fn a_wait_ends_in_time_and_names_the_node() {
    let (site, node) = serving();
    let open = File::open(node.path("web/key")).expect("an open file");
    wait_for_usage(&site, 1, &[]);
    let began = Instant::now();
    let outcome =
        site.operator.run_with(&["secret", "rotate", "key", "-", "--wait", "--timeout", "3s"], b"changed");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(began.elapsed() >= Duration::from_secs(3), "{outcome:?}");
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("secretfs: after 3s") && last.contains("web-1 serves version 2, holds version 1")
    );
    drop(open);
    let refused = site.operator.run_with(&["secret", "rotate", "key", "-", "--timeout", "3s"], b"x");
    assert_eq!(refused.code, 2, "a timeout of no wait: {refused:?}");
}

fn a_node_that_cannot_be_asked_is_unknown_until_it_is_back_or_revoked() {
    let (site, mut node) = serving();
    wait_for_usage(&site, 1, &[]);
    node.stop();
    deadline::eventually("it is gone", || usage(&site)[0]["connected"] == false);
    assert_eq!(usage(&site)[0]["version"], 1, "what it said last");
    let wait = |value: &[u8], timeout| {
        let arguments = ["secret", "rotate", "key", "-", "--wait", "--timeout", timeout];
        site.operator.run_with(&arguments, value)
    };
    let outcome = wait(b"second", "1s");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("web-1 is not connected"), "{outcome:?}");
    // Back to what it said last, which says nothing of what it has now.
    let arguments = ["secret", "rollback", "key", "--to", "1", "--wait", "--timeout", "3s"];
    let outcome = site.operator.run(&arguments);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("web-1 is not connected"), "{outcome:?}");
    node.run_connected();
    assert_eq!(wait(b"third", "40s").code, 0, "it is back");
    node.stop();
    deadline::eventually("it is gone", || usage(&site)[0]["connected"] == false);
    site.operator.ok(&["node", "revoke", "web-1"]);
    assert_eq!(wait(b"fourth", "10s").code, 0, "it has nothing any more");
    assert_eq!(usage(&site), json!([]));
}

fn counts_stay_exact_whoever_serves() {
    let (mut site, node) = serving();
    let mut open: Vec<_> = (0..3).map(|_| File::open(node.path("web/key")).expect("an open file")).collect();
    site.rotate("key", b"changed");
    wait_for_usage(&site, 2, &[(1, 3)]);
    for left in [2, 1] {
        node.kill_worker(Signal::KILL);
        wait_for_usage(&site, 2, &[(1, left + 1)]);
        open.pop();
        wait_for_usage(&site, 2, &[(1, left)]);
    }
    // A manager that was restarted knows nothing, and is told all.
    site.manager.stop();
    site.manager.run();
    wait_for_usage(&site, 2, &[(1, 1)]);
    // Closed while the manager could not be told.
    site.manager.pause();
    open.pop();
    node.kill_worker(Signal::KILL);
    site.manager.resume();
    wait_for_usage(&site, 2, &[]);
    assert_eq!(fs::read(node.path("web/key")).expect("a value"), b"changed");
}
