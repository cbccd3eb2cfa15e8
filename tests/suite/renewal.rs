//! A node's certificate renews itself, and nobody notices.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use crate::harness::requirement::trials;
use crate::harness::{Site, deadline};

trials! {
    needs [Mount];
    a_certificate_renews_itself_without_a_break,
    a_restarted_node_uses_its_renewed_certificate,
    a_node_that_waits_for_approval_keeps_its_certificate_good,
    a_node_whose_certificate_ends_while_it_waits_has_to_join_again,
}

fn a_certificate_renews_itself_without_a_break() {
    let site = Site::with("node_certificate_lifetime = \"8s\"");
    site.serve("web-1", "web", &[("warm", b"value"), ("cold", b"later")]);
    let node = site.node("web-1");
    let stop = Arc::new(AtomicBool::new(false));
    let (path, stopped) = (node.path("web/warm"), stop.clone());
    let reader = thread::spawn(move || {
        let mut reads = 0;
        while !stopped.load(Ordering::Relaxed) {
            assert_eq!(fs::read(&path).expect("no read fails"), b"value");
            reads += 1;
            thread::sleep(Duration::from_millis(2));
        }
        reads
    });
    let mut ends = BTreeSet::new();
    deadline::eventually("three certificates one after the other", || {
        let status = node.status();
        assert_eq!(status["connected"], true, "a renewal is no break: {status}");
        ends.insert(status["certificate_expires"].to_string());
        ends.len() > 2
    });
    stop.store(true, Ordering::Relaxed);
    let reads: u32 = reader.join().expect("no read failed");
    assert!(reads > 100, "only {reads} reads");
    // What is first read now goes out under the new certificate; what changes comes in under it.
    assert_eq!(node.read("web/cold").expect("a value"), b"later");
    site.rotate("warm", b"changed");
    node.wait_for("web/warm", b"changed");
}

fn a_restarted_node_uses_its_renewed_certificate() {
    let site = Site::with("node_certificate_lifetime = \"8s\"");
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.node("web-1");
    let first = node.status()["certificate_expires"].clone();
    deadline::eventually("a renewal", || node.status()["certificate_expires"] != first);
    node.stop();
    node.run_connected();
    assert_ne!(node.status()["certificate_expires"], first);
    assert_eq!(node.read("web/key").expect("a value"), b"value");
}

fn a_node_that_waits_for_approval_keeps_its_certificate_good() {
    let site = Site::with("node_certificate_lifetime = \"8s\"");
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.host("web-1");
    assert_eq!(node.join(&site.manager.url(), &site.token(&["--approval"])).code, 0);
    node.run();
    let shown = || site.operator.json(&["node", "inspect", "web-1"]);
    let end: Timestamp = shown()["certificate_expires"].as_str().expect("a time").parse().expect("a time");
    deadline::eventually("its first certificate has ended", || Timestamp::now() > end);
    assert_eq!((&shown()["state"], &shown()["certificate_ended"]), (&"pending".into(), &false.into()));
    node.read("web/key").expect_err("not approved");
    site.operator.ok(&["node", "approve", "web-1"]);
    node.wait_for("web/key", b"value");
}

fn a_node_whose_certificate_ends_while_it_waits_has_to_join_again() {
    let site = Site::with("node_certificate_lifetime = \"2s\"");
    // It does not run, so it renews nothing.
    let node = site.host("web-1");
    assert_eq!(node.join(&site.manager.url(), &site.token(&["--approval"])).code, 0);
    deadline::eventually("it is shown as such", || {
        site.operator.ok(&["node", "ls"]).contains("PENDING, EXPIRED")
    });
    assert!(site.operator.ok(&["node", "inspect", "web-1"]).contains("has to join again"));
    let refused = site.operator.run(&["node", "approve", "web-1"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("join again"), "{}", refused.stderr);
}
