//! Operators: how they get in, what they may do to each other, and how they are kept out.

use axum::body::Body;
use http::{Method, StatusCode};
use jiff::SignedDuration;
use secretfs_wire::api::{
    CreatedEnrolment, ErrorCode, LoggedIn, LoginRequest, Operator, OperatorState, RenewRequest, Renewed,
};
use secretfs_wire::audit::{Event, Outcome};
use secretfs_wire::{Action, EnrolmentToken, Grant, OperatorId, Role, TokenSecret};
use serde_json::json;

use crate::authn::Identity;
use crate::ca::{PeerCertificate, Subject};
use crate::testing::{Answer, TestManager, certificate, certificate_request};

async fn invite(manager: &TestManager, name: &str) -> CreatedEnrolment {
    let asked = json!({ "roles": ["editor", "granter"], "ttl_seconds": 60 });
    let path = format!("/v1/environments/prod/operators/{name}");
    let answer = manager.post(Some(&TestManager::operator()), &path, &asked).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()
}

async fn enroll(manager: &TestManager, name: &str) -> CreatedEnrolment {
    let (path, asked) = (format!("/v1/operators/{name}/enrolment"), json!({ "ttl_seconds": 60 }));
    manager.post(Some(&TestManager::operator()), &path, &asked).await.json()
}

async fn use_token(manager: &TestManager, token: &str) -> Answer {
    let token: EnrolmentToken = token.parse().expect("a token");
    let asked = LoginRequest {
        token: token.secret.expose_text().as_str().to_owned(),
        certificate_request: certificate_request(),
    };
    manager.post(None, "/v1/login", &asked).await
}

async fn log_in(manager: &TestManager, created: &CreatedEnrolment) -> PeerCertificate {
    let answer = use_token(manager, &created.token).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    certificate(&answer.json::<LoggedIn>().certificate)
}

async fn by_admin(manager: &TestManager, method: Method, path: &str) -> Answer {
    manager.call(&TestManager::operator(), method, path, Body::empty()).await
}

async fn whoami(manager: &TestManager, peer: &PeerCertificate) -> Answer {
    manager.call(peer, Method::GET, "/v1/operator", Body::empty()).await
}

fn in_prod(role: Role) -> Grant {
    Grant { role, environment: Some("prod".parse().expect("a name")) }
}

#[tokio::test]
async fn who_was_given_what_and_logged_in_is_on_record() {
    let manager = TestManager::start().await;
    let created = invite(&manager, "alice").await;
    log_in(&manager, &created).await;
    by_admin(&manager, Method::PUT, "/v1/environments/prod/operators/alice/roles/auditor").await;
    let log = by_admin(&manager, Method::GET, "/v1/audit").await;
    let log = String::from_utf8(log.body).expect("text");
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let events = lines.filter_map(|mut line| {
        let event = line.get_mut("record")?["event"].take();
        Some(serde_json::from_value::<Event>(event).expect("an event"))
    });
    let done: Vec<_> = events
        .filter(|event| event.outcome == Outcome::Done)
        .filter_map(|event| Some((event.action, event.object.operator?.to_string(), event.reason)))
        .collect();
    let roles = |roles: &str| Some(roles.to_owned());
    let alice = || "alice".to_owned();
    assert_eq!(done[0], (Action::OperatorAdd, alice(), roles("editor, granter")));
    assert_eq!(done[1], (Action::OperatorLogin, alice(), None));
    assert_eq!(done[2], (Action::OperatorGrant, alice(), roles("auditor")));
    assert!(!log.contains(&created.token), "nor a credential");
}

#[tokio::test]
async fn who_is_invited_logs_in_once_and_has_the_roles_that_were_given() {
    let manager = TestManager::start().await;
    let created = invite(&manager, "alice").await;
    assert_eq!(created.operator.as_str(), "alice");
    assert!(created.manager.starts_with("https://"));
    let listed: Vec<Operator> = by_admin(&manager, Method::GET, "/v1/operators").await.json();
    assert_eq!(listed[1].state, OperatorState::Invited);
    assert_eq!(listed[1].enrolment_expires, Some(created.expires));

    let peer = log_in(&manager, &created).await;
    let days = peer.not_after.duration_since(jiff::Timestamp::now()).as_hours();
    assert!((166..=168).contains(&days), "seven days: {days} hours");
    let shown: Operator = whoami(&manager, &peer).await.json();
    assert_eq!((shown.name.as_str(), shown.state), ("alice", OperatorState::Active));
    assert_eq!(shown.certificate_expires, Some(peer.not_after));
    let grants = [in_prod(Role::Editor), in_prod(Role::Granter)];
    assert_eq!(shown.grants, grants);
    let (store, now) = (manager.app.store.as_ref(), jiff::Timestamp::now());
    let identity = Identity::of(Some(peer), Action::OperatorShow, store, now).await;
    let Ok(Identity::Operator(identity)) = identity else { panic!("{identity:?}") };
    assert_eq!((identity.name.as_str(), &identity.grants[..]), ("alice", &grants[..]));

    let again = use_token(&manager, &created.token).await;
    assert_eq!((again.status, again.error().code), (StatusCode::UNAUTHORIZED, ErrorCode::Unauthenticated));
}

#[tokio::test]
async fn a_login_that_is_not_in_order_uses_nothing_up() {
    let manager = TestManager::start().await;
    let created = invite(&manager, "alice").await;
    let token: EnrolmentToken = created.token.parse().expect("a token");
    let secret = token.secret.expose_text().as_str().to_owned();
    for (asked, status) in [
        (json!({ "token": secret, "certificate_request": "junk" }), StatusCode::BAD_REQUEST),
        (json!({ "token": secret }), StatusCode::BAD_REQUEST),
        (
            json!({ "token": created.token, "certificate_request": certificate_request() }),
            StatusCode::UNAUTHORIZED,
        ),
        (
            json!({
                "token": TokenSecret::random().expose_text().as_str(),
                "certificate_request": certificate_request()
            }),
            StatusCode::UNAUTHORIZED,
        ),
    ] {
        let answer = manager.post(None, "/v1/login", &asked).await;
        assert_eq!(answer.status, status, "{asked}: {answer:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains(secret.as_str()));
    }
    // Nor is a node's token one of an operator's.
    let tokens = "/v1/environments/prod/tokens";
    let join = manager.post(Some(&TestManager::operator()), tokens, &json!({ "ttl_seconds": 60 })).await;
    let join =
        join.json::<serde_json::Value>()["token"].as_str().expect("a token").replacen("sfj1", "sfo1", 1);
    assert_eq!(use_token(&manager, &join).await.status, StatusCode::UNAUTHORIZED);
    log_in(&manager, &created).await;
}

#[tokio::test]
async fn a_token_is_good_for_as_long_as_was_said() {
    let manager = TestManager::start().await;
    for ttl in [0, 30 * 24 * 60 * 60 + 1] {
        let asked = json!({ "roles": ["viewer"], "ttl_seconds": ttl });
        let answer = manager.post(Some(&TestManager::operator()), "/v1/operators/alice", &asked).await;
        assert_eq!(answer.error().code, ErrorCode::Invalid, "{ttl}");
    }
    let none = json!({ "roles": [], "ttl_seconds": 60 });
    let path = "/v1/environments/prod/operators/alice";
    let answer = manager.post(Some(&TestManager::operator()), path, &none).await;
    assert_eq!(answer.error().code, ErrorCode::Invalid);
    let created = invite(&manager, "alice").await;
    let digest = created.token.parse::<EnrolmentToken>().expect("a token").secret.digest();
    let store = &manager.app.store;
    let last = created.expires - SignedDuration::from_millis(1);
    assert!(store.enrolled(&digest, last).await.is_ok());
    assert!(store.log_in(&digest, OperatorId::random(), created.expires, created.expires).await.is_err());
    log_in(&manager, &created).await;
}

#[tokio::test]
async fn a_removed_operator_is_refused_at_the_next_request_and_a_namesake_is_another() {
    let manager = TestManager::start().await;
    let alice = log_in(&manager, &invite(&manager, "alice").await).await;
    assert_eq!(whoami(&manager, &alice).await.status, StatusCode::OK);
    let path = "/v1/operators/alice";
    assert_eq!(by_admin(&manager, Method::DELETE, path).await.status, StatusCode::OK);
    assert_eq!(whoami(&manager, &alice).await.error().code, ErrorCode::Unauthenticated);

    let second = invite(&manager, "alice").await;
    assert_eq!(whoami(&manager, &alice).await.status, StatusCode::UNAUTHORIZED);
    let namesake = log_in(&manager, &second).await;
    assert_eq!(whoami(&manager, &namesake).await.status, StatusCode::OK);
    assert_eq!(whoami(&manager, &alice).await.status, StatusCode::UNAUTHORIZED);
    let Subject::Operator { name, .. } = &alice.subject else { panic!("{alice:?}") };
    let from_before = PeerCertificate {
        subject: Subject::Operator { name: name.clone(), id: None },
        not_after: alice.not_after,
    };
    assert_eq!(whoami(&manager, &from_before).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn whoever_logs_in_anew_shuts_out_who_has_the_old_key() {
    let manager = TestManager::start().await;
    let lost = log_in(&manager, &invite(&manager, "alice").await).await;
    let created = enroll(&manager, "alice").await;
    assert_eq!(whoami(&manager, &lost).await.status, StatusCode::OK, "until it is used");
    let found = log_in(&manager, &created).await;
    assert_eq!(whoami(&manager, &lost).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(whoami(&manager, &found).await.json::<Operator>().grants.len(), 2);
    let renewal = RenewRequest { certificate_request: certificate_request() };
    let renewed = manager.post(Some(&lost), "/v1/operator/renew", &renewal).await;
    assert_eq!(renewed.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_certificate_is_renewed_and_the_one_before_is_good_to_its_end() {
    let manager = TestManager::start().await;
    let first = log_in(&manager, &invite(&manager, "alice").await).await;
    let renewal = RenewRequest { certificate_request: certificate_request() };
    let renewed = manager.post(Some(&first), "/v1/operator/renew", &renewal).await;
    assert_eq!(renewed.status, StatusCode::OK, "{renewed:?}");
    let second = certificate(&renewed.json::<Renewed>().certificate);
    assert_eq!(second.subject, first.subject, "the same operator");
    for peer in [&first, &second] {
        let shown: Operator = whoami(&manager, peer).await.json();
        assert_eq!(shown.certificate_expires, Some(second.not_after));
    }
    let junk = RenewRequest { certificate_request: "junk".to_owned() };
    assert_eq!(
        manager.post(Some(&second), "/v1/operator/renew", &junk).await.error().code,
        ErrorCode::Invalid
    );
}

#[tokio::test]
async fn roles_change_at_the_next_request_and_the_last_admin_stays() {
    let manager = TestManager::start().await;
    invite(&manager, "alice").await;
    let alice = log_in(&manager, &enroll(&manager, "alice").await).await;
    let grants = async || whoami(&manager, &alice).await.json::<Operator>().grants;
    for path in ["/v1/operators/alice/roles/admin", "/v1/environments/dev/operators/alice/roles/viewer"] {
        assert_eq!(by_admin(&manager, Method::PUT, path).await.status, StatusCode::OK);
    }
    assert_eq!(grants().await.len(), 4);
    let here = "/v1/environments/prod/operators/alice/roles/editor";
    let seen: Operator = by_admin(&manager, Method::DELETE, here).await.json();
    assert_eq!(seen.grants, [Grant { role: Role::Admin, environment: None }, in_prod(Role::Granter)]);
    assert_eq!(grants().await.len(), 3, "she sees all of hers");
    assert_eq!(by_admin(&manager, Method::DELETE, here).await.error().code, ErrorCode::NotFound);
    let unknown = by_admin(&manager, Method::PUT, "/v1/operators/alice/roles/root").await;
    assert_eq!(unknown.error().code, ErrorCode::Invalid);

    by_admin(&manager, Method::DELETE, "/v1/operators/alice/roles/admin").await;
    for path in ["/v1/operators/admin", "/v1/operators/admin/roles/admin"] {
        let refused = by_admin(&manager, Method::DELETE, path).await;
        assert_eq!((refused.status, refused.error().code), (StatusCode::CONFLICT, ErrorCode::Conflict));
        assert!(refused.error().message.contains("the last one"), "{refused:?}");
    }
    assert_eq!(whoami(&manager, &TestManager::operator()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn within_an_environment_those_are_listed_who_have_roles_that_count_there() {
    let manager = TestManager::start().await;
    log_in(&manager, &invite(&manager, "alice").await).await;
    let listed = async |environment: &str| -> Vec<String> {
        let path = format!("/v1/environments/{environment}/operators");
        let listed: Vec<Operator> = by_admin(&manager, Method::GET, &path).await.json();
        listed.into_iter().map(|operator| operator.name.to_string()).collect()
    };
    assert_eq!(
        (listed("dev").await, listed("prod").await),
        (vec!["admin".into()], vec!["admin".into(), "alice".into()])
    );
    let elsewhere = by_admin(&manager, Method::DELETE, "/v1/environments/dev/operators/alice").await;
    assert_eq!(elsewhere.error().code, ErrorCode::Conflict);
    let here = by_admin(&manager, Method::DELETE, "/v1/environments/prod/operators/alice").await;
    assert_eq!(here.status, StatusCode::OK);
    for path in ["/v1/environments/absent/operators", "/v1/environments/prod/operators/alice/roles/viewer"] {
        let method = if path.ends_with("viewer") { Method::PUT } else { Method::GET };
        assert_eq!(by_admin(&manager, method, path).await.error().code, ErrorCode::NotFound, "{path}");
    }
}
