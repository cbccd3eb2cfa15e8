//! What operators do with operators. Where a path names an environment, it is done there and nowhere
//! else; where it names none, it is done everywhere. So whether a caller may, is decided by the path.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use secretfs_wire::api::{
    AddOperator, CreatedEnrolment, Enroll, LoggedIn, LoginRequest, Operator, RenewRequest, Renewed,
};
use secretfs_wire::{EnvironmentName, Grant, OperatorName, Role};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::Json;
use super::extract::{CallingOperator, InEnvironment, Path};
use super::layers::Details;
use crate::app::App;
use crate::error::Error;

/// A path that names an operator.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfOperator {
    /// The operator.
    #[param(value_type = String)]
    operator: OperatorName,
}

/// A path that names an operator within an environment.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfOperatorIn {
    /// The environment.
    #[param(value_type = String)]
    environment: EnvironmentName,
    /// The operator.
    #[param(value_type = String)]
    operator: OperatorName,
}

/// A path that names a role everywhere.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfRole {
    /// The operator.
    #[param(value_type = String)]
    operator: OperatorName,
    /// The role.
    #[param(value_type = String)]
    role: Role,
}

/// A path that names a role in an environment.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfRoleIn {
    /// The environment.
    #[param(value_type = String)]
    environment: EnvironmentName,
    /// The operator.
    #[param(value_type = String)]
    operator: OperatorName,
    /// The role.
    #[param(value_type = String)]
    role: Role,
}

#[utoipa::path(get, path = "/v1/operators", responses((status = 200, body = [Operator])))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Answer<Vec<Operator>>, Error> {
    app.operators(None).await.map(Answer)
}

#[utoipa::path(get, path = "/v1/environments/{environment}/operators", params(InEnvironment),
    responses((status = 200, body = [Operator])))]
pub(super) async fn list_in(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
) -> Result<Answer<Vec<Operator>>, Error> {
    app.operators(Some(&at.environment)).await.map(Answer)
}

#[utoipa::path(post, path = "/v1/operators/{operator}", params(OfOperator), request_body = AddOperator,
    responses((status = 201, body = CreatedEnrolment)))]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    Path(at): Path<OfOperator>,
    details: Details,
    Json(asked): Json<AddOperator>,
) -> Result<(StatusCode, Answer<CreatedEnrolment>), Error> {
    note_roles(&details, &asked.roles);
    Ok((StatusCode::CREATED, Answer(app.add_operator(at.operator, None, asked).await?)))
}

#[utoipa::path(post, path = "/v1/environments/{environment}/operators/{operator}", params(OfOperatorIn),
    request_body = AddOperator, responses((status = 201, body = CreatedEnrolment)))]
pub(super) async fn add_in(
    State(app): State<Arc<App>>,
    Path(at): Path<OfOperatorIn>,
    details: Details,
    Json(asked): Json<AddOperator>,
) -> Result<(StatusCode, Answer<CreatedEnrolment>), Error> {
    note_roles(&details, &asked.roles);
    let created = app.add_operator(at.operator, Some(at.environment), asked).await?;
    Ok((StatusCode::CREATED, Answer(created)))
}

#[utoipa::path(delete, path = "/v1/operators/{operator}", params(OfOperator),
    responses((status = 204)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(at): Path<OfOperator>,
) -> Result<StatusCode, Error> {
    app.remove_operator(&at.operator, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(delete, path = "/v1/environments/{environment}/operators/{operator}", params(OfOperatorIn),
    responses((status = 204)))]
pub(super) async fn remove_in(
    State(app): State<Arc<App>>,
    Path(at): Path<OfOperatorIn>,
) -> Result<StatusCode, Error> {
    app.remove_operator(&at.operator, Some(&at.environment)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/v1/operators/{operator}/enrolment", params(OfOperator), request_body = Enroll,
    responses((status = 201, body = CreatedEnrolment)))]
pub(super) async fn enroll(
    State(app): State<Arc<App>>,
    Path(at): Path<OfOperator>,
    Json(asked): Json<Enroll>,
) -> Result<(StatusCode, Answer<CreatedEnrolment>), Error> {
    Ok((StatusCode::CREATED, Answer(app.enroll_operator(&at.operator, None, &asked).await?)))
}

#[utoipa::path(post, path = "/v1/environments/{environment}/operators/{operator}/enrolment",
    params(OfOperatorIn), request_body = Enroll, responses((status = 201, body = CreatedEnrolment)))]
pub(super) async fn enroll_in(
    State(app): State<Arc<App>>,
    Path(at): Path<OfOperatorIn>,
    Json(asked): Json<Enroll>,
) -> Result<(StatusCode, Answer<CreatedEnrolment>), Error> {
    let created = app.enroll_operator(&at.operator, Some(at.environment), &asked).await?;
    Ok((StatusCode::CREATED, Answer(created)))
}

#[utoipa::path(put, path = "/v1/operators/{operator}/roles/{role}", params(OfRole),
    responses((status = 200, body = Operator)))]
pub(super) async fn grant(
    State(app): State<Arc<App>>,
    Path(at): Path<OfRole>,
    details: Details,
) -> Result<Answer<Operator>, Error> {
    note_roles(&details, &[at.role]);
    app.grant_role(&at.operator, &Grant { role: at.role, environment: None }).await.map(Answer)
}

#[utoipa::path(put, path = "/v1/environments/{environment}/operators/{operator}/roles/{role}",
    params(OfRoleIn), responses((status = 200, body = Operator)))]
pub(super) async fn grant_in(
    State(app): State<Arc<App>>,
    Path(at): Path<OfRoleIn>,
    details: Details,
) -> Result<Answer<Operator>, Error> {
    note_roles(&details, &[at.role]);
    let grant = Grant { role: at.role, environment: Some(at.environment) };
    let operator = app.grant_role(&at.operator, &grant).await?;
    Ok(Answer(seen_from(operator, &grant)))
}

#[utoipa::path(delete, path = "/v1/operators/{operator}/roles/{role}", params(OfRole),
    responses((status = 200, body = Operator)))]
pub(super) async fn ungrant(
    State(app): State<Arc<App>>,
    Path(at): Path<OfRole>,
    details: Details,
) -> Result<Answer<Operator>, Error> {
    note_roles(&details, &[at.role]);
    app.ungrant_role(&at.operator, &Grant { role: at.role, environment: None }).await.map(Answer)
}

#[utoipa::path(delete, path = "/v1/environments/{environment}/operators/{operator}/roles/{role}",
    params(OfRoleIn), responses((status = 200, body = Operator)))]
pub(super) async fn ungrant_in(
    State(app): State<Arc<App>>,
    Path(at): Path<OfRoleIn>,
    details: Details,
) -> Result<Answer<Operator>, Error> {
    note_roles(&details, &[at.role]);
    let grant = Grant { role: at.role, environment: Some(at.environment) };
    let operator = app.ungrant_role(&at.operator, &grant).await?;
    Ok(Answer(seen_from(operator, &grant)))
}

/// Which roles it is about is not in every path.
fn note_roles(details: &Details, roles: &[Role]) {
    let roles: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    details.note(|noted| noted.text = (!roles.is_empty()).then(|| roles.join(", ")));
}

/// Who may decide in one environment is not told of roles in others.
fn seen_from(mut operator: Operator, grant: &Grant) -> Operator {
    operator.grants.retain(|other| other.environment.is_none() || other.environment == grant.environment);
    operator
}

#[utoipa::path(post, path = "/v1/login", request_body = LoginRequest,
    responses((status = 201, body = LoggedIn)))]
pub(super) async fn login(
    State(app): State<Arc<App>>,
    details: Details,
    Json(asked): Json<LoginRequest>,
) -> Result<(StatusCode, Answer<LoggedIn>), Error> {
    let logged_in = app.log_in(asked).await?;
    details.note(|noted| noted.object.operator = Some(logged_in.operator.name.clone()));
    Ok((StatusCode::CREATED, Answer(logged_in)))
}

#[utoipa::path(get, path = "/v1/operator", responses((status = 200, body = Operator)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: CallingOperator,
) -> Result<Answer<Operator>, Error> {
    app.operator(&caller.name).await.map(Answer)
}

#[utoipa::path(post, path = "/v1/operator/renew", request_body = RenewRequest,
    responses((status = 200, body = Renewed)))]
pub(super) async fn renew(
    State(app): State<Arc<App>>,
    caller: CallingOperator,
    Json(asked): Json<RenewRequest>,
) -> Result<Answer<Renewed>, Error> {
    app.renew_operator(&caller.name, caller.id, &asked).await.map(Answer)
}
