use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use secretfs_wire::api::{Assignment, Attach, Attachment, Service, ServiceDetails};
use secretfs_wire::{EnvironmentName, NodeName, Ownership, SecretName, Selector, ServiceName, TargetName};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::Json;
use super::extract::{InEnvironment, OfService, Path, Query};
use super::layers::Details;
use crate::app::App;
use crate::error::Error;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfAttachment {
    /// The environment.
    #[param(value_type = String)]
    environment: EnvironmentName,
    /// The service.
    #[param(value_type = String)]
    service: ServiceName,
    /// The attached secret.
    #[param(value_type = String)]
    secret: SecretName,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Detachment {
    /// One target of the secret; all by default.
    #[param(value_type = Option<String>)]
    target: Option<TargetName>,
}

/// Exactly one of the two.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Unassignment {
    /// The node's name.
    #[param(value_type = Option<String>)]
    node: Option<NodeName>,
    /// The selector, as it was assigned.
    #[param(value_type = Option<String>)]
    selector: Option<Selector>,
}

#[utoipa::path(get, path = "/v1/environments/{environment}/services", params(InEnvironment),
    responses((status = 200, body = [Service])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
) -> Result<Answer<Vec<Service>>, Error> {
    app.services(&at.environment).await.map(Answer)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/services/{service}", params(OfService),
    responses((status = 201, body = Service)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Path(at): Path<OfService>,
) -> Result<(StatusCode, Answer<Service>), Error> {
    Ok((StatusCode::CREATED, Answer(app.create_service(&at.environment, &at.service).await?)))
}

#[utoipa::path(get, path = "/v1/environments/{environment}/services/{service}", params(OfService),
    responses((status = 200, body = ServiceDetails)))]
pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    Path(at): Path<OfService>,
) -> Result<Answer<ServiceDetails>, Error> {
    app.service(&at.environment, &at.service).await.map(Answer)
}

#[utoipa::path(delete, path = "/v1/environments/{environment}/services/{service}", params(OfService),
    responses((status = 204)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(at): Path<OfService>,
) -> Result<StatusCode, Error> {
    app.remove_service(&at.environment, &at.service).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/services/{service}/attachments",
    params(OfService), request_body = Attach, responses((status = 200, body = Attachment)))]
pub(super) async fn attach(
    State(app): State<Arc<App>>,
    Path(at): Path<OfService>,
    details: Details,
    Json(asked): Json<Attach>,
) -> Result<Answer<Attachment>, Error> {
    details.note(|noted| {
        let Attach { secret, target, .. } = &asked;
        noted.object.target = Some(target.clone().unwrap_or_else(|| TargetName::from(secret.clone())));
        let Ownership { uid, gid, mode } = asked.ownership;
        noted.text = Some(format!("uid {uid}, gid {gid}, mode {mode}"));
    });
    app.attach(&at.environment, &at.service, asked).await.map(Answer)
}

#[utoipa::path(delete, path = "/v1/environments/{environment}/services/{service}/attachments/{secret}",
    params(OfAttachment, Detachment), responses((status = 204)))]
pub(super) async fn detach(
    State(app): State<Arc<App>>,
    Path(at): Path<OfAttachment>,
    details: Details,
    Query(query): Query<Detachment>,
) -> Result<StatusCode, Error> {
    details.note(|noted| noted.object.target = query.target.clone());
    app.detach(&at.environment, &at.service, &at.secret, query.target.as_ref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/services/{service}/assignments",
    params(OfService), request_body = Assignment,
    responses((status = 201, body = Assignment), (status = 200, body = Assignment, description = "It is there already")))]
pub(super) async fn assign(
    State(app): State<Arc<App>>,
    Path(at): Path<OfService>,
    details: Details,
    Json(assignment): Json<Assignment>,
) -> Result<(StatusCode, Answer<Assignment>), Error> {
    note(&details, &assignment);
    let new = app.assign(&at.environment, &at.service, &assignment).await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Answer(assignment)))
}

#[utoipa::path(delete, path = "/v1/environments/{environment}/services/{service}/assignments",
    params(OfService, Unassignment), responses((status = 204)))]
pub(super) async fn unassign(
    State(app): State<Arc<App>>,
    Path(at): Path<OfService>,
    details: Details,
    Query(query): Query<Unassignment>,
) -> Result<StatusCode, Error> {
    let assignment = match (query.node, query.selector) {
        (Some(node), None) => Assignment::Node(node),
        (None, Some(selector)) => Assignment::Selector(selector),
        _ => return Err(Error::Invalid("name either a node or a selector".to_owned())),
    };
    note(&details, &assignment);
    app.unassign(&at.environment, &at.service, &assignment).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where it is to run, or not to run, for the record.
fn note(details: &Details, assignment: &Assignment) {
    details.note(|noted| match assignment {
        Assignment::Node(node) => noted.object.node = Some(node.clone()),
        Assignment::Selector(selector) => noted.text = Some(format!("selector {selector}")),
    });
}
