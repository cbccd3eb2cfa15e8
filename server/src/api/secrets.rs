use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use secretfs_wire::SecretBytes;
use secretfs_wire::api::{Rollback, Rotated, Secret, SecretDetails};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::{Json, Value};
use super::extract::{InEnvironment, OfSecret, Path, Query};
use super::layers::Details;
use crate::app::{App, Length, NewValue};
use crate::error::Error;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Creation {
    /// Labels as `k=v,k2=v2`.
    #[serde(default)]
    labels: String,
    /// Instead of a body: how many letters and digits to draw, 16 to 1024.
    generate: Option<usize>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Rotation {
    /// Instead of a body: how many letters and digits to draw, 16 to 1024.
    generate: Option<usize>,
}

#[utoipa::path(get, path = "/v1/environments/{environment}/secrets", params(InEnvironment),
    responses((status = 200, body = [Secret])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
) -> Result<Answer<Vec<Secret>>, Error> {
    app.secrets(&at.environment).await.map(Answer)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/secrets/{secret}",
    params(OfSecret, Creation), request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 201, body = Secret)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Path(at): Path<OfSecret>,
    Query(query): Query<Creation>,
    details: Details,
    Value(value): Value,
) -> Result<(StatusCode, Answer<Secret>), Error> {
    let labels = query
        .labels
        .parse()
        .map_err(|error: secretfs_wire::InvalidLabel| Error::Invalid(error.to_string()))?;
    let value = new_value(value, query.generate)?;
    let secret = app.create_secret(&at.environment, at.secret, labels, value).await?;
    details.note(|noted| noted.object.version = Some(secret.current));
    Ok((StatusCode::CREATED, Answer(secret)))
}

#[utoipa::path(get, path = "/v1/environments/{environment}/secrets/{secret}", params(OfSecret),
    responses((status = 200, body = SecretDetails)))]
pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    Path(at): Path<OfSecret>,
) -> Result<Answer<SecretDetails>, Error> {
    app.secret(&at.environment, &at.secret).await.map(Answer)
}

#[utoipa::path(delete, path = "/v1/environments/{environment}/secrets/{secret}", params(OfSecret),
    responses((status = 204)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(at): Path<OfSecret>,
) -> Result<StatusCode, Error> {
    app.remove_secret(&at.environment, &at.secret).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/secrets/{secret}/versions",
    params(OfSecret, Rotation), request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 201, body = Rotated)))]
pub(super) async fn rotate(
    State(app): State<Arc<App>>,
    Path(at): Path<OfSecret>,
    Query(query): Query<Rotation>,
    details: Details,
    Value(value): Value,
) -> Result<(StatusCode, Answer<Rotated>), Error> {
    let value = new_value(value, query.generate)?;
    let rotated = app.rotate_secret(&at.environment, &at.secret, value).await?;
    details.note(|noted| noted.object.version = Some(rotated.secret.current));
    Ok((StatusCode::CREATED, Answer(rotated)))
}

#[utoipa::path(post, path = "/v1/environments/{environment}/secrets/{secret}/rollback",
    params(OfSecret), request_body = Rollback, responses((status = 200, body = Rotated)))]
pub(super) async fn roll_back(
    State(app): State<Arc<App>>,
    Path(at): Path<OfSecret>,
    details: Details,
    Json(asked): Json<Rollback>,
) -> Result<Answer<Rotated>, Error> {
    let rotated = app.roll_back_secret(&at.environment, &at.secret, asked).await?;
    details.note(|noted| noted.object.version = Some(rotated.secret.current));
    Ok(Answer(rotated))
}

fn new_value(given: Option<SecretBytes>, generate: Option<usize>) -> Result<NewValue, Error> {
    let invalid = |problem: &str| Err(Error::Invalid(problem.to_owned()));
    match (given, generate) {
        (Some(value), None) => Ok(NewValue::Given(value)),
        (None, Some(length)) => match Length::new(length) {
            Some(length) => Ok(NewValue::Generated(length)),
            None => invalid("generate must be 16 to 1024 characters"),
        },
        (None, None) => invalid("a secret must not be empty"),
        (Some(_), Some(_)) => invalid("give a value or have one generated, not both"),
    }
}
