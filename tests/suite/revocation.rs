//! What is taken away is gone at every mount, without a restart.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::requirement::trials;
use crate::harness::{Area, Node, Site, deadline};

trials! {
    needs [Mount];
    a_detached_secret_is_gone,
    one_target_of_a_secret_can_be_detached_alone,
    an_unassigned_service_is_gone,
    a_removed_service_is_gone,
    an_open_file_outlives_its_target_and_ends_with_its_service,
    open_files_end_with_the_node_also_for_a_worker_that_takes_over,
    a_node_that_is_cut_off_keeps_no_value_beyond_its_certificate,
    a_secret_in_use_is_not_removed_and_a_removed_one_does_not_come_back,
    a_revoked_node_forgets_what_it_had_and_learns_nothing_new,
    an_environment_that_holds_something_is_not_removed,
    a_forbid_stops_serving_and_a_revocation_wipes,
}

/// A node that reads `web/key`, and has read it already: the cache must not serve what is gone.
fn serving() -> (Site, Node) {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value"), ("other", b"stays")]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    (site, node)
}

fn a_detached_secret_is_gone() {
    let (site, node) = serving();
    site.operator.ok(&["service", "detach", "web", "key"]);
    node.wait_gone("web/key");
    assert_eq!(node.read("web/other").expect("not detached"), b"stays");
    // Attached again, it is back.
    site.attach("web", "key", &[]);
    node.wait_for("web/key", b"value");
}

fn one_target_of_a_secret_can_be_detached_alone() {
    let (site, node) = serving();
    site.attach("web", "key", &["--target", "alias"]);
    node.wait_for("web/alias", b"value");
    site.operator.ok(&["service", "detach", "web", "key", "--target", "alias"]);
    node.wait_gone("web/alias");
    assert_eq!(node.read("web/key").expect("not detached"), b"value");
}

fn an_unassigned_service_is_gone() {
    let (site, node) = serving();
    site.operator.ok(&["service", "unassign", "web", "--node", "web-1"]);
    node.wait_gone("web/key");
    node.wait_gone("web");
}

fn a_removed_service_is_gone() {
    let (site, node) = serving();
    site.operator.ok(&["service", "rm", "web"]);
    node.wait_gone("web");
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut value = [0; 5];
    let length = file.read_at(&mut value, 0)?;
    Ok(value[..length].to_vec())
}

/// Waits until what is open cannot be read any more, which is EACCES and nothing else.
fn wait_revoked(file: &File) {
    let error = deadline::poll("the open file is revoked", || match read(file) {
        Ok(value) => {
            assert_eq!(value, b"value", "all of it until it ends");
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!(Errno::from_io_error(&error), Some(Errno::ACCESS), "{error}");
}

fn an_open_file_outlives_its_target_and_ends_with_its_service() {
    let (site, node) = serving();
    let detached = File::open(node.path("web/key")).expect("an open file");
    let waiter = detached.try_clone().expect("the same open file");
    site.operator.ok(&["service", "detach", "web", "key"]);
    node.wait_gone("web/key");
    site.operator.ok(&["secret", "rm", "key"]);
    assert_eq!(read(&detached).expect("the service is still assigned"), b"value");
    site.create_secret("key", b"other");
    let attached = File::open(node.path("web/other")).expect("an open file");
    let waiter = std::thread::spawn(move || {
        let mut waits = [PollFd::new(&waiter, PollFlags::PRI)];
        poll(&mut waits, Some(&Timespec { tv_sec: 40, tv_nsec: 0 })).map(|_| waits[0].revents())
    });
    site.operator.ok(&["service", "unassign", "web", "--node", "web-1"]);
    wait_revoked(&detached);
    node.wait_gone("web");
    assert_eq!(read(&attached).map_err(|error| error.kind()), Err(io::ErrorKind::PermissionDenied));
    let events = waiter.join().expect("a result").expect("a poll");
    assert!(events.contains(PollFlags::PRI | PollFlags::ERR), "{events:?}");
    assert_eq!(node.status()["pinned_versions"], 0);
    // Assigned again it must be opened again.
    site.operator.ok(&["service", "assign", "web", "--node", "web-1"]);
    node.wait_for("web/other", b"stays");
    for _ in 0..2 {
        wait_revoked(&attached);
        node.kill_worker(Signal::KILL);
    }
    wait_revoked(&detached);
}

fn open_files_end_with_the_node_also_for_a_worker_that_takes_over() {
    let (site, node) = serving();
    let open = File::open(node.path("web/key")).expect("an open file");
    node.wait_for_standby();
    site.operator.ok(&["node", "revoke", "web-1"]);
    wait_revoked(&open);
    node.kill_worker(Signal::KILL);
    wait_revoked(&open);
    assert_eq!(node.status()["pinned_versions"], 0);
}

/// As who holds the network back, so that the node does not hear that it is revoked.
fn a_node_that_is_cut_off_keeps_no_value_beyond_its_certificate() {
    let site = Site::with("node_certificate_lifetime = \"8s\"");
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.join("web-1");
    node.configure("deadline = \"1s\"");
    node.run_connected();
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    let open = File::open(node.path("web/key")).expect("an open file");
    site.manager.pause();
    wait_revoked(&open);
    let status = node.status();
    let ends: jiff::Timestamp = status["certificate_expires"].as_str().expect("a time").parse().expect("one");
    assert!(ends <= jiff::Timestamp::now(), "not before its end: {status}");
    assert_eq!((&status["cached_values"], &status["pinned_versions"]), (&json!(0), &json!(0)), "{status}");
    assert_eq!(node.path("web/key").metadata().expect("names stay").len(), 5);
    for _ in 0..2 {
        let error = node.read("web/key").expect_err("nothing is served");
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{error}");
        let reason = node.status()["trouble"]["reason"].to_string();
        assert!(reason.contains("certificate has ended"), "{reason}");
        node.kill_worker(Signal::KILL);
        wait_revoked(&open);
    }
    site.manager.resume();
}

fn a_secret_in_use_is_not_removed_and_a_removed_one_does_not_come_back() {
    let (site, node) = serving();
    let refused = site.operator.run(&["secret", "rm", "key"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("web"), "it says who uses it: {}", refused.stderr);
    assert_eq!(node.read("web/key").expect("still there"), b"value");
    site.operator.ok(&["service", "detach", "web", "key"]);
    site.operator.ok(&["secret", "rm", "key"]);
    node.wait_gone("web/key");
    // A new secret under the old name is version 1 again, and nothing cached is mistaken for it.
    site.create_secret("key", b"other");
    site.attach("web", "key", &[]);
    node.wait_for("web/key", b"other");
}

fn a_revoked_node_forgets_what_it_had_and_learns_nothing_new() {
    let (site, node) = serving();
    site.operator.ok(&["node", "revoke", "web-1"]);
    deadline::eventually("its files are gone", || !node.path("web").exists());
    assert_eq!(node.status()["cached_values"], 0);
    node.read("web/other").expect_err("never read before, and the manager refuses");
    site.rotate("key", b"changed");
    site.create_secret("late", b"value");
    site.attach("web", "late", &[]);
    node.read("web/late").expect_err("attached after the node was revoked");
    node.read("web/key").expect_err("read before the node was revoked");
    assert_eq!(site.operator.json(&["node", "ls"])[0]["state"], "revoked");
}

fn an_environment_that_holds_something_is_not_removed() {
    let site = Site::start();
    site.create_secret("key", b"value");
    let refused = site.operator.run(&["env", "rm", "prod"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    site.operator.ok(&["secret", "rm", "key"]);
    site.operator.ok(&["env", "rm", "prod"]);
    assert_eq!(site.operator.json(&["env", "ls"]), json!([]));
}

fn a_forbid_stops_serving_and_a_revocation_wipes() {
    let area = Area::new();
    let policies = area.directory("policies");
    let site = Site::with(&format!("policies = {policies:?}"));
    site.serve("web-1", "web", &[("key", b"value")]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/key").expect("a value"), b"value");

    let forbid = r#"@id("acme/closed") forbid (principal, action in Action::"serve", resource);"#;
    fs::write(policies.join("closed.cedar"), forbid).expect("written");
    deadline::eventually("its stream is ended", || node.status()["connected"] == false);
    deadline::eventually("it knows why", || {
        node.status()["reason"].as_str().is_some_and(|reason| reason.contains("node.follow"))
    });
    assert_eq!(node.read("web/key").expect("as in an outage"), b"value");
    site.operator.ok(&["node", "revoke", "web-1"]);
    node.wait_gone("web/key");
}
