//! What operators do with nodes.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use secretfs_wire::api::{ApproveNode, ChangeLabels, Node};

use super::body::Json;
use super::extract::{InEnvironment, OfNode, Path};
use super::layers::Details;
use crate::app::App;
use crate::error::Error;

#[utoipa::path(get, path = "/v1/environments/{environment}/nodes", params(InEnvironment),
    responses((status = 200, body = [Node])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Path(at): Path<InEnvironment>,
) -> Result<Answer<Vec<Node>>, Error> {
    app.nodes(&at.environment).await.map(Answer)
}

#[utoipa::path(get, path = "/v1/environments/{environment}/nodes/{node}", params(OfNode),
    responses((status = 200, body = Node)))]
pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    Path(at): Path<OfNode>,
) -> Result<Answer<Node>, Error> {
    app.node(&at.environment, &at.node).await.map(Answer)
}

#[utoipa::path(delete, path = "/v1/environments/{environment}/nodes/{node}", params(OfNode),
    responses((status = 204)))]
pub(super) async fn remove(State(app): State<Arc<App>>, Path(at): Path<OfNode>) -> Result<StatusCode, Error> {
    app.remove_node(&at.environment, &at.node).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/nodes/{node}/approve", params(OfNode),
    request_body = ApproveNode, responses((status = 200, body = Node)))]
pub(super) async fn approve(
    State(app): State<Arc<App>>,
    Path(at): Path<OfNode>,
    Json(asked): Json<ApproveNode>,
) -> Result<Answer<Node>, Error> {
    app.approve_node(&at.environment, &at.node, &asked).await.map(Answer)
}

#[utoipa::path(post, path = "/v1/environments/{environment}/nodes/{node}/revoke", params(OfNode),
    responses((status = 200, body = Node)))]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Path(at): Path<OfNode>,
) -> Result<Answer<Node>, Error> {
    app.revoke_node(&at.environment, &at.node).await.map(Answer)
}

#[utoipa::path(patch, path = "/v1/environments/{environment}/nodes/{node}/labels", params(OfNode),
    request_body = ChangeLabels, responses((status = 200, body = Node)))]
pub(super) async fn label(
    State(app): State<Arc<App>>,
    Path(at): Path<OfNode>,
    details: Details,
    Json(change): Json<ChangeLabels>,
) -> Result<Answer<Node>, Error> {
    let node = app.label_node(&at.environment, &at.node, &change).await?;
    details.note(|noted| noted.text = Some(format!("labels {}", node.labels)));
    Ok(Answer(node))
}
