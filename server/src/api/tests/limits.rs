//! Who fails too often, or asks too often, waits; nobody else does.

use http::header::RETRY_AFTER;
use http::{Method, StatusCode};
use secretfs_wire::api::{CreateToken, CreatedToken, ErrorCode};
use secretfs_wire::{JoinToken, TokenSecret};
use serde_json::{Value, json};

use crate::authn::NodeIdentity;
use crate::config::RawLimitsConfig;
use crate::limits::Limit;
use crate::testing::{Answer, TestManager, node_peer, operator_peer};

/// Of nobody: it is never good.
fn join(secret: &str) -> Value {
    let request = rcgen::CertificateParams::default();
    let request = request.serialize_request(&rcgen::KeyPair::generate().expect("a key")).expect("a request");
    let key =
        secretfs_wire::envelope::NodePrivateKey::generate().expect("a key").public_key().expect("a key");
    let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key.as_der());
    json!({
        "token": secret, "name": "n", "envelope_key": key,
        "certificate_request": request.pem().expect("PEM"),
    })
}

/// More failures, so that the wait is one that also a slow machine does not sit out.
fn fail_on(manager: &TestManager, limit: Limit, address: &str) {
    for _ in 0..5 {
        manager.app.limits.failed(limit, address.parse().expect("an address"));
    }
}

async fn good_join(manager: &TestManager) -> Value {
    let asked = CreateToken { ttl_seconds: 60, approval: false, labels: Default::default(), name: None };
    let path = "/v1/environments/prod/tokens";
    let created = manager.post(Some(&TestManager::operator()), path, &asked).await;
    let token: JoinToken = created.json::<CreatedToken>().token.parse().expect("a token");
    join(&token.secret.expose_text())
}

#[tokio::test]
async fn an_address_that_fails_to_join_waits_and_no_other_does() {
    let manager = TestManager::start().await;
    let bad = join(&TokenSecret::random().expose_text());
    let good = good_join(&manager).await;
    for _ in 0..6 {
        let (answer, _) = manager.post_from(None, "192.0.2.1", &[], "/v1/join", &bad).await;
        assert_eq!(answer.error().code, ErrorCode::Unauthenticated);
    }
    fail_on(&manager, Limit::Enrolment, "192.0.2.1");
    // A good token does not help here now, and is not used up.
    let (answer, headers) = manager.post_from(None, "192.0.2.1", &[], "/v1/join", &good).await;
    assert_eq!((answer.status, answer.error().code), (StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimited));
    let wait: u64 = headers[RETRY_AFTER].to_str().expect("a text").parse().expect("seconds");
    assert!((2..=32).contains(&wait), "{wait}");
    let (answer, _) = manager.post_from(None, "192.0.2.2", &[], "/v1/join", &good).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");

    // Who has an identity is not concerned by what others do at his address.
    let node = node_peer(&manager.join("prod", "node-a", false).await);
    let body = json!({ "whole": true });
    let (answer, _) = manager.post_from(Some(&node), "192.0.2.1", &[], "/v1/node/usage", &body).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let metrics = manager.call(&TestManager::operator(), Method::GET, "/metrics", "").await;
    let metrics = String::from_utf8(metrics.body).expect("text");
    assert!(metrics.contains("secretfs_manager_rate_limited_total{limit=\"enrolment\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_network_of_ipv6_is_one_address() {
    let manager = TestManager::start().await;
    let bad = join(&TokenSecret::random().expose_text());
    let try_from =
        async |address: &str| manager.post_from(None, address, &[], "/v1/join", &bad).await.0.error().code;
    for host in 1..=6 {
        assert_eq!(try_from(&format!("2001:db8:1:2::{host}")).await, ErrorCode::Unauthenticated);
    }
    fail_on(&manager, Limit::Enrolment, "2001:db8:1:2:eeee::1");
    assert_eq!(try_from("2001:db8:1:2:ffff::1").await, ErrorCode::RateLimited);
    assert_eq!(try_from("2001:db8:1:3::1").await, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn who_has_no_valid_certificate_waits_and_a_node_always_hears_that_it_is_shut_out() {
    let manager = TestManager::start().await;
    let node = manager.join("prod", "node-a", false).await;
    manager.app.store.revoke(&node.environment, &node.name).await.expect("revoked");
    let (path, body) = ("/v1/node/usage", json!({ "whole": true }));
    let (shut_out, operator) = (node_peer(&node), TestManager::operator());
    let stranger = operator_peer("eve", 1);
    let ask = async |peer| manager.post_from(peer, "192.0.2.1", &[], path, &body).await.0.error().code;
    for caller in [None, Some(&stranger)].into_iter().cycle().take(6) {
        assert_eq!(ask(caller).await, ErrorCode::Unauthenticated);
    }
    fail_on(&manager, Limit::Authentication, "192.0.2.1");
    assert_eq!(ask(None).await, ErrorCode::RateLimited);
    assert_eq!(ask(Some(&stranger)).await, ErrorCode::RateLimited);
    assert_eq!(ask(Some(&shut_out)).await, ErrorCode::Unauthenticated);
    assert_eq!(ask(Some(&operator)).await, ErrorCode::Denied, "who is known is answered");
    // Joins are counted by themselves.
    let good = good_join(&manager).await;
    let (joined, _) = manager.post_from(None, "192.0.2.1", &[], "/v1/join", &good).await;
    assert_eq!(joined.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_flood_of_one_caller_is_refused_and_delays_nobody_else() {
    let limits = RawLimitsConfig {
        node_requests: Some(1),
        node_burst: Some(10),
        operator_requests: Some(1),
        operator_burst: Some(20),
        ..Default::default()
    };
    let manager = TestManager::start_limited(limits).await;
    let loud = manager.join("prod", "loud", false).await;
    let quiet = manager.join("prod", "quiet", false).await;
    let ask = async |node: &NodeIdentity| -> Answer {
        manager.post(Some(&node_peer(node)), "/v1/node/usage", &json!({ "whole": true })).await
    };
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(ask(&loud).await);
    }
    let served = answers.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert!((10..=12).contains(&served), "{served} requests");
    let refused = answers.last().expect("some").error();
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert_eq!(refused.message, "too many requests of this node; try again in 1 s");
    assert_eq!(ask(&quiet).await.status, StatusCode::NO_CONTENT);

    let mut codes = Vec::new();
    for _ in 0..30 {
        codes.push(manager.call(&TestManager::operator(), Method::GET, "/v1/keys", "").await.status);
    }
    assert!(codes.contains(&StatusCode::TOO_MANY_REQUESTS) && codes[0] == StatusCode::OK, "{codes:?}");
    // What was refused is told once for each, with a count.
    let told = manager.app.limits.refusals().take();
    let mut told: Vec<_> =
        told.iter().map(|told| (told.caller.as_ref().expect("one").to_string(), told.times)).collect();
    told.sort();
    assert_eq!(
        told.iter().map(|(caller, _)| caller.as_str()).collect::<Vec<_>>(),
        ["node/prod/loud", "operator/admin"]
    );
    assert_eq!(told[0].1, 100 - served as u64);
}
