//! The policies themselves.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use secretfs_wire::api::{Explain, Explanation, PoliciesInForce};

use super::body::Json;
use super::extract::{Asker, OfOperator, Path};
use crate::app::{App, now};
use crate::authn::{Identity, OperatorIdentity};
use crate::authz::{Decision, Resource};
use crate::error::Error;

#[utoipa::path(get, path = "/v1/policies", responses((status = 200, body = PoliciesInForce)))]
pub(super) async fn show(State(app): State<Arc<App>>) -> Answer<PoliciesInForce> {
    Answer(app.authorizer.in_force())
}

/// Explains what the operator who asks may do.
#[utoipa::path(post, path = "/v1/policies/explain", request_body = Explain,
    responses((status = 200, body = Explanation)))]
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    asker: Asker,
    Json(asked): Json<Explain>,
) -> Result<Answer<Explanation>, Error> {
    let about = asker.identity.clone();
    answer(&app, &about, &asker, asked)
}

/// Explains what another operator may do.
#[utoipa::path(post, path = "/v1/policies/explain/{operator}", params(OfOperator), request_body = Explain,
    responses((status = 200, body = Explanation)))]
pub(super) async fn explain_of(
    State(app): State<Arc<App>>,
    Path(at): Path<OfOperator>,
    asker: Asker,
    Json(asked): Json<Explain>,
) -> Result<Answer<Explanation>, Error> {
    let operator = app.store.operator(&at.operator, now()).await?;
    let about = OperatorIdentity { name: operator.name, id: None, grants: operator.grants };
    answer(&app, &Identity::Operator(about), &asker, asked)
}

fn answer(app: &App, about: &Identity, asker: &Asker, asked: Explain) -> Result<Answer<Explanation>, Error> {
    let Explain { action, environment, object, facts, address } = asked;
    let resource = app.authorizer.resource(action, Resource { environment, object, facts });
    let decision = app
        .authorizer
        .decide(about, action, &resource, address.unwrap_or(asker.address))
        .map_err(|error| Error::Invalid(error.to_string()))?;
    let allowed = decision.is_allowed();
    let Decision { policies, errors, .. } = decision;
    Ok(Answer(Explanation { allowed, policies, errors }))
}
