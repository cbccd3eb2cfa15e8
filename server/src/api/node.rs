//! What a node does on its own behalf.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json as Answer};
use futures::StreamExt as _;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use secretfs_wire::api::{
    EnvelopeRequest, JSON_LINES, JoinRequest, Joined, OCTET_STREAM, OpenReport, RenewRequest, Renewed,
    Session, UsageReport,
};
use secretfs_wire::stream::{Follow, StreamMessage};

use super::body::{Json, REPORT_MAX_BYTES};
use super::extract::Caller;
use super::layers::Details;
use crate::app::{App, Envelope};
use crate::error::Error;
use crate::listener::PeerAddress;

#[utoipa::path(post, path = "/v1/join", request_body = JoinRequest,
    responses((status = 201, body = Joined)))]
pub(super) async fn join(
    State(app): State<Arc<App>>,
    address: Option<Extension<PeerAddress>>,
    details: Details,
    Json(asked): Json<JoinRequest>,
) -> Result<(StatusCode, Answer<Joined>), Error> {
    let address = address.map(|Extension(PeerAddress(address))| address);
    details.note(|noted| noted.object.node = asked.name.clone().or_else(|| asked.fallback_name.clone()));
    let shown = app.shown_token(&asked.token).await?;
    let token = shown.to_string();
    details.note(|noted| {
        noted.environment = Some(shown.token.environment.clone());
        noted.text = Some(token.clone());
    });
    let joined = app.join(shown, asked, address).await?;
    details.note(|noted| {
        noted.object.node = Some(joined.name.clone());
        noted.text = Some(format!("id {}, {token}", joined.id));
    });
    Ok((StatusCode::CREATED, Answer(joined)))
}

#[utoipa::path(post, path = "/v1/node/session", responses((status = 200, body = Session)))]
pub(super) async fn session(
    State(app): State<Arc<App>>,
    Caller { node, .. }: Caller,
) -> Result<Answer<Session>, Error> {
    app.open_session(&node).await.map(Answer)
}

#[utoipa::path(post, path = "/v1/node/changes", request_body = Follow,
    responses((status = 200, body = StreamMessage, content_type = "application/jsonl")))]
pub(super) async fn changes(
    State(app): State<Arc<App>>,
    Caller { node, certificate, speaker }: Caller,
    Json(follow): Json<Follow>,
) -> Result<Response, Error> {
    let lines = app.follow(node, certificate.not_after, &follow, &speaker).await?;
    Ok(([(CONTENT_TYPE, JSON_LINES)], Body::from_stream(lines.map(Ok::<_, Infallible>))).into_response())
}

#[utoipa::path(post, path = "/v1/node/envelopes", request_body = EnvelopeRequest,
    responses((status = 200, body = [u8], content_type = "application/octet-stream")))]
pub(super) async fn envelope(
    State(app): State<Arc<App>>,
    Caller { node, .. }: Caller,
    details: Details,
    Json(asked): Json<EnvelopeRequest>,
) -> Result<Response, Error> {
    details.note(|noted| {
        noted.object.service = Some(asked.service.clone());
        noted.object.target = Some(asked.target.clone());
    });
    let Envelope { sealed: envelope, secret, version } = app.envelope(&node, &asked).await?;
    details.note(|noted| (noted.object.secret, noted.object.version) = (Some(secret), Some(version)));
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

#[utoipa::path(post, path = "/v1/node/opens", request_body = OpenReport, responses((status = 204)))]
pub(super) async fn opens(
    State(app): State<Arc<App>>,
    Caller { node, .. }: Caller,
    address: Option<Extension<PeerAddress>>,
    Json(report): Json<OpenReport, REPORT_MAX_BYTES>,
) -> Result<StatusCode, Error> {
    let address = address.map(|Extension(PeerAddress(address))| address);
    app.record_opens(&node, address, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/v1/node/usage", request_body = UsageReport, responses((status = 204)))]
pub(super) async fn usage(
    State(app): State<Arc<App>>,
    Caller { node, .. }: Caller,
    Json(report): Json<UsageReport>,
) -> Result<StatusCode, Error> {
    app.report_usage(&node, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}
