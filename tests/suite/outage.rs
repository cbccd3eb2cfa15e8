//! The manager is away, or worse: there, and silent. No reader may wait longer than its deadline, and
//! what needs no manager must not notice.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::io::Errno;
use serde_json::json;

use crate::harness::pki::Credential;
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, certificates};
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount];
    a_hung_manager_delays_no_stat_no_listing_and_no_warm_read,
    a_cold_read_fails_within_its_deadline_and_status_says_why,
    warm_reads_go_on_over_a_restart_of_the_manager,
    a_value_that_is_too_stale_is_no_longer_served,
    a_node_starts_while_its_manager_is_away,
    metrics_tell_of_an_outage_and_name_nothing,
}

/// What the kernel and the daemon need for a thousand files, with ample room for a busy machine; one
/// call to a manager that hangs takes longer.
const LOCAL: Duration = Duration::from_secs(1);

fn a_hung_manager_delays_no_stat_no_listing_and_no_warm_read() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    attach_a_thousand_times(&site, "key");
    let mut node = site.join("web-1");
    node.configure("deadline = \"2s\"");
    node.run_connected();
    assert_eq!(node.read("web/key").expect("now it is warm"), b"value");
    let misses = node.status()["cache_misses"].clone();

    site.manager.pause();
    let directory = node.path("web");
    let begin = Instant::now();
    let (count, read) = deadline::within(deadline::PATIENCE, "ls -l and a warm read", move || {
        let entries = fs::read_dir(&directory).expect("a listing");
        let mut count = 0;
        for entry in entries {
            let attributes = entry.expect("an entry").metadata().expect("its attributes");
            count += usize::from(attributes.len() == 5);
        }
        (count, fs::read(directory.join("key")).expect("a warm read"))
    });
    let took = begin.elapsed();
    site.manager.resume();
    assert_eq!((count, read), (1_001, b"value".to_vec()));
    assert!(took < LOCAL, "took {took:?}");
    assert_eq!(node.status()["cache_misses"], misses, "ls -l asked the manager");
}

/// Over one connection: a thousand commands would take a minute.
fn attach_a_thousand_times(site: &Site, secret: &str) {
    let roots = certificates(&site.operator.directory().join("ca.pem"));
    let mut connection =
        Connection::open(site.manager.address(), &roots, Some(Credential::of_operator(&site.operator)))
            .expect("a connection");
    for number in 0..1_000 {
        let body = json!({ "secret": secret, "target": format!("target-{number}") }).to_string();
        let path = "/v1/environments/prod/services/web/attachments";
        let answer = connection.request("POST", path, &body).expect("an answer");
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }
}

fn a_cold_read_fails_within_its_deadline_and_status_says_why() {
    let site = Site::start();
    site.serve("web-1", "web", &[("cold", b"value")]);
    let mut node = site.join("web-1");
    node.configure("deadline = \"500ms\"");
    node.run_connected();
    site.manager.pause();
    let begin = Instant::now();
    let error = node.read("web/cold").expect_err("nobody answers");
    let took = begin.elapsed();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{error}");
    assert!((Duration::from_millis(400)..Duration::from_secs(3)).contains(&took), "took {took:?}");
    let status = node.status();
    let reason = status["trouble"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("no answer"), "{status}");
    // When the manager goes on, so does the reader.
    site.manager.resume();
    node.wait_for("web/cold", b"value");
}

fn warm_reads_go_on_over_a_restart_of_the_manager() {
    let mut site = Site::start();
    site.serve("web-1", "web", &[("warm", b"value"), ("cold", b"later")]);
    let mut node = site.join("web-1");
    node.configure("deadline = \"300ms\"");
    node.run_connected();
    assert_eq!(node.read("web/warm").expect("now it is warm"), b"value");
    site.manager.stop();
    deadline::eventually("the node notices", || {
        assert_eq!(node.read("web/warm").expect("a warm read"), b"value");
        node.status()["connected"] == false
    });
    let status = node.status();
    assert!(status["stale_since"].is_string() && status["reason"].is_string(), "{status}");
    node.read("web/cold").expect_err("never read before, and nobody to ask");
    site.manager.run();
    deadline::eventually("the node reconnects", || {
        assert_eq!(node.read("web/warm").expect("a warm read"), b"value");
        node.status()["connected"] == true
    });
    // The manager has forgotten the session; the node opens a new one by itself.
    node.wait_for("web/cold", b"later");
    site.rotate("warm", b"changed");
    node.wait_for("web/warm", b"changed");
}

fn a_value_that_is_too_stale_is_no_longer_served() {
    let mut site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.join("web-1");
    node.configure("max_stale = \"2s\"\ndeadline = \"300ms\"");
    node.run_connected();
    assert_eq!(node.read("web/key").expect("now it is warm"), b"value");
    site.manager.stop();
    let error = deadline::poll("the value becomes too old", || node.read("web/key").err());
    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{error}");
    site.manager.run();
    node.wait_for("web/key", b"value");
}

fn a_node_starts_while_its_manager_is_away() {
    let mut site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.join("web-1");
    site.manager.stop();
    node.run();
    assert_eq!(node.status()["connected"], false);
    // No manifest yet: an empty directory, at once.
    let error = node.read("web/key").expect_err("nothing is known yet");
    assert!(matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::IO)), "{error}");
    site.manager.run();
    node.wait_for("web/key", b"value");
}

fn metrics_tell_of_an_outage_and_name_nothing() {
    let mut site = Site::start();
    site.serve("web-1", "web", &[("canary-name", b"value")]);
    let mut node = site.join("web-1");
    node.configure("deadline = \"300ms\"\nmax_stale = \"2h\"");
    node.run_connected();
    assert_eq!(node.read("web/canary-name").expect("now it is warm"), b"value");
    let metrics = |node: &Node, code: i32| {
        let outcome = node.metrics();
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(!outcome.stdout.contains("canary") && !outcome.stdout.contains("web"), "{outcome:?}");
        // What node_exporter reads: comments, and names with a number.
        let samples = outcome.stdout.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.split_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse::<f64>().expect("a number"))
        };
        samples.map(sample).collect::<BTreeMap<_, _>>()
    };
    let up = metrics(&node, 0);
    for (name, value) in [
        ("up", 1.0),
        ("connected", 1.0),
        ("stale_seconds", 0.0),
        ("max_stale_seconds", 7200.0),
        ("clock_ahead_seconds", 0.0),
        ("targets", 1.0),
        ("cached_values", 1.0),
        ("cached_bytes", 5.0),
        ("cache_misses_total", 1.0),
        ("mounts_served", 1.0),
        ("open_files", 0.0),
        ("pinned_versions", 0.0),
        ("trouble", 0.0),
        ("predecessors_total", 0.0),
        ("workers_replaced_total", 0.0),
        ("refusing", 0.0),
    ] {
        assert_eq!(up.get(&format!("secretfs_node_{name}")), Some(&value), "{name} in {up:?}");
    }
    let expiry =
        up["secretfs_node_certificate_expiry_timestamp_seconds"] - Timestamp::now().as_second() as f64;
    assert!((86_000.0..86_401.0).contains(&expiry), "{expiry}");
    site.manager.stop();
    deadline::eventually("the outage shows", || {
        let down = metrics(&node, 0);
        down["secretfs_node_connected"] == 0.0 && down["secretfs_node_stale_seconds"] >= 1.0
    });
    node.stop();
    assert_eq!(metrics(&node, 5).get("secretfs_node_up"), Some(&0.0));
}
