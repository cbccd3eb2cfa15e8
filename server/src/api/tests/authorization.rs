//! Every route of the OpenAPI document, called by everybody.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use secretfs_wire::api::ErrorCode;

use crate::authz::Access::{self, AnyIdentity, Join, Node, Operator};
use crate::ca::{PeerCertificate, Subject};
use crate::testing::{TestManager, node_peer, peer, read};

/// Written out a second time: the routes' own table is what is tested.
const ROUTES: [(&str, &str, Access); 42] = [
    ("GET", "/metrics", Operator),
    ("GET", "/v1/environments", Operator),
    ("POST", "/v1/environments", Operator),
    ("DELETE", "/v1/environments/{environment}", Operator),
    ("POST", "/v1/environments/{environment}/key/migrate", Operator),
    ("POST", "/v1/environments/{environment}/key/retire", Operator),
    ("POST", "/v1/environments/{environment}/key/rewrap", Operator),
    ("POST", "/v1/environments/{environment}/key/rotate", Operator),
    ("GET", "/v1/environments/{environment}/nodes", Operator),
    ("GET", "/v1/environments/{environment}/nodes/{node}", Operator),
    ("DELETE", "/v1/environments/{environment}/nodes/{node}", Operator),
    ("POST", "/v1/environments/{environment}/nodes/{node}/approve", Operator),
    ("PATCH", "/v1/environments/{environment}/nodes/{node}/labels", Operator),
    ("POST", "/v1/environments/{environment}/nodes/{node}/revoke", Operator),
    ("GET", "/v1/environments/{environment}/secrets", Operator),
    ("GET", "/v1/environments/{environment}/secrets/{secret}", Operator),
    ("POST", "/v1/environments/{environment}/secrets/{secret}", Operator),
    ("DELETE", "/v1/environments/{environment}/secrets/{secret}", Operator),
    ("POST", "/v1/environments/{environment}/secrets/{secret}/rollback", Operator),
    ("POST", "/v1/environments/{environment}/secrets/{secret}/versions", Operator),
    ("GET", "/v1/environments/{environment}/services", Operator),
    ("GET", "/v1/environments/{environment}/services/{service}", Operator),
    ("POST", "/v1/environments/{environment}/services/{service}", Operator),
    ("DELETE", "/v1/environments/{environment}/services/{service}", Operator),
    ("POST", "/v1/environments/{environment}/services/{service}/assignments", Operator),
    ("DELETE", "/v1/environments/{environment}/services/{service}/assignments", Operator),
    ("POST", "/v1/environments/{environment}/services/{service}/attachments", Operator),
    ("DELETE", "/v1/environments/{environment}/services/{service}/attachments/{secret}", Operator),
    ("GET", "/v1/environments/{environment}/services/{service}/templates/{target}", Operator),
    ("PUT", "/v1/environments/{environment}/services/{service}/templates/{target}", Operator),
    ("DELETE", "/v1/environments/{environment}/services/{service}/templates/{target}", Operator),
    ("GET", "/v1/environments/{environment}/tokens", Operator),
    ("POST", "/v1/environments/{environment}/tokens", Operator),
    ("POST", "/v1/join", Join),
    ("GET", "/v1/keys", Operator),
    ("POST", "/v1/keys/{key}", Operator),
    ("POST", "/v1/node/envelopes", Node),
    ("POST", "/v1/node/changes", Node),
    ("POST", "/v1/node/renew", Node),
    ("POST", "/v1/node/session", Node),
    ("POST", "/v1/node/usage", Node),
    ("GET", "/v1/sys/health", AnyIdentity),
];
const OPENAPI: (&str, &str, Access) = ("GET", "/v1/sys/openapi.json", Operator);

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
    for (method, path, access) in rows {
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
            assert_eq!(told, expected(access, caller), "{caller}: {method} {path}");
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
