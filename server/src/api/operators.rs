//! What operators do with operators. Each call that decides over them is on two paths: where the path names
//! an environment, it is done there and nowhere else; where it names none, it is done everywhere. So whether
//! a caller may, is decided by the path.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use secretfs_wire::api::{
    AddOperator, CreatedEnrolment, Enroll, LoggedIn, LoginRequest, Operator, RemovedOperator, RenewRequest,
    Renewed,
};
use secretfs_wire::{EnvironmentName, Grant, OperatorName, Role};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};

use super::Routes;
use super::body::Json;
use super::extract::{CallingOperator, OfOperator, Path, Scope};
use super::layers::Details;
use crate::app::App;
use crate::error::Error;

/// A path that names a role of an operator.
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

/// The same call for one environment, on a path that names it.
pub(super) fn in_environment((schemas, mut paths, method): Routes) -> Routes {
    let within = |operation: &mut Operation| {
        let schema = ObjectBuilder::new().schema_type(Type::String).build();
        let environment = ParameterBuilder::new()
            .name("environment")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some("The environment."))
            .schema(Some(schema))
            .build();
        operation.parameters.get_or_insert_default().insert(0, environment.into());
        operation.operation_id = operation.operation_id.take().map(|id| format!("{id}_in"));
    };
    paths.paths = std::mem::take(&mut paths.paths)
        .into_iter()
        .map(|(path, mut item)| {
            let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
            operations.into_iter().flatten().for_each(within);
            (path.replacen("/v1/", "/v1/environments/{environment}/", 1), item)
        })
        .collect();
    (schemas, paths, method)
}

#[utoipa::path(get, path = "/v1/operators", responses((status = 200, body = [Operator])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Scope(scope): Scope,
) -> Result<Answer<Vec<Operator>>, Error> {
    app.operators(scope.as_ref()).await.map(Answer)
}

#[utoipa::path(post, path = "/v1/operators/{operator}", params(OfOperator), request_body = AddOperator,
    responses((status = 201, body = CreatedEnrolment)))]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    Scope(scope): Scope,
    Path(at): Path<OfOperator>,
    details: Details,
    Json(asked): Json<AddOperator>,
) -> Result<(StatusCode, Answer<CreatedEnrolment>), Error> {
    note_roles(&details, &asked.roles);
    Ok((StatusCode::CREATED, Answer(app.add_operator(at.operator, scope, asked).await?)))
}

#[utoipa::path(delete, path = "/v1/operators/{operator}", params(OfOperator),
    responses((status = 200, body = RemovedOperator)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Scope(scope): Scope,
    Path(at): Path<OfOperator>,
    details: Details,
) -> Result<Answer<RemovedOperator>, Error> {
    let removed = app.remove_operator(at.operator, scope.as_ref()).await?;
    note_withdrawn(&details, &removed);
    Ok(Answer(removed))
}

#[utoipa::path(post, path = "/v1/operators/{operator}/enrolment", params(OfOperator), request_body = Enroll,
    responses((status = 201, body = CreatedEnrolment)))]
pub(super) async fn enroll(
    State(app): State<Arc<App>>,
    Scope(scope): Scope,
    Path(at): Path<OfOperator>,
    Json(asked): Json<Enroll>,
) -> Result<(StatusCode, Answer<CreatedEnrolment>), Error> {
    Ok((StatusCode::CREATED, Answer(app.enroll_operator(&at.operator, scope, &asked).await?)))
}

#[utoipa::path(delete, path = "/v1/operators/{operator}/enrolment", params(OfOperator),
    responses((status = 204)))]
pub(super) async fn cancel_enrolment(
    State(app): State<Arc<App>>,
    Scope(scope): Scope,
    Path(at): Path<OfOperator>,
    details: Details,
) -> Result<StatusCode, Error> {
    details.note(|noted| noted.text = Some("cancelled".to_owned()));
    app.cancel_enrolment(&at.operator, scope.as_ref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(put, path = "/v1/operators/{operator}/roles/{role}", params(OfRole),
    responses((status = 200, body = Operator)))]
pub(super) async fn grant(
    State(app): State<Arc<App>>,
    Scope(scope): Scope,
    Path(at): Path<OfRole>,
    details: Details,
) -> Result<Answer<Operator>, Error> {
    note_roles(&details, &[at.role]);
    let grant = Grant { role: at.role, environment: scope };
    let operator = app.grant_role(&at.operator, &grant).await?;
    Ok(Answer(seen_from(operator, grant.environment.as_ref())))
}

#[utoipa::path(delete, path = "/v1/operators/{operator}/roles/{role}", params(OfRole),
    responses((status = 200, body = Operator)))]
pub(super) async fn ungrant(
    State(app): State<Arc<App>>,
    Scope(scope): Scope,
    Path(at): Path<OfRole>,
    details: Details,
) -> Result<Answer<Operator>, Error> {
    note_roles(&details, &[at.role]);
    let grant = Grant { role: at.role, environment: scope };
    let operator = app.ungrant_role(&at.operator, &grant).await?;
    Ok(Answer(seen_from(operator, grant.environment.as_ref())))
}

/// What nobody can join with any more.
fn note_withdrawn(details: &Details, removed: &RemovedOperator) {
    if removed.withdrawn_tokens > 0 {
        let text = format!("with {} open join tokens", removed.withdrawn_tokens);
        details.note(|noted| noted.text = Some(text));
    }
}

/// Which roles it is about is not in every path.
fn note_roles(details: &Details, roles: &[Role]) {
    let roles: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    details.note(|noted| noted.text = (!roles.is_empty()).then(|| roles.join(", ")));
}

/// Who may decide in one environment is not told of roles in others.
fn seen_from(mut operator: Operator, scope: Option<&EnvironmentName>) -> Operator {
    if let Some(scope) = scope {
        operator.grants.retain(|other| other.environment.as_ref().is_none_or(|within| within == scope));
    }
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
