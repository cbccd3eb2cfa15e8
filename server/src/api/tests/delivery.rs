//! From the join token to the opened envelope.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use secretfs_wire::api::{
    CreateToken, CreatedToken, EnvelopeRequest, ErrorCode, JoinRequest, Joined, Renewed, Session,
};
use secretfs_wire::envelope::{DeliveryContext, NodePrivateKey, Salt};
use secretfs_wire::manifest::{Manifest, Target};
use secretfs_wire::stream::Replica;
use secretfs_wire::{JoinToken, Ownership, SessionId};
use serde_json::json;

use crate::ca::PeerCertificate;
use crate::testing::{Answer, TestManager, certificate, certificate_request};

/// A node as a node sees itself.
struct TestNode {
    name: &'static str,
    certificate: PeerCertificate,
    key: NodePrivateKey,
}

async fn token(manager: &TestManager) -> JoinToken {
    let asked = CreateToken { ttl_seconds: 60, approval: false, labels: Default::default(), name: None };
    let path = "/v1/environments/prod/tokens";
    let created = manager.post(Some(&TestManager::operator()), path, &asked).await;
    created.json::<CreatedToken>().token.parse().expect("a token")
}

fn join_request(token: &JoinToken, name: &str, key: &NodePrivateKey) -> JoinRequest {
    JoinRequest {
        token: token.secret.expose_text().as_str().to_owned(),
        name: Some(name.parse().expect("a name")),
        fallback_name: None,
        certificate_request: certificate_request(),
        envelope_key: STANDARD.encode(key.public_key().expect("a key").as_der()),
        host: Default::default(),
    }
}

async fn join(manager: &TestManager, name: &'static str) -> TestNode {
    let key = NodePrivateKey::generate().expect("a key");
    let request = join_request(&token(manager).await, name, &key);
    let answer = manager.post(None, "/v1/join", &request).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    TestNode { name, certificate: certificate(&answer.json::<Joined>().certificate), key }
}

async fn operate(manager: &TestManager, path: &str, body: serde_json::Value) {
    let path = format!("/v1/environments/prod/{path}");
    let answer = manager.post(Some(&TestManager::operator()), &path, &body).await;
    assert!(answer.status.is_success(), "{path}: {answer:?}");
}

async fn put(manager: &TestManager, path: &str, value: &'static str) {
    let path = format!("/v1/environments/prod/secrets/{path}");
    let answer = manager.call(&TestManager::operator(), Method::POST, &path, value).await;
    assert!(answer.status.is_success(), "{path}: {answer:?}");
}

/// `web` has `db` as `password` and runs on `node-a`; `other` runs nowhere.
async fn prepare(manager: &TestManager) {
    put(manager, "db", "canary-1").await;
    for service in ["web", "other"] {
        operate(manager, &format!("services/{service}"), json!({})).await;
        let attach = json!({ "secret": "db", "target": "password", "uid": 33, "mode": "0400" });
        operate(manager, &format!("services/{service}/attachments"), attach).await;
    }
    operate(manager, "services/web/assignments", json!({ "node": "node-a" })).await;
}

async fn target(manager: &TestManager, node: &TestNode) -> Target {
    let mut replica = Replica::default();
    let (follow, mut cursor) = replica.begin();
    let follow = serde_json::to_vec(&follow).expect("JSON");
    let request = Request::post("/v1/node/changes").header("content-type", "application/json");
    let request = request.body(Body::from(follow)).expect("a request");
    let mut response = manager.send(Some(&node.certificate), request).await;
    let line = response.body_mut().frame().await.expect("a line").expect("a line").into_data();
    let line = line.expect("a line");
    assert_eq!(line.last(), Some(&b'\n'));
    let message = serde_json::from_slice(&line).expect("a message");
    replica.receive(&mut cursor, message).expect("the first message");
    let (manifest, rejected) = Manifest::check(replica.manifest());
    assert_eq!((manifest.services.len(), rejected.len()), (1, 0));
    let (service, target) = ("web".parse().expect("a name"), "password".parse().expect("a name"));
    manifest.target(&service, &target).expect("the target").clone()
}

async fn session(manager: &TestManager, node: &TestNode) -> Session {
    manager.call(&node.certificate, Method::POST, "/v1/node/session", Body::empty()).await.json()
}

async fn ask(
    manager: &TestManager,
    node: &TestNode,
    session: SessionId,
    salt: Salt,
    (service, target_name, target): (&str, &str, &Target),
) -> Answer {
    let request = EnvelopeRequest {
        session,
        salt,
        service: service.parse().expect("a name"),
        target: target_name.parse().expect("a name"),
        version_id: target.version_id,
    };
    manager.post(Some(&node.certificate), "/v1/node/envelopes", &request).await
}

#[tokio::test]
async fn what_an_operator_put_in_a_node_gets_out() {
    let manager = TestManager::start().await;
    prepare(&manager).await;
    let node = join(&manager, "node-a").await;
    let seen = target(&manager, &node).await;
    let attached = seen.attached().expect("a secret");
    assert_eq!((attached.version, attached.size, seen.ownership.uid), (1, 8, 33));

    let (session, salt) = (session(&manager, &node).await, Salt::random().expect("a salt"));
    let answer = ask(&manager, &node, session.session, salt, ("web", "password", &seen)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(!answer.body.windows(6).any(|window| window == b"canary"));
    let key = node.key.unwrap(&session.wrapped_key).expect("the session key");
    let context = DeliveryContext {
        environment: &"prod".parse().expect("a name"),
        node: &node.name.parse().expect("a name"),
        service: &"web".parse().expect("a name"),
        target: &"password".parse().expect("a name"),
        secret: &"db".parse().expect("a name"),
        version: 1,
        version_id: seen.version_id,
        ownership: Ownership { uid: 33, gid: 0, mode: "0400".parse().expect("a mode") },
    };
    assert_eq!(key.open(salt, context, answer.body).expect("opened").expose_secret(), b"canary-1");
}

#[tokio::test]
async fn a_node_gets_what_is_its_own_and_current_and_learns_nothing_else() {
    let manager = TestManager::start().await;
    prepare(&manager).await;
    let (node, stranger) = (join(&manager, "node-a").await, join(&manager, "node-b").await);
    let seen = target(&manager, &node).await;
    let mine = session(&manager, &node).await.session;
    let theirs = session(&manager, &stranger).await.session;
    let salt = Salt::random().expect("a salt");
    let ask = |node, session, what| ask(&manager, node, session, salt, what);

    // Absent, there but not assigned, and assigned to somebody else: one answer.
    let absent = ask(&node, mine, ("absent", "password", &seen)).await;
    assert_eq!(absent.error().code, ErrorCode::NotFound);
    assert_eq!(ask(&node, mine, ("other", "password", &seen)).await, absent);
    assert_eq!(ask(&node, mine, ("web", "absent", &seen)).await, absent);
    assert_eq!(ask(&stranger, theirs, ("web", "password", &seen)).await, absent);

    // A session is of the node that opened it.
    let borrowed = ask(&node, theirs, ("web", "password", &seen)).await;
    assert_eq!(borrowed.error().code, ErrorCode::SessionUnknown);

    put(&manager, "db/versions", "canary-2").await;
    let stale = ask(&node, mine, ("web", "password", &seen)).await;
    assert_eq!((stale.status, stale.error().code), (StatusCode::CONFLICT, ErrorCode::Superseded));
    let seen = target(&manager, &node).await;
    assert_eq!(ask(&node, mine, ("web", "password", &seen)).await.status, StatusCode::OK);

    operate(&manager, "nodes/node-a/revoke", json!({})).await;
    let revoked = ask(&node, mine, ("web", "password", &seen)).await;
    assert_eq!(revoked.error().code, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn a_token_is_good_for_one_node_also_when_many_try_at_once() {
    let manager = TestManager::start().await;
    let (token, key) = (token(&manager).await, NodePrivateKey::generate().expect("a key"));
    let requests: Vec<_> = (0..8).map(|n| join_request(&token, &format!("n{n}"), &key)).collect();
    let attempts = requests.iter().map(|request| manager.post(None, "/v1/join", request));
    let answers = futures::future::join_all(attempts).await;
    let joined = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(joined, 1);
    for refused in answers.iter().filter(|answer| answer.status != StatusCode::CREATED) {
        assert_eq!(refused.error().code, ErrorCode::Unauthenticated);
        let secret = token.secret.expose_text();
        assert!(!String::from_utf8_lossy(&refused.body).contains(secret.as_str()));
    }
}

#[tokio::test]
async fn what_a_node_sends_is_checked_before_its_token_is_used_up() {
    let manager = TestManager::start().await;
    join(&manager, "taken").await;
    let (token, key) = (token(&manager).await, NodePrivateKey::generate().expect("a key"));
    let good = || join_request(&token, "node-a", &key);
    let bad = [
        (JoinRequest { certificate_request: "nonsense".to_owned(), ..good() }, ErrorCode::Invalid),
        (JoinRequest { envelope_key: "bm9uc2Vuc2U=".to_owned(), ..good() }, ErrorCode::Invalid),
        (JoinRequest { token: "nonsense".to_owned(), ..good() }, ErrorCode::Unauthenticated),
        (JoinRequest { name: "taken".parse().ok(), ..good() }, ErrorCode::Conflict),
    ];
    for (request, code) in bad {
        assert_eq!(manager.post(None, "/v1/join", &request).await.error().code, code);
    }
    assert_eq!(manager.post(None, "/v1/join", &good()).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_renewed_certificate_names_the_same_node() {
    let manager = TestManager::start().await;
    let node = join(&manager, "node-a").await;
    let renew = json!({ "certificate_request": certificate_request() });
    let answer = manager.post(Some(&node.certificate), "/v1/node/renew", &renew).await;
    let renewed = certificate(&answer.json::<Renewed>().certificate);
    assert_eq!(renewed.subject, node.certificate.subject);
    assert!(renewed.not_after >= node.certificate.not_after);
}
