//! What an operator is told of templates, and what a node.

use axum::body::Body;
use http::{Method, StatusCode};
use secretfs_wire::api::{ApiError, ErrorCode, ServiceDetails, Template, TemplateDetails};
use secretfs_wire::template::TEMPLATE_MAX_BYTES;
use serde_json::json;

use crate::testing::{Answer, TestManager};

const SERVICE: &str = "/v1/environments/prod/services/web";

/// `web` has `db` as `password`.
async fn prepared() -> TestManager {
    let manager = TestManager::start().await;
    let operator = TestManager::operator();
    let secret = "/v1/environments/prod/secrets/db";
    manager.call(&operator, Method::POST, secret, "canary").await;
    manager.post(Some(&operator), SERVICE, &json!({})).await;
    let attach = json!({ "secret": "db", "target": "password" });
    manager.post(Some(&operator), &format!("{SERVICE}/attachments"), &attach).await;
    manager
}

async fn call(manager: &TestManager, method: Method, path: &str, body: impl Into<Body>) -> Answer {
    manager.call(&TestManager::operator(), method, &format!("{SERVICE}/{path}"), body).await
}

async fn refused(manager: &TestManager, text: impl Into<Body>) -> ApiError {
    call(manager, Method::PUT, "templates/app.conf", text).await.error()
}

#[tokio::test]
async fn a_template_is_set_shown_and_removed() {
    let (manager, operator) = (prepared().await, TestManager::operator());
    let text = "password = {{ secrets.password }}\n";
    let path = "templates/app.conf";
    let set = call(&manager, Method::PUT, &format!("{path}?uid=5&mode=0400"), text).await;
    assert_eq!(set.status, StatusCode::OK, "{set:?}");
    let set: Template = set.json();
    assert_eq!((set.ownership.uid, set.ownership.gid, set.ownership.mode.bits()), (5, 0, 0o400));
    assert_eq!(set.inputs, ["password".parse().expect("a name")]);
    let shown: TemplateDetails = call(&manager, Method::GET, path, Body::empty()).await.json();
    assert_eq!((shown.text.as_str(), &shown.template), (text, &set));
    let service: ServiceDetails = manager.call(&operator, Method::GET, SERVICE, Body::empty()).await.json();
    assert_eq!(service.templates, [set]);

    let detached = call(&manager, Method::DELETE, "attachments/db", Body::empty()).await;
    let error = detached.error();
    assert_eq!((detached.status, error.code), (StatusCode::CONFLICT, ErrorCode::Conflict));
    assert_eq!(error.message, "secret db is used by template app.conf of this service");
    assert!(error.hint.is_some_and(|hint| hint.contains("service template")));

    assert_eq!(call(&manager, Method::DELETE, path, Body::empty()).await.status, StatusCode::NO_CONTENT);
    for method in [Method::DELETE, Method::GET] {
        assert_eq!(call(&manager, method, path, Body::empty()).await.error().code, ErrorCode::NotFound);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_template_is_said_with_its_line() {
    let manager = prepared().await;
    for (text, message) in [
        ("\n{{ secrets.password", "line 2: unexpected end of input, expected end of variable block"),
        ("\n\n{{ secrets.db }}", "line 3: no secret is attached to this service as db"),
        ("{% include '/etc/passwd' %}", "line 1: unknown statement include"),
        ("", "the text of a template has 1 byte to 64 KiB"),
    ] {
        let error = refused(&manager, text).await;
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Invalid, message));
    }
    assert_eq!(refused(&manager, vec![0xff]).await.message, "a template is UTF-8 text");
    let error = refused(&manager, "x".repeat(TEMPLATE_MAX_BYTES + 1)).await;
    assert_eq!(error.code, ErrorCode::TooLarge);
    let taken = call(&manager, Method::PUT, "templates/password", "x").await;
    assert_eq!(taken.error().code, ErrorCode::Conflict);
    let largest = call(&manager, Method::PUT, "templates/app.conf", "x".repeat(TEMPLATE_MAX_BYTES)).await;
    assert_eq!(largest.status, StatusCode::OK);
}

#[tokio::test]
async fn a_change_of_a_template_is_a_change_for_its_nodes() {
    let manager = prepared().await;
    let node = manager.join("prod", "node-a", false).await;
    let read = async || manager.app.store.published(&node.environment).await.expect("published").services;
    let before = read().await;
    call(&manager, Method::PUT, "templates/app.conf", "{{ secrets.password }}").await;
    let with = read().await;
    assert_ne!(before, with);
    call(&manager, Method::PUT, "templates/app.conf", "{{ secrets.password }}").await;
    assert_eq!(read().await, with, "what is so already");
    call(&manager, Method::PUT, "templates/app.conf", "{{ secrets.password }}.").await;
    assert_ne!(read().await, with);
}
