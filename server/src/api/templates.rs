use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use secretfs_wire::api::{Template, TemplateDetails};
use secretfs_wire::{EnvironmentName, Mode, Ownership, ServiceName, TargetName};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::Text;
use super::extract::{Path, Query};
use crate::app::App;
use crate::error::Error;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfTemplate {
    /// The environment.
    #[param(value_type = String)]
    environment: EnvironmentName,
    /// The service.
    #[param(value_type = String)]
    service: ServiceName,
    /// The file name.
    #[param(value_type = String)]
    target: TargetName,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Owner {
    /// The owner's user id on the node.
    #[serde(default)]
    uid: u32,
    /// The owner's group id on the node.
    #[serde(default)]
    gid: u32,
    /// The permission bits, octal.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    mode: Mode,
}

#[utoipa::path(get, path = "/v1/environments/{environment}/services/{service}/templates/{target}",
    params(OfTemplate), responses((status = 200, body = TemplateDetails)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(at): Path<OfTemplate>,
) -> Result<Answer<TemplateDetails>, Error> {
    app.template(&at.environment, &at.service, &at.target).await.map(Answer)
}

#[utoipa::path(put, path = "/v1/environments/{environment}/services/{service}/templates/{target}",
    params(OfTemplate, Owner), request_body(content = String, content_type = "text/plain"),
    responses((status = 200, body = Template)))]
pub(super) async fn set(
    State(app): State<Arc<App>>,
    Path(at): Path<OfTemplate>,
    Query(Owner { uid, gid, mode }): Query<Owner>,
    Text(text): Text,
) -> Result<Answer<Template>, Error> {
    let ownership = Ownership { uid, gid, mode };
    let set = app.set_template(&at.environment, &at.service, &at.target, &text, ownership).await?;
    Ok(Answer(set.template))
}

#[utoipa::path(delete, path = "/v1/environments/{environment}/services/{service}/templates/{target}",
    params(OfTemplate), responses((status = 204)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(at): Path<OfTemplate>,
) -> Result<StatusCode, Error> {
    app.remove_template(&at.environment, &at.service, &at.target).await?;
    Ok(StatusCode::NO_CONTENT)
}
