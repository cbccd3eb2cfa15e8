//! Whatever is refused, is refused with an error body that repeats nothing it should not.

use axum::body::Body;
use futures::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use secretfs_wire::SECRET_MAX_BYTES;
use secretfs_wire::api::{ErrorCode, Secret};
use std::convert::Infallible;

use crate::testing::{TestManager, read};

const SECRET: &str = "/v1/environments/prod/secrets/db";

#[tokio::test]
async fn unknown_paths_and_methods() {
    let (manager, operator) = (TestManager::start().await, TestManager::operator());
    for (method, path, status, code) in [
        (Method::GET, "/", StatusCode::NOT_FOUND, ErrorCode::NotFound),
        (Method::GET, "/v2/environments", StatusCode::NOT_FOUND, ErrorCode::NotFound),
        (Method::PUT, "/v1/environments", StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Invalid),
        (Method::GET, "/v1/environments/.prod/secrets", StatusCode::BAD_REQUEST, ErrorCode::Invalid),
        (Method::GET, "/v1/environments/none/secrets", StatusCode::NOT_FOUND, ErrorCode::NotFound),
        (
            Method::POST,
            "/v1/environments/prod/secrets/db?colour=red",
            StatusCode::BAD_REQUEST,
            ErrorCode::Invalid,
        ),
    ] {
        let answer = manager.call(&operator, method.clone(), path, Body::empty()).await;
        assert_eq!((answer.status, answer.error().code), (status, code), "{method} {path}");
    }
}

#[tokio::test]
async fn a_malformed_body_is_not_repeated() {
    let manager = TestManager::start().await;
    for body in [r#"{"token":"canary"#, r#"{"canary":1}"#, r#"{"token":"t","name":"/canary"}"#, "canary"] {
        let request = Request::post("/v1/join").header(CONTENT_TYPE, "application/json; charset=utf-8");
        let answer = read(manager.send(None, request.body(body.into()).expect("a request")).await).await;
        assert_eq!(answer.error().code, ErrorCode::Invalid);
        assert!(!String::from_utf8_lossy(&answer.body).contains("canary"), "{answer:?}");
    }
    let untyped = Request::post("/v1/join").body("{}".into()).expect("a request");
    assert_eq!(read(manager.send(None, untyped).await).await.error().code, ErrorCode::Invalid);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let (manager, operator) = (TestManager::start().await, TestManager::operator());
    // It says so: not one byte is asked for.
    let unread =
        Body::from_stream(stream::poll_fn(|_| -> std::task::Poll<Option<Result<&[u8], Infallible>>> {
            panic!("the body is read")
        }));
    let request = Request::post(SECRET).header(CONTENT_LENGTH, SECRET_MAX_BYTES + 1).body(unread);
    let answer = read(manager.send(Some(&operator), request.expect("a request")).await).await;
    assert_eq!((answer.status, answer.error().code), (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge));

    // It does not say so and never ends: it is left as soon as it is too large.
    let endless = Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![0u8; 1 << 16])));
    let request = Request::post(SECRET).body(endless).expect("a request");
    let answer = read(manager.send(Some(&operator), request).await).await;
    assert_eq!(answer.error().code, ErrorCode::TooLarge);

    let request = Request::post("/v1/join").header(CONTENT_TYPE, "application/json");
    let answer = read(manager.send(None, request.body(vec![b' '; 70_000].into()).expect("a request")).await);
    assert_eq!(answer.await.error().code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn a_value_has_one_byte_to_one_mebibyte_or_is_generated() {
    let (manager, operator) = (TestManager::start().await, TestManager::operator());
    let create = async |name: &str, query: &str, body: Vec<u8>| {
        let path = format!("/v1/environments/prod/secrets/{name}{query}");
        manager.call(&operator, Method::POST, &path, body).await
    };
    for (name, body) in [("least", vec![0]), ("most", vec![0xff; SECRET_MAX_BYTES])] {
        let answer = create(name, "?labels=k=v,k2=", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{name}");
        assert_eq!(answer.json::<Secret>().labels.to_string(), "k=v,k2=");
    }
    assert_eq!(create("generated", "?generate=16", vec![]).await.status, StatusCode::CREATED);
    for (query, body) in
        [("", vec![]), ("?generate=16", vec![1]), ("?generate=15", vec![]), ("?labels=k", vec![1])]
    {
        let answer = create("refused", query, body).await;
        assert_eq!(answer.error().code, ErrorCode::Invalid, "{query}");
    }
    assert_eq!(create("least", "", vec![1]).await.error().code, ErrorCode::Conflict);
}
