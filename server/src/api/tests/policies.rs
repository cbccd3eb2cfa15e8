//! What operators are told of policies, and what they see by them.

use std::fs;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use secretfs_wire::api::{Environment, ErrorCode, Explanation, PoliciesInForce, PolicyEffect};
use secretfs_wire::{Grant, Role};
use serde_json::json;

use crate::testing::{Answer, TestManager, node_peer, read};

/// Calls as an operator with these roles.
async fn call(
    manager: &TestManager,
    grants: &[(Role, Option<&str>)],
    method: Method,
    path: &str,
    body: serde_json::Value,
) -> Answer {
    let body = Body::from(body.to_string());
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
    let request = request.body(body).expect("a request");
    let grants = grants.iter().map(|(role, environment)| Grant {
        role: *role,
        environment: environment.map(|name| name.parse().expect("a name")),
    });
    let operator = manager.operator_with(grants.collect()).await;
    read(manager.send(Some(&operator), request).await).await
}

#[tokio::test]
async fn an_operator_sees_the_environments_that_a_role_is_in() {
    let manager = TestManager::start().await;
    for (grants, expected) in [
        (&[][..], &[][..]),
        (&[(Role::NodeAdmin, Some("prod"))], &["prod"]),
        (&[(Role::Viewer, Some("dev")), (Role::Editor, Some("prod"))], &["dev", "prod"]),
        (&[(Role::Auditor, None)], &["dev", "prod"]),
    ] {
        let answer = call(&manager, grants, Method::GET, "/v1/environments", json!(null)).await;
        let listed: Vec<Environment> = answer.json();
        let mut names: Vec<_> = listed.iter().map(|environment| environment.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, expected, "{grants:?}");
    }
}

#[tokio::test]
async fn a_denial_says_what_for_and_not_whether_it_exists() {
    let manager = TestManager::start().await;
    let viewer = [(Role::Viewer, Some("prod"))];
    let denied = async |path: &str| {
        let answer = call(&manager, &viewer, Method::DELETE, path, json!(null)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        answer.error()
    };
    let error = denied("/v1/environments/prod").await;
    assert_eq!(error.code, ErrorCode::Denied);
    assert_eq!(error.message, "no policy allows this operator environment.remove in environment prod");
    let why = "`secretfs policy explain environment.remove -e prod` says why";
    assert_eq!(error.hint.expect("a hint"), format!("it takes a role that allows it; {why}"));
    let [here, absent] = [denied("/v1/environments/dev").await, denied("/v1/environments/none").await];
    assert_eq!(here.message.replace("dev", "none"), absent.message);
}

#[tokio::test]
async fn a_denial_tells_whoever_asks_what_they_can_do_about_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let policies = r#"@id("acme/frozen") forbid (principal, action in [Action::"edit", Action::"serve"], resource);
        @id("acme/closed") forbid (principal, action == Action::"node.join", resource);"#;
    fs::write(directory.path().join("own.cedar"), policies).expect("a file");
    let manager = TestManager::start_with_policies(directory.path()).await;
    let error = async |role: Role, method: Method, path: &str, body: serde_json::Value| {
        let answer = call(&manager, &[(role, Some("prod"))], method, path, body).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        (answer.error().message, answer.error().hint.expect("a hint"))
    };
    let rotate = "/v1/environments/prod/secrets/db/versions";
    let (message, hint) = error(Role::Editor, Method::POST, rotate, json!(null)).await;
    assert_eq!(message, "policy acme/frozen forbids this operator secret.rotate in environment prod");
    assert_eq!(hint, "`secretfs policy explain secret.rotate -e prod --secret db` says why");
    // All that was asked is in the question.
    for (method, path, body, question) in [
        (
            Method::PUT,
            "/v1/operators/bob/roles/admin",
            json!(null),
            "operator.grant --all-environments --operator bob --role admin",
        ),
        (
            Method::POST,
            "/v1/environments/prod/services/web/assignments",
            json!({ "selector": "role=web,zone=a" }),
            "service.assign -e prod --service web --selector role=web,zone=a",
        ),
        (
            Method::POST,
            "/v1/environments/prod/tokens",
            json!({ "ttl_seconds": 60, "approval": true, "labels": { "role": "web", "zone": "a" } }),
            "token.create -e prod --label role=web,zone=a --approval",
        ),
    ] {
        let (message, hint) = error(Role::Editor, method, path, body).await;
        assert!(message.starts_with("no policy allows this operator "), "{message}");
        assert!(hint.contains(&format!("`secretfs policy explain {question}`")), "{hint}");
    }

    let node = node_peer(&manager.join("prod", "web-1", false).await);
    let answer = manager.post(Some(&node), "/v1/node/session", &json!(null)).await;
    assert_eq!(answer.error().message, "policy acme/frozen forbids this node node.session");
    assert_eq!(answer.error().hint, None, "it cannot ask");
    let answer = manager.post(None, "/v1/join", &json!(null)).await;
    assert_eq!(answer.error().message, "a policy forbids a caller without a certificate node.join");
    assert_eq!(answer.error().hint, None);
}

#[tokio::test]
async fn what_is_no_name_is_said_to_operators_only() {
    let manager = TestManager::start().await;
    let uri = "/v1/environments/-prod/secrets";
    let request = || Request::get(uri).body(Body::empty()).expect("a request");
    let stranger = read(manager.send(None, request()).await).await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
    let node = manager.join("prod", "web-1", false).await;
    let node = read(manager.send(Some(&node_peer(&node)), request()).await).await;
    assert_eq!(node.status, StatusCode::FORBIDDEN);
    let operator = call(&manager, &[], Method::GET, uri, json!(null)).await;
    assert_eq!(operator.status, StatusCode::BAD_REQUEST);
    assert!(operator.error().message.contains("begins with a dash"), "{operator:?}");
}

#[tokio::test]
async fn explain_names_the_policies() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(
        directory.path().join("own.cedar"),
        r#"@id("acme/office") forbid (principal is Operator, action in Action::"edit", resource)
           unless { context.address.isInRange(ip("10.0.0.0/8")) };"#,
    )
    .expect("a file");
    let manager = TestManager::start_with_policies(directory.path()).await;
    let editor = [(Role::Editor, Some("prod"))];
    let explain = async |path: &str, body| call(&manager, &editor, Method::POST, path, body).await;
    let rotate = |address| {
        json!({ "action": "secret.rotate", "environment": "prod", "object": { "secret": "db" },
                "address": address })
    };
    for (address, allowed, policies) in
        [("10.1.2.3", true, ["secretfs/editor"]), ("192.0.2.1", false, ["acme/office"])]
    {
        let explanation: Explanation = explain("/v1/policies/explain", rotate(address)).await.json();
        assert_eq!(
            (explanation.allowed, &explanation.policies[..]),
            (allowed, &policies.map(String::from)[..])
        );
    }
    let nothing: Explanation =
        explain("/v1/policies/explain", json!({ "action": "key.list", "environment": "prod" })).await.json();
    assert!(!nothing.allowed && nothing.policies.is_empty(), "the environment is left out: {nothing:?}");
    let vague = explain("/v1/policies/explain", json!({ "action": "secret.rotate" })).await;
    assert_eq!(vague.status, StatusCode::BAD_REQUEST);
    assert_eq!(vague.error().message, "secret.rotate is about Secret, and this names Manager");
    assert_eq!(explain("/v1/policies/explain/eve", rotate("10.1.2.3")).await.status, StatusCode::FORBIDDEN);

    let auditor = [(Role::Auditor, None)];
    let of_admin = call(&manager, &auditor, Method::POST, "/v1/policies/explain/admin", rotate("10.1.2.3"));
    assert_eq!(of_admin.await.json::<Explanation>().policies, ["secretfs/admin"], "by the store's roles");
    let of_nobody = call(&manager, &auditor, Method::POST, "/v1/policies/explain/eve", rotate("10.1.2.3"));
    assert_eq!(of_nobody.await.status, StatusCode::NOT_FOUND);

    let shown: PoliciesInForce =
        call(&manager, &auditor, Method::GET, "/v1/policies", json!(null)).await.json();
    let own = shown.policies.iter().find(|policy| policy.id == "acme/office").expect("listed");
    assert_eq!(own.effect, PolicyEffect::Forbid);
    assert!(
        own.file.as_ref().is_some_and(|file| file.ends_with("/own.cedar")) && own.text.contains("unless")
    );
}
