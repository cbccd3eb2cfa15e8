//! What a node does on its own behalf.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use secretfs_wire::api::{
    EnvelopeRequest, JSON_LINES, JoinRequest, Joined, OCTET_STREAM, RenewRequest, Renewed, Session,
    StreamMessage,
};

use super::body::Json;
use super::extract::Caller;
use crate::app::App;
use crate::error::Error;

#[utoipa::path(post, path = "/v1/join", request_body = JoinRequest,
    responses((status = 201, body = Joined)))]
pub(super) async fn join(
    State(app): State<Arc<App>>,
    Json(asked): Json<JoinRequest>,
) -> Result<(StatusCode, Answer<Joined>), Error> {
    Ok((StatusCode::CREATED, Answer(app.join(asked).await?)))
}

#[utoipa::path(post, path = "/v1/node/session", responses((status = 200, body = Session)))]
pub(super) async fn session(
    State(app): State<Arc<App>>,
    Caller { node, .. }: Caller,
) -> Result<Answer<Session>, Error> {
    app.open_session(&node).await.map(Answer)
}

#[utoipa::path(get, path = "/v1/node/manifest",
    responses((status = 200, body = StreamMessage, content_type = "application/jsonl")))]
pub(super) async fn manifest(
    State(app): State<Arc<App>>,
    Caller { node, certificate }: Caller,
) -> Result<Response, Error> {
    let messages = app.follow(node, certificate.not_after).await?;
    let lines = messages.map(|message| Ok::<_, Infallible>(line(&message)));
    Ok(([(CONTENT_TYPE, JSON_LINES)], Body::from_stream(lines)).into_response())
}

#[utoipa::path(post, path = "/v1/node/envelopes", request_body = EnvelopeRequest,
    responses((status = 200, body = [u8], content_type = "application/octet-stream")))]
pub(super) async fn envelope(
    State(app): State<Arc<App>>,
    Caller { node, .. }: Caller,
    Json(asked): Json<EnvelopeRequest>,
) -> Result<Response, Error> {
    let envelope = app.envelope(&node, &asked).await?;
    Ok(([(CONTENT_TYPE, OCTET_STREAM)], envelope).into_response())
}

#[utoipa::path(post, path = "/v1/node/renew", request_body = RenewRequest,
    responses((status = 200, body = Renewed)))]
pub(super) async fn renew(
    State(app): State<Arc<App>>,
    Caller { node, .. }: Caller,
    Json(asked): Json<RenewRequest>,
) -> Result<Answer<Renewed>, Error> {
    app.renew(&node, &asked).await.map(Answer)
}

/// One message and its line feed.
#[allow(clippy::expect_used, reason = "a message is plain data, and memory does not refuse bytes")]
fn line(message: &StreamMessage) -> Bytes {
    let mut line = BytesMut::new().writer();
    serde_json::to_writer(&mut line, message).expect("a message serializes");
    let mut line = line.into_inner();
    line.put_u8(b'\n');
    line.freeze()
}
