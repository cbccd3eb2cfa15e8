use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use secretfs_wire::Action;
use secretfs_wire::api::{CreateEnvironment, Environment};

use super::body::Json;
use super::extract::{Asker, InEnvironment, Path};
use super::layers::Details;
use crate::app::App;
use crate::authz::Resource;
use crate::error::Error;

#[utoipa::path(get, path = "/v1/environments", responses((status = 200, body = [Environment])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Asker { identity, address, .. }: Asker,
) -> Result<Answer<Vec<Environment>>, Error> {
    let mut visible = Vec::new();
    for environment in app.environments().await? {
        let resource = Resource::environment(environment.name.clone());
        if app.authorizer.decide(&identity, Action::EnvironmentSee, &resource, address)?.is_allowed() {
            visible.push(environment);
        }
    }
    Ok(Answer(visible))
}

#[utoipa::path(post, path = "/v1/environments", request_body = CreateEnvironment,
    responses((status = 201, body = Environment)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    details: Details,
    Json(asked): Json<CreateEnvironment>,
) -> Result<(StatusCode, Answer<Environment>), Error> {
    details.note(|noted| {
        noted.environment = Some(asked.name.clone());
        noted.object.key = asked.key_name.clone();
    });
    Ok((StatusCode::CREATED, Answer(app.create_environment(asked).await?)))
}

#[utoipa::path(delete, path = "/v1/environments/{environment}", params(InEnvironment),
    responses((status = 204)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
) -> Result<StatusCode, Error> {
    app.remove_environment(&at.environment).await?;
    Ok(StatusCode::NO_CONTENT)
}
