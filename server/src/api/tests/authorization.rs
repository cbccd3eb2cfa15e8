//! Every route of the OpenAPI document, called by everybody.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use secretfs_wire::Action;
use secretfs_wire::api::ErrorCode;

use crate::authz::Access::{self, AnyIdentity, Join, Node, Operator};
use crate::ca::{PeerCertificate, Subject};
use crate::testing::{TestManager, node_peer, peer, read};

/// Written out a second time: the routes' own table is what is tested.
const ROUTES: [(&str, &str, Action); 42] = [
    ("GET", "/metrics", Action::ManagerMetrics),
    ("GET", "/v1/environments", Action::EnvironmentList),
    ("POST", "/v1/environments", Action::EnvironmentCreate),
    ("DELETE", "/v1/environments/{environment}", Action::EnvironmentRemove),
    ("POST", "/v1/environments/{environment}/key/migrate", Action::KeyMigrate),
    ("POST", "/v1/environments/{environment}/key/retire", Action::KeyRetire),
    ("POST", "/v1/environments/{environment}/key/rewrap", Action::KeyRewrap),
    ("POST", "/v1/environments/{environment}/key/rotate", Action::KeyRotate),
    ("GET", "/v1/environments/{environment}/nodes", Action::NodeList),
    ("GET", "/v1/environments/{environment}/nodes/{node}", Action::NodeInspect),
    ("DELETE", "/v1/environments/{environment}/nodes/{node}", Action::NodeRemove),
    ("POST", "/v1/environments/{environment}/nodes/{node}/approve", Action::NodeApprove),
    ("PATCH", "/v1/environments/{environment}/nodes/{node}/labels", Action::NodeLabel),
    ("POST", "/v1/environments/{environment}/nodes/{node}/revoke", Action::NodeRevoke),
    ("GET", "/v1/environments/{environment}/secrets", Action::SecretList),
    ("GET", "/v1/environments/{environment}/secrets/{secret}", Action::SecretInspect),
    ("POST", "/v1/environments/{environment}/secrets/{secret}", Action::SecretCreate),
    ("DELETE", "/v1/environments/{environment}/secrets/{secret}", Action::SecretRemove),
    ("POST", "/v1/environments/{environment}/secrets/{secret}/rollback", Action::SecretRollback),
    ("POST", "/v1/environments/{environment}/secrets/{secret}/versions", Action::SecretRotate),
    ("GET", "/v1/environments/{environment}/services", Action::ServiceList),
    ("GET", "/v1/environments/{environment}/services/{service}", Action::ServiceInspect),
    ("POST", "/v1/environments/{environment}/services/{service}", Action::ServiceCreate),
    ("DELETE", "/v1/environments/{environment}/services/{service}", Action::ServiceRemove),
    ("POST", "/v1/environments/{environment}/services/{service}/assignments", Action::ServiceAssign),
    ("DELETE", "/v1/environments/{environment}/services/{service}/assignments", Action::ServiceUnassign),
    ("POST", "/v1/environments/{environment}/services/{service}/attachments", Action::ServiceAttach),
    (
        "DELETE",
        "/v1/environments/{environment}/services/{service}/attachments/{secret}",
        Action::ServiceDetach,
    ),
    ("GET", "/v1/environments/{environment}/services/{service}/templates/{target}", Action::TemplateShow),
    ("PUT", "/v1/environments/{environment}/services/{service}/templates/{target}", Action::TemplateSet),
    (
        "DELETE",
        "/v1/environments/{environment}/services/{service}/templates/{target}",
        Action::TemplateRemove,
    ),
    ("GET", "/v1/environments/{environment}/tokens", Action::TokenList),
    ("POST", "/v1/environments/{environment}/tokens", Action::TokenCreate),
    ("POST", "/v1/join", Action::NodeJoin),
    ("GET", "/v1/keys", Action::KeyList),
    ("POST", "/v1/keys/{key}", Action::KeyImport),
    ("POST", "/v1/node/envelopes", Action::NodeFetch),
    ("POST", "/v1/node/changes", Action::NodeFollow),
    ("POST", "/v1/node/renew", Action::NodeRenew),
    ("POST", "/v1/node/session", Action::NodeSession),
    ("POST", "/v1/node/usage", Action::NodeReport),
    ("GET", "/v1/sys/health", Action::ManagerHealth),
];
const OPENAPI: (&str, &str, Action) = ("GET", "/v1/sys/openapi.json", Action::ManagerDescribe);

/// What a caller is told: `None` when it is let through, whatever comes then.
fn expected(access: Access, caller: &str) -> Option<ErrorCode> {
    match (access, caller) {
        // A certificate that is no longer honoured is refused everywhere, even where none is needed.
        (_, "revoked node" | "removed node" | "expired operator" | "unknown operator") => {
            Some(ErrorCode::Unauthenticated)
        }
        (_, "pending node") => Some(ErrorCode::PendingApproval),
        (Join, _) => None,
        (_, "anonymous") => Some(ErrorCode::Unauthenticated),
        (AnyIdentity, _) | (Operator, "operator") | (Node, "node" | "node of another environment") => None,
        (Operator | Node, _) => Some(ErrorCode::Denied),
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_it_should() {
    let manager = TestManager::start().await;
    let rows: Vec<_> = ROUTES.into_iter().chain([OPENAPI]).collect();
    let tested: BTreeSet<_> = rows.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(documented(&manager), tested, "each route has a row, and each row a route");

    let callers = callers(&manager).await;
    for (method, path, action) in rows {
        // Nothing of this name is there, so whoever is let through changes nothing.
        let path = ["{environment}", "{secret}", "{service}", "{target}", "{node}"]
            .iter()
            .fold(path.to_owned(), |path, parameter| path.replace(parameter, "absent"));
        for (caller, certificate) in &callers {
            let request = Request::builder()
                .method(method.parse::<Method>().expect("a method"))
                .uri(&path)
                .body(Body::empty())
                .expect("a request");
            let response = manager.send(certificate.as_ref(), request).await;
            let told = match response.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(read(response).await.error().code),
                _ => None,
            };
            assert_eq!(told, expected(Access::to(action), caller), "{caller}: {method} {path}");
        }
    }
}

fn documented(manager: &TestManager) -> BTreeSet<String> {
    let document = serde_json::to_value(manager.document.as_ref()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("operations").keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect()
}

async fn callers(manager: &TestManager) -> Vec<(&'static str, Option<PeerCertificate>)> {
    let store = &manager.app.store;
    let revoked = manager.join("prod", "revoked", false).await;
    store.revoke(&revoked.environment, &revoked.name).await.expect("revoked");
    let removed = manager.join("prod", "removed", false).await;
    store.remove_node(&removed.environment, &removed.name).await.expect("removed");
    // Of the same name, but another node.
    manager.join("prod", "removed", false).await;
    let expired = PeerCertificate { not_after: Timestamp::now(), ..TestManager::operator() };
    vec![
        ("anonymous", None),
        ("operator", Some(TestManager::operator())),
        ("expired operator", Some(expired)),
        ("unknown operator", Some(peer(Subject::Operator("eve".parse().expect("a name"))))),
        ("node", Some(node_peer(&manager.join("prod", "node", false).await))),
        ("node of another environment", Some(node_peer(&manager.join("dev", "node", false).await))),
        ("pending node", Some(node_peer(&manager.join("prod", "pending", true).await))),
        ("revoked node", Some(node_peer(&revoked))),
        ("removed node", Some(node_peer(&removed))),
    ]
}
