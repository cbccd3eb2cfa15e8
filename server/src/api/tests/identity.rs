//! By what a node is recognised, and when several daemons are one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use jiff::Timestamp;
use secretfs_wire::api::{
    CreateToken, CreatedToken, ErrorCode, INSTANCE_HEADER, JoinRequest, Joined, Node, NodeState, Renewed,
};
use secretfs_wire::envelope::NodePrivateKey;
use secretfs_wire::{HostFact, HostFacts, InstanceId, JoinToken, KeyFingerprint};
use serde_json::{Value, json};

use crate::authn::NodeIdentity;
use crate::testing::{Answer, TestManager, certificate, certificate_request, node_peer};

const ADDRESS: &str = "192.0.2.7";

async fn token(manager: &TestManager) -> JoinToken {
    let asked = CreateToken {
        ttl_seconds: 60,
        approval: true,
        labels: "role=web".parse().expect("labels"),
        name: None,
    };
    let path = "/v1/environments/prod/tokens";
    let created = manager.post(Some(&TestManager::operator()), path, &asked).await;
    created.json::<CreatedToken>().token.parse().expect("a token")
}

fn request(token: &JoinToken, key: &NodePrivateKey, host: HostFacts) -> JoinRequest {
    let tls = rcgen::KeyPair::generate().expect("a key");
    let request = rcgen::CertificateParams::default().serialize_request(&tls).expect("a request");
    JoinRequest {
        token: token.secret.expose_text().as_str().to_owned(),
        name: Some("web-1".parse().expect("a name")),
        fallback_name: None,
        certificate_request: request.pem().expect("PEM"),
        envelope_key: STANDARD.encode(key.public_key().expect("a key").as_der()),
        host,
    }
}

async fn join(manager: &TestManager, body: &impl serde::Serialize) -> Answer {
    manager.post_from(None, ADDRESS, &[], "/v1/join", body).await.0
}

async fn node(manager: &TestManager, name: &str) -> Node {
    let path = format!("/v1/environments/prod/nodes/{name}");
    manager.call(&TestManager::operator(), http::Method::GET, &path, "").await.json()
}

async fn approve(manager: &TestManager, name: &str, body: &Value) -> Answer {
    let path = format!("/v1/environments/prod/nodes/{name}/approve");
    manager.post(Some(&TestManager::operator()), &path, body).await
}

#[tokio::test]
async fn an_approver_sees_what_the_manager_saw_and_what_the_host_claims() {
    let manager = TestManager::start().await;
    let key = NodePrivateKey::generate().expect("a key");
    let host = HostFacts {
        hostname: Some(HostFact::new("web-1.example")),
        addresses: vec!["10.0.0.5".parse().expect("an address")],
        ..HostFacts::default()
    };
    let mut body = serde_json::to_value(request(&token(&manager).await, &key, host.clone())).expect("JSON");
    // As whoever writes the request himself.
    body["host"]["system"] = json!("\u{1b}[2J\u{9b}Debian\u{202e}");
    assert_eq!(join(&manager, &body).await.status, StatusCode::CREATED);

    let pending = node(&manager, "web-1").await;
    assert_eq!(pending.state, NodeState::Pending);
    assert_eq!(pending.address, Some(ADDRESS.parse().expect("an address")));
    assert_eq!(pending.fingerprint, KeyFingerprint::of_der(key.public_key().expect("a key").as_der()));
    assert_eq!(pending.host.hostname, host.hostname);
    assert_eq!(pending.host.addresses, host.addresses);
    let system = pending.host.system.expect("a fact");
    assert_eq!(system.as_str(), "\\u{1b}[2J\\u{9b}Debian\\u{202e}");

    // Somebody else's key.
    let other = KeyFingerprint::of_der(b"another");
    let refused = approve(&manager, "web-1", &json!({ "fingerprint": other })).await;
    assert_eq!(refused.error().code, ErrorCode::Conflict);
    assert!(refused.error().message.contains(&pending.fingerprint.to_string()), "{refused:?}");
    assert_eq!(node(&manager, "web-1").await.state, NodeState::Pending);
    let approved = approve(&manager, "web-1", &json!({ "fingerprint": pending.fingerprint })).await;
    assert_eq!(approved.json::<Node>().state, NodeState::Active);
}

#[tokio::test]
async fn labels_are_set_by_operators_and_by_nobody_else() {
    let manager = TestManager::start().await;
    let key = NodePrivateKey::generate().expect("a key");
    let good =
        serde_json::to_value(request(&token(&manager).await, &key, HostFacts::default())).expect("JSON");
    for (place, name) in [("", "labels"), ("", "state"), ("", "environment"), ("/host", "labels")] {
        let mut bad = good.clone();
        bad["host"] = json!({});
        bad.pointer_mut(place).expect("a place")[name] = json!({ "role": "admin" });
        assert_eq!(join(&manager, &bad).await.error().code, ErrorCode::Invalid, "{place} {name}");
    }
    let joined = join(&manager, &good).await;
    assert_eq!(joined.status, StatusCode::CREATED, "the token is still good: {joined:?}");
    let Joined { id, .. } = joined.json();
    approve(&manager, "web-1", &json!({})).await;
    // Nor with what a node sends later.
    let node = NodeIdentity {
        id,
        environment: "prod".parse().expect("a name"),
        name: "web-1".parse().expect("a name"),
    };
    let certificate = node_peer(&node);
    let usage = json!({ "whole": true, "labels": { "role": "admin" } });
    let renew = json!({ "certificate_request": good["certificate_request"], "labels": { "role": "admin" } });
    let follow = json!({ "have": {}, "labels": { "role": "admin" } });
    for (path, body) in [("usage", usage), ("renew", renew), ("changes", follow)] {
        let answer = manager.post(Some(&certificate), &format!("/v1/node/{path}"), &body).await;
        assert_eq!(answer.error().code, ErrorCode::Invalid, "{path}");
    }
    let path = "/v1/environments/prod/nodes/web-1/labels";
    let request = http::Request::patch(path).header("content-type", "application/json");
    let request = request.body(r#"{"set":{"role":"admin"}}"#.into()).expect("a request");
    let answer = crate::testing::read(manager.send(Some(&certificate), request).await).await;
    assert_eq!(answer.error().code, ErrorCode::Denied);
    assert_eq!(self::node(&manager, "web-1").await.labels.to_string(), "role=web");
}

#[tokio::test]
async fn a_host_tells_a_few_addresses_only() {
    let manager = TestManager::start().await;
    let key = NodePrivateKey::generate().expect("a key");
    let many =
        HostFacts { addresses: vec![ADDRESS.parse().expect("an address"); 17], ..HostFacts::default() };
    let token = token(&manager).await;
    let refused = join(&manager, &request(&token, &key, many)).await;
    assert_eq!(refused.error().code, ErrorCode::Invalid);
    assert_eq!(
        join(&manager, &request(&token, &key, HostFacts::default())).await.status,
        StatusCode::CREATED
    );
}

/// Says something as a daemon of a node, on a connection of its own.
async fn speak(manager: &TestManager, node: &NodeIdentity, daemon: InstanceId, address: &str) -> StatusCode {
    let headers = [(INSTANCE_HEADER, daemon.to_string())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let body = json!({ "whole": true });
    let peer = node_peer(node);
    manager.post_from(Some(&peer), address, &headers, "/v1/node/usage", &body).await.0.status
}

#[tokio::test]
async fn two_daemons_of_one_node_are_both_flagged_until_it_is_approved_again() {
    let manager = TestManager::start().await;
    let identity = manager.join("prod", "web-1", false).await;
    let other = manager.join("prod", "web-2", false).await;
    let [first, second] = std::array::from_fn(|_| InstanceId::random());
    for daemon in [first, second] {
        assert_eq!(speak(&manager, &identity, daemon, "192.0.2.1").await, StatusCode::NO_CONTENT);
        assert_eq!(node(&manager, "web-1").await.duplicate, None, "a restart");
    }
    assert_eq!(speak(&manager, &identity, first, "192.0.2.2").await, StatusCode::NO_CONTENT, "still served");
    let found = node(&manager, "web-1").await.duplicate.expect("flagged");
    let heard: Vec<_> = found.instances.iter().map(|heard| (heard.instance, heard.address)).collect();
    let at = |address: &str| Some(address.parse().expect("an address"));
    assert_eq!(heard, [(Some(first), at("192.0.2.2")), (Some(second), at("192.0.2.1"))]);
    speak(&manager, &identity, second, "192.0.2.3").await;
    let again = node(&manager, "web-1").await.duplicate.expect("flagged");
    assert_eq!((again.since, again.instances[1].address), (found.since, at("192.0.2.3")), "kept up to date");
    assert!(again.instances[1].last_heard >= found.instances[1].last_heard);

    // Which daemon a node is has nothing to do with another node's.
    speak(&manager, &other, second, "192.0.2.1").await;
    assert_eq!(node(&manager, "web-2").await.duplicate, None);
    let metrics = manager.call(&TestManager::operator(), http::Method::GET, "/metrics", "").await;
    let metrics = String::from_utf8(metrics.body).expect("text");
    assert!(metrics.contains("\nsecretfs_manager_duplicate_nodes 1\n"), "{metrics}");

    let approved = approve(&manager, "web-1", &json!({})).await.json::<Node>();
    assert_eq!(approved.duplicate, None);
    speak(&manager, &identity, first, "192.0.2.1").await;
    assert_eq!(node(&manager, "web-1").await.duplicate, None, "the other one was ended");
    // Or was not.
    speak(&manager, &identity, second, "192.0.2.1").await;
    speak(&manager, &identity, first, "192.0.2.1").await;
    assert!(node(&manager, "web-1").await.duplicate.is_some());
}

#[tokio::test]
async fn a_daemon_that_says_nonsense_about_itself_is_refused() {
    let manager = TestManager::start().await;
    let identity = manager.join("prod", "web-1", false).await;
    let headers = [(INSTANCE_HEADER, "nonsense")];
    let body = json!({ "whole": true });
    let answer =
        manager.post_from(Some(&node_peer(&identity)), ADDRESS, &headers, "/v1/node/usage", &body).await;
    assert_eq!(answer.0.error().code, ErrorCode::Invalid);
}

#[tokio::test]
async fn a_node_that_waits_for_approval_keeps_its_certificate_good() {
    let manager = TestManager::start().await;
    let identity = manager.join("prod", "web-1", true).await;
    let (peer, before) = (node_peer(&identity), node(&manager, "web-1").await);
    let asked = json!({ "certificate_request": certificate_request() });
    let answer = manager.post(Some(&peer), "/v1/node/renew", &asked).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let renewed = certificate(&answer.json::<Renewed>().certificate);
    assert_eq!(renewed.subject, peer.subject);
    let after = node(&manager, "web-1").await;
    assert_eq!((after.state, after.certificate_expires), (NodeState::Pending, renewed.not_after));
    assert!(after.certificate_expires > before.certificate_expires);
    let served = manager.post(Some(&peer), "/v1/node/session", &json!(null)).await;
    assert_eq!(served.error().code, ErrorCode::PendingApproval, "and nothing else");
}

#[tokio::test]
async fn a_node_whose_certificate_ended_while_it_waited_has_to_join_again() {
    let manager = TestManager::start().await;
    let identity = manager.join("prod", "web-1", true).await;
    assert!(!node(&manager, "web-1").await.certificate_ended);
    manager.app.store.renewed(identity.id, Timestamp::now()).await.expect("it ends");
    assert!(node(&manager, "web-1").await.certificate_ended);
    let refused = approve(&manager, "web-1", &json!({})).await.error();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.hint.is_some_and(|hint| hint.contains("join again")));
    assert_eq!(node(&manager, "web-1").await.state, NodeState::Pending);
}
