//! The HTTP API, version 1. Handlers are thin: they take a request apart and call a use case.

#![allow(unused_qualifications, reason = "utoipa's derive writes out the paths that it is given")]

mod body;
mod environments;
mod extract;
mod keys;
mod layers;
mod node;
mod nodes;
mod sealed;
mod secrets;
mod services;
mod system;
mod templates;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{Extension, Router, middleware};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use crate::app::App;
use crate::authz::Access;
use crate::error::Error;

pub(crate) use sealed::sealed_router;

type Routes = UtoipaMethodRouter<Arc<App>>;

/// Every route with who may use it. The router and the OpenAPI document are made from this table,
/// so a route cannot be without its access.
fn table() -> Vec<(Access, Routes)> {
    use Access::{AnyIdentity, Join, Node, Operator};
    vec![
        (AnyIdentity, routes!(system::health)),
        (Operator, routes!(system::metrics)),
        (Operator, routes!(system::openapi)),
        (Operator, routes!(environments::list, environments::create)),
        (Operator, routes!(environments::remove)),
        (Operator, routes!(keys::list)),
        (Operator, routes!(keys::import)),
        (Operator, routes!(keys::rotate)),
        (Operator, routes!(keys::migrate)),
        (Operator, routes!(keys::rewrap)),
        (Operator, routes!(keys::retire)),
        (Operator, routes!(secrets::list)),
        (Operator, routes!(secrets::create, secrets::inspect, secrets::remove)),
        (Operator, routes!(secrets::rotate)),
        (Operator, routes!(secrets::roll_back)),
        (Operator, routes!(services::list)),
        (Operator, routes!(services::create, services::inspect, services::remove)),
        (Operator, routes!(services::attach)),
        (Operator, routes!(services::detach)),
        (Operator, routes!(services::assign, services::unassign)),
        (Operator, routes!(templates::show, templates::set, templates::remove)),
        (Operator, routes!(nodes::list)),
        (Operator, routes!(nodes::inspect, nodes::remove)),
        (Operator, routes!(nodes::approve)),
        (Operator, routes!(nodes::revoke)),
        (Operator, routes!(nodes::label)),
        (Operator, routes!(nodes::tokens, nodes::create_token)),
        (Join, routes!(node::join)),
        (Node, routes!(node::session)),
        (Node, routes!(node::changes)),
        (Node, routes!(node::envelope)),
        (Node, routes!(node::renew)),
        (Node, routes!(node::usage)),
    ]
}

/// The whole API as a service, and its document.
pub(crate) fn router(app: Arc<App>) -> (Router, Arc<OpenApi>) {
    let info = InfoBuilder::new()
        .title("secretfs manager")
        .version("1")
        .description(Some("Requests and responses of the secretfs manager."))
        .build();
    let mut routes = OpenApiRouter::with_openapi(OpenApiBuilder::new().info(info).build());
    for (access, group) in table() {
        let guard = middleware::from_fn_with_state((access, Arc::clone(&app)), layers::authorize);
        routes = routes.merge(OpenApiRouter::new().routes(group).route_layer(guard));
    }
    let (router, document) = routes.split_for_parts();
    let document = Arc::new(document);
    let router = router
        .fallback(|| async { Error::NoRoute })
        .method_not_allowed_fallback(|| async { Error::NoMethod })
        .layer(Extension(Arc::clone(&document)))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), layers::observe))
        .with_state(app);
    (router, document)
}
