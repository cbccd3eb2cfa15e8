//! Join tokens.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use secretfs_wire::api::{CreateToken, CreatedToken, Token};
use secretfs_wire::{EnvironmentName, TokenId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::Json;
use super::extract::{CallingOperator, InEnvironment, Path};
use super::layers::Details;
use crate::app::App;
use crate::error::Error;

/// A path that names a join token.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfToken {
    /// The environment.
    #[param(value_type = String)]
    environment: EnvironmentName,
    /// The token's id.
    #[param(value_type = String)]
    token: TokenId,
}

#[utoipa::path(get, path = "/v1/environments/{environment}/tokens", params(InEnvironment),
    responses((status = 200, body = [Token])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
) -> Result<Answer<Vec<Token>>, Error> {
    app.tokens(&at.environment).await.map(Answer)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/tokens", params(InEnvironment),
    request_body = CreateToken, responses((status = 201, body = CreatedToken)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
    caller: CallingOperator,
    details: Details,
    Json(asked): Json<CreateToken>,
) -> Result<(StatusCode, Answer<CreatedToken>), Error> {
    let gives = gives(&asked);
    details.note(|noted| noted.text = Some(gives.clone()));
    let created = app.create_token(&at.environment, asked, caller.name).await?;
    details.note(|noted| noted.text = Some(format!("token {}, {gives}", created.id)));
    Ok((StatusCode::CREATED, Answer(created)))
}

#[utoipa::path(delete, path = "/v1/environments/{environment}/tokens/{token}", params(OfToken),
    responses((status = 204)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(at): Path<OfToken>,
    details: Details,
) -> Result<StatusCode, Error> {
    details.note(|noted| noted.text = Some(format!("token {}", at.token)));
    app.remove_token(&at.environment, at.token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a token gives to whoever has it.
fn gives(asked: &CreateToken) -> String {
    let approval = if asked.approval { "with" } else { "without" };
    let mut text = format!("for {} seconds, {approval} approval", asked.ttl_seconds);
    if !asked.labels.is_empty() {
        text.push_str(&format!(", labels {}", asked.labels));
    }
    if let Some(name) = &asked.name {
        text.push_str(&format!(", name {name}"));
    }
    text
}
