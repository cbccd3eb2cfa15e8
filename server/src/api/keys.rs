use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use secretfs_wire::KeyName;
use secretfs_wire::api::{
    Environment, EnvironmentKeys, MigrateKey, RetiredKey, RewrapStep, Rewrapped, RotatedKey,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::{Json, Value};
use super::extract::{InEnvironment, Path};
use super::layers::Details;
use crate::app::App;
use crate::error::Error;

/// A path that names a local key.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfKey {
    /// The key.
    #[param(value_type = String)]
    key: KeyName,
}

#[utoipa::path(get, path = "/v1/keys", responses((status = 200, body = [EnvironmentKeys])))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Answer<Vec<EnvironmentKeys>>, Error> {
    app.keys().await.map(Answer)
}

#[utoipa::path(post, path = "/v1/keys/{key}", params(OfKey),
    request_body(content = [u8], content_type = "application/octet-stream"), responses((status = 201)))]
pub(super) async fn import(
    State(app): State<Arc<App>>,
    Path(at): Path<OfKey>,
    Value(bytes): Value,
) -> Result<StatusCode, Error> {
    let bytes = bytes.ok_or_else(|| Error::Invalid("a key must not be empty".to_owned()))?;
    app.import_key(&at.key, bytes).await?;
    Ok(StatusCode::CREATED)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/key/rotate", params(InEnvironment),
    responses((status = 201, body = RotatedKey)))]
pub(super) async fn rotate(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
) -> Result<(StatusCode, Answer<RotatedKey>), Error> {
    Ok((StatusCode::CREATED, Answer(app.rotate_key(&at.environment).await?)))
}

#[utoipa::path(post, path = "/v1/environments/{environment}/key/migrate", params(InEnvironment),
    request_body = MigrateKey, responses((status = 200, body = Environment)))]
pub(super) async fn migrate(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
    details: Details,
    Json(asked): Json<MigrateKey>,
) -> Result<Answer<Environment>, Error> {
    details.note(|noted| {
        noted.object.key = asked.key_name.clone();
        noted.text = Some(format!("to {}", asked.to));
    });
    app.migrate_key(&at.environment, asked).await.map(Answer)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/key/rewrap", params(InEnvironment),
    request_body = RewrapStep, responses((status = 200, body = Rewrapped)))]
pub(super) async fn rewrap(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
    Json(step): Json<RewrapStep>,
) -> Result<Answer<Rewrapped>, Error> {
    app.rewrap_keys(&at.environment, step).await.map(Answer)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/key/retire", params(InEnvironment),
    responses((status = 200, body = [RetiredKey])))]
pub(super) async fn retire(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
) -> Result<Answer<Vec<RetiredKey>>, Error> {
    app.retire_keys(&at.environment).await.map(Answer)
}
