//! What is on record of each call, and what happens when it cannot be.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use secretfs_wire::Action;
use secretfs_wire::api::{Assignment, Attach, CreateToken, ErrorCode, Health};
use secretfs_wire::audit::{Actor, Event, Outcome, Record, Verifier};

use super::authorization::{body_for, documented, fill};
use crate::ca::Subject;
use crate::config::RawLimitsConfig;
use crate::listener::PeerAddress;
use crate::testing::{TestManager, node_peer, read};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// All that was recorded since the last time.
pub(super) async fn new_records(manager: &TestManager, seen: &mut u64) -> Vec<Event> {
    let (chain, log) = manager.app.audit.chain().expect("a chain");
    let stored = log.records(chain, *seen + 1, None, 10_000).await.expect("records");
    *seen = stored.last().map_or(*seen, |record| record.sequence);
    stored.iter().map(|record| Record::read(&record.written.text).expect("a record").event).collect()
}

pub(super) fn outcomes(events: &[Event]) -> Vec<(Action, Outcome)> {
    events.iter().map(|event| (event.action, event.outcome)).collect()
}

async fn send(
    manager: &TestManager,
    caller: Option<&crate::ca::PeerCertificate>,
    method: &str,
    path: &str,
    body: &'static str,
) -> StatusCode {
    let mut request = Request::builder()
        .method(method.parse::<Method>().expect("a method"))
        .uri(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .expect("a request");
    request.extensions_mut().insert(PeerAddress(ADDRESS));
    // Unread: one body has no end.
    manager.send(caller, request).await.status()
}

#[tokio::test]
async fn each_route_leaves_the_records_that_it_should() {
    // One that keeps nobody waiting who is refused so often.
    let limits = RawLimitsConfig { failures: Some(10_000), ..RawLimitsConfig::default() };
    let manager = TestManager::start_limited(limits).await;
    let operator = TestManager::operator();
    let node = node_peer(&manager.join("prod", "node", false).await);
    let mut seen = 0;
    new_records(&manager, &mut seen).await;
    for (method, path) in documented(&manager).iter().map(|route| route.split_once(' ').expect("a route")) {
        let concrete = fill(path, "absent");
        let body = body_for(method, path);
        let is_nodes = path.starts_with("/v1/node/");
        let (own, other) = if is_nodes { (&node, &operator) } else { (&operator, &node) };

        let status = send(&manager, Some(own), method, &concrete, body).await;
        let events = new_records(&manager, &mut seen).await;
        let expected = match path {
            "/v1/node/changes" | "/v1/node/usage" | "/v1/node/opens" | "/v1/sys/health" => 0,
            "/v1/node/session" | "/v1/node/envelopes" => 1,
            _ if path.starts_with("/v1/policies/explain") => 1,
            _ if method == "GET" => 1,
            // The record of the new key, too.
            "/v1/audit/key/rotate" => 3,
            _ => 2,
        };
        assert_eq!(events.len(), expected, "{method} {path}: {events:?}");
        if expected > 1 {
            assert_eq!(events[0].outcome, Outcome::Begun, "{method} {path}");
        }
        if let Some(last) = events.last() {
            let ended = if status.is_success() { Outcome::Done } else { Outcome::Failed };
            assert_eq!(last.outcome, ended, "{method} {path}: {status}");
            assert_eq!(last.reason.is_some(), !status.is_success(), "{method} {path}: {last:?}");
            for event in events.iter().filter(|event| event.actor != Actor::Manager) {
                assert_eq!(event.address, Some(ADDRESS));
                let is_in = path.contains("{environment}") || is_nodes;
                assert_eq!(event.environment.is_some(), is_in, "{method} {path}");
            }
        }
        for (caller, outcome) in [(Some(other), StatusCode::FORBIDDEN), (None, StatusCode::UNAUTHORIZED)] {
            if send(&manager, caller, method, &concrete, body).await == outcome {
                let mut events = new_records(&manager, &mut seen).await;
                // How often it was before comes along after a while.
                events.retain(|event| event.count.is_none());
                // The other one is a node, but for a route of nodes.
                let is_folded = caller.is_none() || !is_nodes;
                let is_told =
                    path == "/v1/audit/checkpoint" || (method == "POST" && path.ends_with("/enrolment"));
                if is_folded && is_told {
                    assert_eq!(events.len(), 0, "the same as for another route just before, and counted");
                    continue;
                }
                assert_eq!(events.len(), 1, "{method} {path}");
                assert_eq!(events[0].outcome, Outcome::Denied, "{method} {path}");
                let anonymous = events[0].actor == Actor::Anonymous;
                assert_eq!(anonymous, caller.is_none(), "{method} {path}");
            } else {
                // Where it is no refusal.
                assert!(["/v1/join", "/v1/login", "/v1/sys/health"].contains(&path), "{method} {path}");
                new_records(&manager, &mut seen).await;
            }
        }
    }
}

#[tokio::test]
async fn names_in_bodies_are_on_record_and_values_are_not() {
    const CANARY: &[u8] = b"a canary of a coal mine";
    let manager = TestManager::start().await;
    let operator = TestManager::operator();
    let mut seen = 0;
    new_records(&manager, &mut seen).await;
    let post = async |path: &str, body: &str| {
        let request =
            Request::post(path).header(CONTENT_TYPE, "application/json").body(body.to_owned().into());
        let answer = read(manager.send(Some(&operator), request.expect("a request")).await).await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
        answer
    };
    let secret = "/v1/environments/prod/secrets/db";
    manager.call(&operator, Method::POST, secret, CANARY).await;
    manager.call(&operator, Method::POST, &format!("{secret}/versions"), [CANARY, b"2"].concat()).await;
    manager.call(&operator, Method::POST, "/v1/environments/prod/services/web", "").await;
    let attach = Attach {
        secret: "db".parse().expect("a name"),
        target: Some("password".parse().expect("a name")),
        ownership: Default::default(),
        audit: Default::default(),
    };
    post("/v1/environments/prod/services/web/attachments", &json(&attach)).await;
    let assignment = Assignment::Selector("role=web".parse().expect("a selector"));
    post("/v1/environments/prod/services/web/assignments", &json(&assignment)).await;
    let token = CreateToken {
        ttl_seconds: 77,
        approval: true,
        labels: "role=web".parse().expect("labels"),
        name: None,
    };
    let token = post("/v1/environments/prod/tokens", &json(&token)).await;

    let events = new_records(&manager, &mut seen).await;
    let done: BTreeMap<_, _> = events
        .iter()
        .filter(|event| event.outcome == Outcome::Done)
        .map(|event| (event.action, event))
        .collect();
    assert_eq!(done[&Action::SecretCreate].object.version, Some(1));
    assert_eq!(done[&Action::SecretRotate].object.version, Some(2));
    let attached = &done[&Action::ServiceAttach].object;
    let text = |name: &Option<_>| name.as_ref().map(ToString::to_string);
    assert_eq!(attached.secret.as_ref().map(ToString::to_string).as_deref(), Some("db"));
    assert_eq!(text(&attached.target).as_deref(), Some("password"));
    assert_eq!(done[&Action::ServiceAssign].reason.as_deref(), Some("selector role=web"));
    let token: secretfs_wire::api::CreatedToken = token.json();
    let gives = format!("token {}, for 77 seconds, with approval, labels role=web", token.id);
    assert_eq!(done[&Action::TokenCreate].reason, Some(gives));
    let all = format!("{events:?}");
    assert!(!all.contains("canary"));
    assert!(!all.contains(&token.token), "nor a credential");
    let verified = read(manager.send(Some(&operator), get("/v1/audit")).await).await;
    let mut verifier = Verifier::new(manager.app.authority.ca_bundle());
    let export = String::from_utf8(verified.body).expect("text");
    export.lines().try_for_each(|line| verifier.line(line)).expect("whole");
    assert!(verifier.finish().expect("whole").records > 10);
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("JSON")
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done_and_health_says_why() {
    let manager = TestManager::start().await;
    let operator = TestManager::operator();
    let node = node_peer(&manager.join("prod", "node", false).await);
    manager.log.fail(true);
    let path = "/v1/environments/prod/secrets/db";
    for (caller, method, path) in [
        (&operator, Method::POST, path),
        (&operator, Method::GET, "/v1/environments"),
        (&node, Method::POST, "/v1/node/session"),
        // Also a refusal.
        (&node, Method::GET, "/v1/environments"),
    ] {
        let refused = manager.call(caller, method, path, "value").await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(refused.error().code, ErrorCode::AuditUnavailable, "{path}");
    }
    let health = manager.call(&operator, Method::GET, "/v1/sys/health", "").await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    let reason = health.json::<Health>().reason.expect("a reason");
    assert_eq!(reason, "the audit log cannot be written: the disk is full");
    let environment = "prod".parse().expect("a name");
    assert!(manager.app.store.secrets(&environment).await.expect("secrets").is_empty(), "not done");

    manager.log.fail(false);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while manager.call(&operator, Method::GET, "/v1/sys/health", "").await.status != StatusCode::OK {
        assert!(tokio::time::Instant::now() < deadline, "it does not go on");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(manager.call(&operator, Method::POST, path, "value").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_change_that_was_made_and_cannot_be_recorded_says_so() {
    let manager = TestManager::start().await;
    let operator = TestManager::operator();
    manager.log.fail_after(1);
    let answer = manager.call(&operator, Method::POST, "/v1/environments/prod/services/web", "").await;
    assert_eq!(answer.error().code, ErrorCode::AuditUnavailable);
    assert!(answer.error().message.contains("this was done"), "{answer:?}");
    let environment = "prod".parse().expect("a name");
    assert_eq!(manager.app.store.services(&environment).await.expect("services").len(), 1);
}

#[tokio::test]
async fn who_follows_is_let_go_with_the_certificate() {
    let manager = TestManager::start().await;
    let ends = Timestamp::now() + std::time::Duration::from_millis(300);
    let operator = crate::ca::PeerCertificate { not_after: ends, ..TestManager::operator() };
    let began = tokio::time::Instant::now();
    // Its body ends, or this never does.
    let answer = read(manager.send(Some(&operator), get("/v1/audit?follow=true")).await).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(began.elapsed() > std::time::Duration::from_millis(100), "it followed");
}

#[tokio::test]
async fn an_environments_records_are_those_alone() {
    let manager = TestManager::start().await;
    let operator = TestManager::operator();
    for environment in ["prod", "dev", "prod"] {
        manager.call(&operator, Method::GET, &format!("/v1/environments/{environment}/secrets"), "").await;
    }
    let answer = manager.call(&operator, Method::GET, "/v1/environments/dev/audit?last=10", "").await;
    let text = String::from_utf8(answer.body).expect("text");
    let actions = ["secret.list", "audit.read"].map(|action| text.contains(action));
    assert_eq!((text.lines().count(), actions), (2, [true, true]), "that it was read as well: {text}");
    assert!(text.lines().all(|line| line.contains("\"environment\":\"dev\"")), "{text}");
    let limited = manager.call(&operator, Method::GET, "/v1/audit?from=2&limit=1", "").await;
    let text = String::from_utf8(limited.body).expect("text");
    assert_eq!(text.lines().filter(|line| line.contains("\"sequence\":2,")).count(), 1, "{text}");
}

#[tokio::test]
async fn who_is_nobody_does_not_fill_the_log() {
    let manager = TestManager::start().await;
    let gone = crate::testing::operator_peer("eve", 1);
    let node = manager.join("prod", "node", false).await;
    manager.app.store.revoke(&node.environment, &node.name).await.expect("revoked");
    let revoked = node_peer(&node);
    let mut seen = 0;
    for (who, caller) in [("no certificate", None), ("operator", Some(&gone)), ("node", Some(&revoked))] {
        new_records(&manager, &mut seen).await;
        let mut refused = 0;
        for number in 0..300 {
            // A text of one's own each time.
            let path = format!("/v1/environments/prod/secrets/s{number}");
            refused += u32::from(send(&manager, caller, "GET", &path, "{}").await.is_client_error());
        }
        let events = new_records(&manager, &mut seen).await;
        assert!(refused == 300 && events.len() < 20, "{who}: {} records", events.len());
    }
}

#[tokio::test]
async fn a_change_and_who_made_it_are_told_from_others_of_the_same_name() {
    let manager = TestManager::start().await;
    let mut seen = 0;
    new_records(&manager, &mut seen).await;
    for _ in 0..2 {
        send(
            &manager,
            Some(&TestManager::operator()),
            "POST",
            "/v1/environments/prod/secrets/db?generate=16",
            "{}",
        )
        .await;
    }
    let events = new_records(&manager, &mut seen).await;
    let calls: Vec<_> = events.iter().map(|event| event.call.expect("a call")).collect();
    assert!(calls[0] == calls[1] && calls[2] == calls[3] && calls[0] != calls[2], "{calls:?}");

    let caller = manager.operator_with(Vec::new()).await;
    send(&manager, Some(&caller), "GET", "/v1/operator", "{}").await;
    let events = new_records(&manager, &mut seen).await;
    let Some(Actor::Operator { name, id }) = events.last().map(|event| event.actor.clone()) else {
        panic!("{events:?}")
    };
    assert!(id.is_some());
    assert_eq!(Subject::Operator { name, id }, caller.subject);
}
