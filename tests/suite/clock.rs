//! The clocks of manager and node differ. A little must not matter; more must be said in a line.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::requirement::trials;
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount, Clock];
    five_minutes_do_not_matter_and_are_shown,
    a_node_that_is_too_far_behind_is_told_to_set_its_clock,
    a_node_that_is_far_ahead_is_told_to_compare_the_clocks,
    certificates_renew_themselves_by_the_managers_clock,
}

/// A site whose manager's clock is off, with a host that has not joined.
fn site_with_clock(settings: &str, off: &str) -> (Site, Node) {
    let mut site = Site::with(settings);
    site.serve("web-1", "web", &[("key", b"value")]);
    let host = site.host("web-1");
    site.manager.run_with_clock(off);
    (site, host)
}

/// Lets a host join by an operator whose clock is the manager's.
fn token(site: &Site, off: &str) -> String {
    let outcome = site.operator.run_at(Some(off), &["node", "token", "create", "--json"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let created: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    created["token"].as_str().expect("a token").to_owned()
}

fn five_minutes_do_not_matter_and_are_shown() {
    for (off, words) in [("+290", "5 min behind the manager's"), ("-290", "5 min ahead of the manager's")] {
        let (site, mut node) = site_with_clock("", off);
        let outcome = node.join(&site.manager.url(), &token(&site, off));
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(outcome.stdout.contains(words), "{outcome:?}");
        node.run_connected();
        assert_eq!(node.read("web/key").expect("a value"), b"value");
        let seconds = node.status()["clock_ahead_seconds"].as_i64().expect("a difference");
        let expected: i64 = off.parse().expect("seconds");
        assert!((seconds + expected).abs() <= 5, "{seconds}");
        node.process().wait_for_log(words);
    }
}

fn a_node_that_is_too_far_behind_is_told_to_set_its_clock() {
    let (mut site, mut node) = site_with_clock("", "+8m");
    let outcome = node.join(&site.manager.url(), &token(&site, "+8m"));
    assert_eq!(outcome.code, 5, "{outcome:?}");
    let words = "this host's clock is 8 min behind the manager's; set it (timedatectl)";
    assert_eq!(outcome.stderr, format!("secretfs: {words}\n"));
    // It joins while the clocks agree, and they part later.
    site.manager.run_with_clock("+0");
    site.admit(&node);
    site.manager.run_with_clock("+8m");
    node.run();
    deadline::eventually("the node says why", || {
        node.status()["reason"].as_str().is_some_and(|reason| reason.contains(words))
    });
    node.process().wait_for_log(words);
}

fn a_node_that_is_far_ahead_is_told_to_compare_the_clocks() {
    let site = Site::start();
    // The manager's certificate lasts a day.
    let outcome = site.host("web-1").join_at(Some("+30h"), &site.manager.url(), &site.token(&[]));
    assert_eq!(outcome.code, 5, "{outcome:?}");
    let words = "by this host's clock the manager's certificate ended 6 h ago";
    assert!(outcome.stderr.contains(words) && outcome.stderr.lines().count() == 1, "{outcome:?}");
}

fn certificates_renew_themselves_by_the_managers_clock() {
    for off in ["+2m", "-2m"] {
        let (site, mut node) = site_with_clock("node_certificate_lifetime = \"8s\"", off);
        let outcome = node.join(&site.manager.url(), &token(&site, off));
        assert_eq!(outcome.code, 0, "{outcome:?}");
        node.run_connected();
        let renewals = || site.manager.process().log().matches("path=\"/v1/node/renew\"").count();
        let mut ends = BTreeSet::new();
        deadline::eventually("four certificates one after the other", || {
            ends.insert(node.status()["certificate_expires"].to_string());
            ends.len() > 3
        });
        assert_eq!(node.status()["connected"], true, "{}", node.status());
        // A certificate of 8 s is good for 4 s; the first may be taken for one that has ended.
        assert!(renewals() <= ends.len() + 1, "{} renewals, {} certificates", renewals(), ends.len());
    }
}
