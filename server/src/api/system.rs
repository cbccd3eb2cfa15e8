use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json as Answer};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use secretfs_wire::api::{Health, HealthState};
use utoipa::openapi::OpenApi;

use crate::app::App;
use crate::error::Error;
use crate::metrics::OPENMETRICS;

#[utoipa::path(get, path = "/v1/sys/health",
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn health(State(app): State<Arc<App>>) -> (StatusCode, Answer<Health>) {
    let health = app.health().await;
    let status = match health.state {
        HealthState::Healthy => StatusCode::OK,
        HealthState::Unhealthy | HealthState::Sealed | HealthState::Stopping => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    (status, Answer(health))
}

#[utoipa::path(get, path = "/metrics",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let duplicates = app.store.duplicate_nodes().await?;
    let text = app.metrics.encode(app.connected_nodes(), duplicates, app.audit.status());
    let text = text.map_err(Error::internal)?;
    Ok(([(CONTENT_TYPE, OPENMETRICS)], text).into_response())
}

/// The document that this is an operation of.
#[utoipa::path(get, path = "/v1/sys/openapi.json", responses((status = 200)))]
pub(super) async fn openapi(Extension(document): Extension<Arc<OpenApi>>) -> Answer<OpenApi> {
    Answer(OpenApi::clone(&document))
}
