//! The HTTP API, version 1. Handlers are thin: they take a request apart and call a use case.

#![allow(unused_qualifications, reason = "utoipa's derive writes out the paths that it is given")]

mod audit;
mod body;
mod environments;
mod extract;
mod keys;
mod layers;
mod limiting;
mod node;
mod nodes;
mod operators;
mod policies;
mod sealed;
mod secrets;
mod services;
mod system;
mod templates;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use axum::{Extension, Router, middleware};
use secretfs_wire::Action;
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use crate::app::App;
use crate::error::Error;

pub(crate) use sealed::sealed_router;

use operators::in_environment;

type Routes = UtoipaMethodRouter<Arc<App>>;

/// Every route with what it does. The router and the OpenAPI document are made from this table, so a
/// route cannot be without its action.
fn table() -> Vec<(Action, Routes)> {
    vec![
        (Action::ManagerHealth, routes!(system::health)),
        (Action::ManagerMetrics, routes!(system::metrics)),
        (Action::ManagerDescribe, routes!(system::openapi)),
        (Action::EnvironmentList, routes!(environments::list)),
        (Action::EnvironmentCreate, routes!(environments::create)),
        (Action::EnvironmentRemove, routes!(environments::remove)),
        (Action::KeyList, routes!(keys::list)),
        (Action::KeyImport, routes!(keys::import)),
        (Action::KeyRotate, routes!(keys::rotate)),
        (Action::KeyMigrate, routes!(keys::migrate)),
        (Action::KeyRewrap, routes!(keys::rewrap)),
        (Action::KeyRetire, routes!(keys::retire)),
        (Action::SecretList, routes!(secrets::list)),
        (Action::SecretCreate, routes!(secrets::create)),
        (Action::SecretInspect, routes!(secrets::inspect)),
        (Action::SecretRemove, routes!(secrets::remove)),
        (Action::SecretRotate, routes!(secrets::rotate)),
        (Action::SecretRollback, routes!(secrets::roll_back)),
        (Action::ServiceList, routes!(services::list)),
        (Action::ServiceCreate, routes!(services::create)),
        (Action::ServiceInspect, routes!(services::inspect)),
        (Action::ServiceRemove, routes!(services::remove)),
        (Action::ServiceAttach, routes!(services::attach)),
        (Action::ServiceDetach, routes!(services::detach)),
        (Action::ServiceAssign, routes!(services::assign)),
        (Action::ServiceUnassign, routes!(services::unassign)),
        (Action::TemplateShow, routes!(templates::show)),
        (Action::TemplateSet, routes!(templates::set)),
        (Action::TemplateRemove, routes!(templates::remove)),
        (Action::NodeList, routes!(nodes::list)),
        (Action::NodeInspect, routes!(nodes::inspect)),
        (Action::NodeRemove, routes!(nodes::remove)),
        (Action::NodeApprove, routes!(nodes::approve)),
        (Action::NodeRevoke, routes!(nodes::revoke)),
        (Action::NodeLabel, routes!(nodes::label)),
        (Action::TokenList, routes!(tokens::list)),
        (Action::TokenCreate, routes!(tokens::create)),
        (Action::TokenRemove, routes!(tokens::remove)),
        (Action::OperatorList, routes!(operators::list)),
        (Action::OperatorList, in_environment(routes!(operators::list))),
        (Action::OperatorAdd, routes!(operators::add)),
        (Action::OperatorAdd, in_environment(routes!(operators::add))),
        (Action::OperatorRemove, routes!(operators::remove)),
        (Action::OperatorRemove, in_environment(routes!(operators::remove))),
        (Action::OperatorGrant, routes!(operators::grant)),
        (Action::OperatorGrant, in_environment(routes!(operators::grant))),
        (Action::OperatorUngrant, routes!(operators::ungrant)),
        (Action::OperatorUngrant, in_environment(routes!(operators::ungrant))),
        (Action::OperatorEnroll, routes!(operators::enroll)),
        (Action::OperatorEnroll, in_environment(routes!(operators::enroll))),
        (Action::OperatorEnroll, routes!(operators::cancel_enrolment)),
        (Action::OperatorEnroll, in_environment(routes!(operators::cancel_enrolment))),
        (Action::OperatorLogin, routes!(operators::login)),
        (Action::OperatorRenew, routes!(operators::renew)),
        (Action::OperatorShow, routes!(operators::show)),
        (Action::PolicyShow, routes!(policies::show)),
        (Action::PolicyExplain, routes!(policies::explain)),
        (Action::PolicyExplain, routes!(policies::explain_of)),
        (Action::NodeJoin, routes!(node::join)),
        (Action::NodeSession, routes!(node::session)),
        (Action::NodeFollow, routes!(node::changes)),
        (Action::NodeFetch, routes!(node::envelope)),
        (Action::NodeRenew, routes!(node::renew)),
        (Action::NodeReport, routes!(node::usage)),
        (Action::NodeAudit, routes!(node::opens)),
        (Action::AuditRead, routes!(audit::all)),
        (Action::AuditRead, routes!(audit::of_environment)),
        (Action::AuditRead, routes!(audit::checkpoint)),
        (Action::AuditRotate, routes!(audit::rotate)),
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
    for (action, group) in table() {
        let guard = middleware::from_fn_with_state((action, Arc::clone(&app)), layers::authorize);
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
