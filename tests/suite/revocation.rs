//! What is taken away is gone at every mount, without a restart.

use serde_json::json;

use crate::harness::requirement::trials;
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount];
    a_detached_secret_is_gone,
    one_target_of_a_secret_can_be_detached_alone,
    an_unassigned_service_is_gone,
    a_removed_service_is_gone,
    a_secret_in_use_is_not_removed_and_a_removed_one_does_not_come_back,
    a_revoked_node_forgets_what_it_had_and_learns_nothing_new,
    an_environment_that_holds_something_is_not_removed,
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
