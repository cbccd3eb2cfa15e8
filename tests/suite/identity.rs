//! Who a node is: what an operator sees before it is let in, and that one identity is one daemon.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::process::SECRETFS;
use crate::harness::requirement::trials;
use crate::harness::service_manager::ServiceManager;
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount];
    an_operator_compares_the_fingerprint_before_a_node_is_let_in,
    a_copied_identity_is_found_within_seconds_and_stays_flagged,
    a_daemon_that_is_started_again_and_again_is_one,
    workers_that_are_killed_and_upgraded_are_one_daemon,
    a_daemon_that_inherits_from_one_that_was_killed_is_the_same,
}

/// From the start of the second daemon.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

fn inspect(site: &Site, node: &str) -> Value {
    site.operator.json(&["node", "inspect", node])
}

fn an_operator_compares_the_fingerprint_before_a_node_is_let_in() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.host("web-1");
    let outcome = node.join(&site.manager.url(), &site.token(&["--approval"]));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    node.run();

    let pending = inspect(&site, "web-1");
    let fingerprint = pending["fingerprint"].as_str().expect("a fingerprint");
    assert!(fingerprint.starts_with("SHA256:"), "{fingerprint}");
    assert!(outcome.stdout.contains(fingerprint), "join says it: {}", outcome.stdout);
    assert_eq!(node.status()["fingerprint"], fingerprint);
    assert_eq!(pending["address"], "127.0.0.1");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("this kernel");
    assert_eq!(pending["host"]["kernel"], kernel.trim());
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let shown = site.operator.ok(&["node", "inspect", "web-1"]);
    assert!(machine.trim().is_empty() || !shown.contains(machine.trim()), "the raw id is nobody's business");
    let listed = site.operator.ok(&["node", "ls"]);
    assert!(listed.contains("PENDING") && listed.contains(fingerprint), "{listed}");

    let other = format!("SHA256:{}", "A".repeat(43));
    let refused = site.operator.run(&["node", "approve", "web-1", "--fingerprint", &other]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(fingerprint), "it says which it has: {}", refused.stderr);
    node.read("web/key").expect_err("not approved");
    let approved = site.operator.ok(&["node", "approve", "web-1", "--fingerprint", fingerprint]);
    assert!(approved.contains(fingerprint) && approved.contains(kernel.trim()), "{approved}");
    node.wait_for("web/key", b"value");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a state directory") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

fn a_copied_identity_is_found_within_seconds_and_stays_flagged() {
    let mut site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let node = site.node("web-1");
    node.wait_for("web/key", b"value");
    assert!(inspect(&site, "web-1")["duplicate"].is_null());

    let mut clone = site.host("clone");
    copy(&node.state(), &clone.state());
    let began = Instant::now();
    clone.run_connected();
    deadline::eventually("the clone is found", || !inspect(&site, "web-1")["duplicate"].is_null());
    let took = began.elapsed();
    say_found(took);
    assert!(took < FOUND_WITHIN, "{took:?}");
    let found = inspect(&site, "web-1")["duplicate"].clone();
    let instances = found["instances"].as_array().expect("instances");
    assert_eq!(instances.len(), 2, "both: {found}");
    assert_ne!(instances[0]["instance"], instances[1]["instance"]);
    assert!(instances.iter().all(|heard| heard["address"] == "127.0.0.1"), "{found}");
    let listed = site.operator.ok(&["node", "ls"]);
    assert!(listed.contains("DUPLICATE"), "{listed}");

    // An operator decides: until then both are served.
    for daemon in [&node, &clone] {
        deadline::eventually("it is connected", || daemon.status()["connected"] == true);
        daemon.wait_for("web/key", b"value");
    }
    site.rotate("key", b"changed");
    node.wait_for("web/key", b"changed");
    clone.wait_for("web/key", b"changed");

    site.manager.stop();
    site.manager.run();
    assert_eq!(inspect(&site, "web-1")["duplicate"]["since"], found["since"], "a manager remembers");

    // Looked into, and not mended: it is found again.
    site.operator.ok(&["node", "approve", "web-1"]);
    deadline::eventually("it is found again", || !inspect(&site, "web-1")["duplicate"].is_null());
    clone.stop();
    site.operator.ok(&["node", "approve", "web-1"]);
    deadline::eventually("it is connected", || inspect(&site, "web-1")["connected"] == true);
    site.rotate("key", b"again");
    node.wait_for("web/key", b"again");
    assert!(inspect(&site, "web-1")["duplicate"].is_null(), "mended");
}

#[allow(clippy::print_stdout, reason = "a figure that people ask for")]
fn say_found(took: Duration) {
    println!("a second daemon with the same identity was found {took:.2?} after it was started");
}

/// Kills the whole daemon, as `kill -9` of its group does.
fn kill(node: &mut Node) {
    node.wait_for_standby();
    let holder = node.holder();
    for pid in [holder.pid, holder.active, holder.standby, holder.notifier] {
        if pid != 0 {
            node.signal(pid, Signal::KILL);
        }
    }
    node.take_process().wait();
}

/// What it changes reaches the node over its stream, which is therefore one that was not ended.
fn ensure_it_is_one_daemon(site: &Site, node: &Node, value: &[u8]) {
    site.rotate("key", value);
    node.wait_for("web/key", value);
    let duplicate = inspect(site, "web-1")["duplicate"].clone();
    assert!(duplicate.is_null(), "{duplicate}");
}

fn a_daemon_that_is_started_again_and_again_is_one() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.node("web-1");
    for round in 0..10 {
        match round {
            0..5 => node.stop(),
            _ => kill(&mut node),
        }
        node.run_connected();
        ensure_it_is_one_daemon(&site, &node, format!("value {round}").as_bytes());
    }
}

fn workers_that_are_killed_and_upgraded_are_one_daemon() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let node = site.node("web-1");
    for round in 0..5 {
        node.kill_worker(Signal::KILL);
        ensure_it_is_one_daemon(&site, &node, format!("killed {round}").as_bytes());
    }
    for round in 0..2 {
        let outcome = node.upgrade(Path::new(SECRETFS));
        assert_eq!(outcome.code, 0, "{outcome:?}");
        ensure_it_is_one_daemon(&site, &node, format!("upgraded {round}").as_bytes());
    }
}

fn a_daemon_that_inherits_from_one_that_was_killed_is_the_same() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.join("web-1");
    let manager = ServiceManager::listen(site.area().path().join("notify"));
    for round in 0..4 {
        if round > 0 {
            manager.hear();
            kill(&mut node);
        }
        let (mut command, kept) = manager.start_command(&node.config());
        node.run_as(&mut command);
        // The service has its own copies.
        drop(kept);
        deadline::eventually("it is ready", || manager.told_ready());
        ensure_it_is_one_daemon(&site, &node, format!("value {round}").as_bytes());
    }
    node.stop();
}
