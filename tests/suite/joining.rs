//! Tokens: one node, once, for a while, at one manager.

use std::fs;

use secretfs_wire::{CaPin, JoinToken, TokenSecret};

use crate::harness::pki::Authority;
use crate::harness::recorder::Recorder;
use crate::harness::requirement::trials;
use crate::harness::tls::{Connection, certificates};
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount];
    a_token_joins_one_node_once,
    an_expired_token_is_refused,
    a_token_that_was_never_made_is_refused,
    a_mangled_token_is_refused_before_anything_is_sent,
    a_server_of_another_authority_is_sent_nothing,
    a_node_gets_nothing_until_it_is_approved,
    a_host_joins_only_once,
    a_host_that_has_not_joined_says_what_to_do,
    a_token_gives_its_labels_to_the_node,
    a_token_that_was_withdrawn_is_refused,
    a_token_for_a_name_makes_nobody_else_of_a_host,
    the_nodes_keys_are_its_own,
}

fn a_token_joins_one_node_once() {
    let site = Site::start();
    let token = site.token(&[]);
    let url = site.manager.url();
    assert_eq!(site.host("first").join(&url, &token).code, 0);
    let second = site.host("second");
    let outcome = second.join(&url, &token);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(!second.state().join("node.toml").exists(), "nothing is kept of a join that failed");
    let tokens = site.operator.json(&["node", "token", "ls"]);
    assert_eq!((&tokens[0]["state"], &tokens[0]["used_by"]), (&"used".into(), &"first".into()));
}

fn an_expired_token_is_refused() {
    let site = Site::start();
    let token = site.token(&["--ttl", "1s"]);
    deadline::eventually("the token expires", || {
        site.operator.json(&["node", "token", "ls"])[0]["state"] == "expired"
    });
    let outcome = site.host("late").join(&site.manager.url(), &token);
    assert_eq!(outcome.code, 4, "{outcome:?}");
}

fn a_token_that_was_never_made_is_refused() {
    let site = Site::start();
    let made: JoinToken = site.token(&[]).parse().expect("a token");
    let guessed = JoinToken { secret: TokenSecret::random(), pin: made.pin };
    let outcome = site.host("stranger").join(&site.manager.url(), &guessed.expose_text());
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert_eq!(site.operator.json(&["node", "ls"]), serde_json::json!([]));
}

fn a_mangled_token_is_refused_before_anything_is_sent() {
    let site = Site::start();
    let recorder = Recorder::start();
    let token = site.token(&[]);
    for bad in ["", "sfj1", &token[1..], &token[..token.len() - 2], "sfj1.a.b"] {
        let outcome = site.host("typo").join(&recorder.server.url(), bad);
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(
            bad.len() < 10 || !outcome.stderr.contains(bad),
            "a token is a credential, also a mangled one"
        );
    }
}

fn a_server_of_another_authority_is_sent_nothing() {
    let site = Site::start();
    let token = site.token(&[]);
    let recorder = Recorder::start();
    let outcome = site.host("web-1").join(&recorder.server.url(), &token);
    for recording in recorder.recordings() {
        assert!(!recording.handshake_done && recording.received.is_empty(), "{recording:?}");
    }
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert!(outcome.stderr.contains("pin"), "it says why: {}", outcome.stderr);
    // The recorder bites: it hears what a client says that trusts it.
    let trusting = Recorder::start();
    let pin = CaPin::of_bundle([trusting.authority.certificate().as_ref()]);
    let text = JoinToken { secret: TokenSecret::random(), pin }.expose_text();
    let roots = [trusting.authority.certificate().clone()];
    let connection = Connection::open(trusting.server.address(), &roots, None).expect("a connection");
    connection.request_without_answer("POST", "/v1/join", &text).expect("sent");
    let recordings = trusting.recordings();
    assert!(recordings[0].handshake_done);
    assert!(String::from_utf8_lossy(&recordings[0].received).contains(text.as_str()));
    // And the token is still good, for it was not shown to anybody.
    assert_eq!(site.host("web-1").join(&site.manager.url(), &token).code, 0);
}

fn a_node_gets_nothing_until_it_is_approved() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let mut node = site.host("web-1");
    let outcome = node.join(&site.manager.url(), &site.token(&["--approval"]));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("node approve web-1"), "it says what to do: {}", outcome.stdout);
    node.run();
    deadline::eventually("the node knows what it waits for", || {
        node.status()["reason"].as_str().is_some_and(|reason| reason.contains("approv"))
    });
    node.read("web/key").expect_err("not approved");
    site.operator.ok(&["node", "approve", "web-1"]);
    node.wait_for("web/key", b"value");
}

fn a_host_joins_only_once() {
    let site = Site::start();
    let node = site.join("web-1");
    let before = files(&node);
    let token = site.token(&[]);
    let outcome = node.join(&site.manager.url(), &token);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("web-1"), "it says as what: {}", outcome.stderr);
    assert_eq!(files(&node), before, "the node that is there stays as it is");
    assert_eq!(site.operator.json(&["node", "token", "ls"])[0]["state"], "open", "no token is spent on it");
}

fn a_host_that_has_not_joined_says_what_to_do() {
    let site = Site::start();
    let host = site.host("web-1");
    let outcome =
        site.operator.run(&["--config", host.config().to_str().expect("a plain path"), "node", "run"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("node join"), "{}", outcome.stderr);
}

fn a_token_gives_its_labels_to_the_node() {
    let site = Site::start();
    let node = site.host("web-1");
    let token = site.token(&["--label", "role=web", "--label", "zone=a"]);
    assert_eq!(node.join(&site.manager.url(), &token).code, 0);
    let nodes = site.operator.json(&["node", "ls"]);
    assert_eq!(nodes[0]["labels"], serde_json::json!({ "role": "web", "zone": "a" }));
}

fn a_token_that_was_withdrawn_is_refused() {
    let site = Site::start();
    let token = site.token(&["--label", "role=web"]);
    let listed = site.operator.json(&["node", "token", "ls"]);
    let id = listed[0]["id"].as_str().expect("an id");
    let shown = site.operator.ok(&["node", "token", "ls"]);
    for told in [id, "open", "role=web", "admin"] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    assert_eq!(site.operator.ok(&["node", "token", "rm", id]), format!("{id}\n"));
    let outcome = site.host("web-1").join(&site.manager.url(), &token);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert_eq!(site.operator.run(&["node", "token", "rm", id]).code, 3, "it is not there any more");
}

fn a_token_for_a_name_makes_nobody_else_of_a_host() {
    let site = Site::start();
    let token = site.token(&["--name", "db-1"]);
    let host = site.host("test-1");
    let refused = host.join(&site.manager.url(), &token);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("db-1"), "it says whom it is for: {}", refused.stderr);
    assert_eq!(site.operator.json(&["node", "ls"]), serde_json::json!([]));
    let joined = host.join_unnamed(&site.manager.url(), &token);
    assert_eq!(joined.code, 0, "{joined:?}");
    assert!(joined.stdout.contains("as node db-1 of environment prod"), "{}", joined.stdout);
    assert_eq!(site.operator.json(&["node", "ls"])[0]["name"], "db-1");
}

fn the_nodes_keys_are_its_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::start();
    let node = site.join("web-1");
    let mode = |path: &std::path::Path| path.metadata().expect("a file").permissions().mode() & 0o7777;
    assert_eq!(mode(&node.state()), 0o700);
    for (name, _) in files(&node) {
        assert_eq!(mode(&node.state().join(&name)), 0o600, "{name}");
    }
    // The authority that it trusts from now on is the one that the token named.
    let token: JoinToken = site.token(&[]).parse().expect("a token");
    let bundle = certificates(&node.state().join("ca.pem"));
    assert_eq!(CaPin::of_bundle(bundle.iter().map(AsRef::as_ref)), token.pin);
    assert_ne!(CaPin::of_bundle([Authority::new().certificate().as_ref()]), token.pin);
}

fn files(node: &Node) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(node.state()).expect("a state directory");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            (entry.file_name().into_string().expect("ASCII"), fs::read(entry.path()).expect("a file"))
        })
        .collect();
    files.sort();
    files
}
