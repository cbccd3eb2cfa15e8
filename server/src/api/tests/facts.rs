//! Policies look at what a call says in its path and in its body.

use std::convert::Infallible;
use std::fs;

use axum::body::Body;
use futures::stream;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use secretfs_wire::Action;
use secretfs_wire::api::ErrorCode;
use secretfs_wire::audit::{Event, Outcome};

use crate::testing::{Answer, TestManager, node_peer, read};

const POLICIES: &str = r#"
@id("acme/no-admins")
forbid (principal is Operator, action in [Action::"operator.add", Action::"operator.grant"],
        resource in Environment::"prod")
when { context.roles.contains("admin") };

@id("acme/not-oneself")
forbid (principal is Operator, action in [Action::"operator.grant", Action::"operator.enroll"], resource)
when { principal == context.operator };

@id("acme/root-stays")
forbid (principal is Operator, action == Action::"service.attach", resource)
when { context.secret.name like "root_*" && resource != Service::"prod/db" };

@id("acme/databases")
forbid (principal is Operator, action == Action::"service.assign", resource == Service::"prod/db")
unless { context has selector && context.selector.contains("role=db") ||
         context has node && context.node.name like "db-*" };

@id("acme/approval")
forbid (principal is Operator, action == Action::"token.create", resource == Environment::"prod")
unless { context.approval && !context.labels.contains("role=db") };

@id("acme/labels")
forbid (principal is Operator, action == Action::"node.label", resource)
when { context.labels.contains("role=db") };

@id("acme/fingerprint")
forbid (principal is Operator, action == Action::"node.approve", resource in Environment::"prod")
unless { context has fingerprint };
"#;

async fn manager() -> TestManager {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("own.cedar"), POLICIES).expect("a file");
    TestManager::start_with_policies(directory.path()).await
}

fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
    request.body(body.into()).expect("a request")
}

async fn by_admin(manager: &TestManager, method: Method, path: &str, body: &'static str) -> Answer {
    read(manager.send(Some(&TestManager::operator()), request(method, path, body)).await).await
}

/// The newest record of an action.
async fn last(manager: &TestManager, action: Action) -> Event {
    let log = by_admin(manager, Method::GET, "/v1/audit", "").await;
    let log = String::from_utf8(log.body).expect("text");
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let mut events = lines
        .filter_map(|mut line| serde_json::from_value::<Event>(line.get_mut("record")?["event"].take()).ok());
    events.rfind(|event| event.action == action).expect("a record")
}

#[tokio::test]
async fn what_stands_in_path_and_body_is_decided_about() {
    const FINGERPRINT: &str = r#"{"fingerprint":"SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0"}"#;
    let manager = manager().await;
    let (post, put, patch) = (|| Method::POST, || Method::PUT, || Method::PATCH);
    for (method, path, body, forbidden) in [
        (post(), "operators/bob", r#"{"roles":["viewer","admin"],"ttl_seconds":60}"#, "acme/no-admins"),
        (post(), "operators/bob", r#"{"roles":["viewer"],"ttl_seconds":60}"#, ""),
        (put(), "operators/bob/roles/admin", "", "acme/no-admins"),
        (put(), "operators/bob/roles/editor", "", ""),
        (put(), "operators/admin/roles/editor", "", "acme/not-oneself"),
        (post(), "operators/admin/enrolment", r#"{"ttl_seconds":60}"#, "acme/not-oneself"),
        (post(), "services/web/attachments", r#"{"secret":"root_password"}"#, "acme/root-stays"),
        (post(), "services/web/attachments", r#"{"secret":"password"}"#, ""),
        (post(), "services/db/attachments", r#"{"secret":"root_password"}"#, ""),
        (post(), "services/db/assignments", r#"{"node":"web-1"}"#, "acme/databases"),
        (post(), "services/db/assignments", r#"{"node":"db-1"}"#, ""),
        (post(), "services/db/assignments", r#"{"selector":"zone=a"}"#, "acme/databases"),
        (post(), "services/db/assignments", r#"{"selector":"zone=a,role=db"}"#, ""),
        (post(), "tokens", r#"{"ttl_seconds":60}"#, "acme/approval"),
        (post(), "tokens", r#"{"ttl_seconds":60,"approval":true}"#, ""),
        (post(), "tokens", r#"{"ttl_seconds":60,"approval":true,"labels":{"role":"db"}}"#, "acme/approval"),
        (patch(), "nodes/web-1/labels", r#"{"set":{"role":"db"}}"#, "acme/labels"),
        (patch(), "nodes/web-1/labels", r#"{"set":{"role":"web"},"remove":["zone"]}"#, ""),
        (post(), "nodes/web-1/approve", "{}", "acme/fingerprint"),
        (post(), "nodes/web-1/approve", FINGERPRINT, ""),
    ] {
        let answer = by_admin(&manager, method, &format!("/v1/environments/prod/{path}"), body).await;
        let is_forbidden = answer.status == StatusCode::FORBIDDEN;
        assert_eq!(is_forbidden, !forbidden.is_empty(), "{path} {body}: {answer:?}");
        if is_forbidden {
            assert!(answer.error().message.contains(forbidden), "{path} {body}: {answer:?}");
        } else {
            assert_ne!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}: the handler has the body too");
        }
    }
    // The same outside of prod, and everywhere.
    let everywhere = r#"{"roles":["admin"],"ttl_seconds":60}"#;
    for path in ["/v1/environments/dev/operators/carol", "/v1/operators/dave"] {
        assert_eq!(by_admin(&manager, Method::POST, path, everywhere).await.status, StatusCode::CREATED);
    }
}

#[tokio::test]
async fn what_was_denied_is_on_record_with_what_its_body_names() {
    let manager = manager().await;
    let path = "/v1/environments/prod/services/web/attachments";
    by_admin(&manager, Method::POST, path, r#"{"secret":"root_password"}"#).await;
    let event = last(&manager, Action::ServiceAttach).await;
    assert_eq!((event.outcome, event.policies), (Outcome::Denied, vec!["acme/root-stays".to_owned()]));
    assert_eq!(event.object.secret.map(|name| name.to_string()).as_deref(), Some("root_password"));
}

#[tokio::test]
async fn a_body_that_is_none_is_decided_about_by_nobody() {
    let manager = manager().await;
    let path = "/v1/environments/prod/operators/bob";
    for body in [
        "",
        "{",
        r#"{"ttl_seconds":60}"#,
        r#"{"roles":"admin","ttl_seconds":60}"#,
        r#"{"roles":["root"],"ttl_seconds":60}"#,
        r#"{"roles":["viewer"],"roles":["admin"],"ttl_seconds":60}"#,
        r#"{"roles":["viewer"],"ttl_seconds":60}{"roles":["admin"],"ttl_seconds":60}"#,
    ] {
        let answer = by_admin(&manager, Method::POST, path, body).await;
        assert_eq!(
            (answer.status, answer.error().code),
            (StatusCode::BAD_REQUEST, ErrorCode::Invalid),
            "{body}"
        );
        let event = last(&manager, Action::OperatorAdd).await;
        assert_eq!((event.outcome, event.reason.as_deref()), (Outcome::Failed, Some("invalid")), "{body}");
        assert!(event.policies.is_empty());
    }
    let endless = Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b' '; 1 << 16])));
    let answer = manager.send(Some(&TestManager::operator()), request(Method::POST, path, endless)).await;
    assert_eq!(read(answer).await.error().code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn nobody_is_listened_to_who_can_never_ask() {
    let manager = manager().await;
    let node = node_peer(&manager.join("prod", "web-1", false).await);
    for (caller, code) in [(None, ErrorCode::Unauthenticated), (Some(&node), ErrorCode::Denied)] {
        let unread =
            Body::from_stream(stream::poll_fn(|_| -> std::task::Poll<Option<Result<&[u8], Infallible>>> {
                panic!("the body is read")
            }));
        let path = "/v1/environments/prod/operators/bob";
        let answer = manager.send(caller, request(Method::POST, path, unread)).await;
        assert_eq!(read(answer).await.error().code, code);
    }
}
