//! Every route of the OpenAPI document, called by everybody.

use std::collections::BTreeSet;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use secretfs_wire::api::ErrorCode;
use secretfs_wire::{Grant, Role};

use crate::authz::tests::table::{
    ANONYMOUS, EVERY_NODE, EVERY_OPERATOR, in_its_environment, in_no_environment, words,
};
use crate::ca::PeerCertificate;
use crate::testing::{TestManager, node_peer, operator_peer, read};

/// Written out a second time: the routes' own table is what is tested.
const ROUTES: [(&str, &str, &str); 69] = [
    ("GET", "/metrics", "manager.metrics"),
    ("GET", "/v1/audit", "audit.read"),
    ("GET", "/v1/audit/checkpoint", "audit.read"),
    ("POST", "/v1/audit/key/rotate", "audit.rotate"),
    ("GET", "/v1/environments/{environment}/audit", "audit.read"),
    ("GET", "/v1/environments", "environment.list"),
    ("POST", "/v1/environments", "environment.create"),
    ("DELETE", "/v1/environments/{environment}", "environment.remove"),
    ("POST", "/v1/environments/{environment}/key/migrate", "key.migrate"),
    ("POST", "/v1/environments/{environment}/key/retire", "key.retire"),
    ("POST", "/v1/environments/{environment}/key/rewrap", "key.rewrap"),
    ("POST", "/v1/environments/{environment}/key/rotate", "key.rotate"),
    ("GET", "/v1/environments/{environment}/nodes", "node.list"),
    ("GET", "/v1/environments/{environment}/nodes/{node}", "node.inspect"),
    ("DELETE", "/v1/environments/{environment}/nodes/{node}", "node.remove"),
    ("POST", "/v1/environments/{environment}/nodes/{node}/approve", "node.approve"),
    ("PATCH", "/v1/environments/{environment}/nodes/{node}/labels", "node.label"),
    ("POST", "/v1/environments/{environment}/nodes/{node}/revoke", "node.revoke"),
    ("GET", "/v1/environments/{environment}/secrets", "secret.list"),
    ("GET", "/v1/environments/{environment}/secrets/{secret}", "secret.inspect"),
    ("POST", "/v1/environments/{environment}/secrets/{secret}", "secret.create"),
    ("DELETE", "/v1/environments/{environment}/secrets/{secret}", "secret.remove"),
    ("POST", "/v1/environments/{environment}/secrets/{secret}/rollback", "secret.rollback"),
    ("POST", "/v1/environments/{environment}/secrets/{secret}/versions", "secret.rotate"),
    ("GET", "/v1/environments/{environment}/services", "service.list"),
    ("GET", "/v1/environments/{environment}/services/{service}", "service.inspect"),
    ("POST", "/v1/environments/{environment}/services/{service}", "service.create"),
    ("DELETE", "/v1/environments/{environment}/services/{service}", "service.remove"),
    ("POST", "/v1/environments/{environment}/services/{service}/assignments", "service.assign"),
    ("DELETE", "/v1/environments/{environment}/services/{service}/assignments", "service.unassign"),
    ("POST", "/v1/environments/{environment}/services/{service}/attachments", "service.attach"),
    ("DELETE", "/v1/environments/{environment}/services/{service}/attachments/{secret}", "service.detach"),
    ("GET", "/v1/environments/{environment}/services/{service}/templates/{target}", "template.show"),
    ("PUT", "/v1/environments/{environment}/services/{service}/templates/{target}", "template.set"),
    ("DELETE", "/v1/environments/{environment}/services/{service}/templates/{target}", "template.remove"),
    ("GET", "/v1/environments/{environment}/tokens", "token.list"),
    ("POST", "/v1/environments/{environment}/tokens", "token.create"),
    ("DELETE", "/v1/environments/{environment}/tokens/{token}", "token.remove"),
    ("POST", "/v1/join", "node.join"),
    ("GET", "/v1/keys", "key.list"),
    ("POST", "/v1/keys/{key}", "key.import"),
    ("POST", "/v1/node/envelopes", "node.fetch"),
    ("POST", "/v1/node/changes", "node.follow"),
    ("POST", "/v1/node/opens", "node.audit"),
    ("POST", "/v1/node/renew", "node.renew"),
    ("POST", "/v1/node/session", "node.session"),
    ("POST", "/v1/node/usage", "node.report"),
    ("GET", "/v1/environments/{environment}/operators", "operator.list"),
    ("POST", "/v1/environments/{environment}/operators/{operator}", "operator.add"),
    ("DELETE", "/v1/environments/{environment}/operators/{operator}", "operator.remove"),
    ("POST", "/v1/environments/{environment}/operators/{operator}/enrolment", "operator.enroll"),
    ("DELETE", "/v1/environments/{environment}/operators/{operator}/enrolment", "operator.enroll"),
    ("PUT", "/v1/environments/{environment}/operators/{operator}/roles/{role}", "operator.grant"),
    ("DELETE", "/v1/environments/{environment}/operators/{operator}/roles/{role}", "operator.ungrant"),
    ("GET", "/v1/operators", "operator.list"),
    ("POST", "/v1/operators/{operator}", "operator.add"),
    ("DELETE", "/v1/operators/{operator}", "operator.remove"),
    ("POST", "/v1/operators/{operator}/enrolment", "operator.enroll"),
    ("DELETE", "/v1/operators/{operator}/enrolment", "operator.enroll"),
    ("PUT", "/v1/operators/{operator}/roles/{role}", "operator.grant"),
    ("DELETE", "/v1/operators/{operator}/roles/{role}", "operator.ungrant"),
    ("POST", "/v1/login", "operator.login"),
    ("GET", "/v1/operator", "operator.show"),
    ("POST", "/v1/operator/renew", "operator.renew"),
    ("GET", "/v1/policies", "policy.show"),
    ("POST", "/v1/policies/explain", "policy.explain"),
    ("POST", "/v1/policies/explain/{operator}", "policy.explain"),
    ("GET", "/v1/sys/health", "manager.health"),
    ("GET", "/v1/sys/openapi.json", "manager.describe"),
];

/// Somebody who calls.
enum Caller {
    Anonymous,
    /// A certificate that is not honoured any more, and what its bearer is told.
    Refused(ErrorCode),
    /// A node that waits for approval.
    Pending,
    Node,
    NoRole,
    /// A role in prod, to which all requests go.
    InProd(Role),
    /// A role in another environment.
    InDev,
    Everywhere(Role),
}

/// What a caller is told: `None` when it is let through, whatever comes then.
fn expected(caller: &Caller, path: &str, action: &'static str) -> Option<ErrorCode> {
    let every_operator = || words(&[EVERY_OPERATOR]).contains(&action) && !path.ends_with("{operator}");
    let in_environment = path.contains("{environment}");
    let may = match caller {
        // A certificate that is not honoured is refused everywhere, even where none is needed.
        Caller::Refused(code) => return Some(*code),
        Caller::Pending if action == "node.renew" => true,
        Caller::Pending => return Some(ErrorCode::PendingApproval),
        Caller::Anonymous if !words(&[ANONYMOUS]).contains(&action) => {
            return Some(ErrorCode::Unauthenticated);
        }
        Caller::Anonymous => true,
        Caller::Node => words(&[EVERY_NODE]).contains(&action),
        Caller::NoRole | Caller::InDev => every_operator(),
        Caller::InProd(role) => {
            every_operator() || in_environment && in_its_environment(*role).contains(&action)
        }
        Caller::Everywhere(role) => {
            let roles = if in_environment { in_its_environment(*role) } else { in_no_environment(*role) };
            every_operator() || roles.contains(&action)
        }
    };
    (!may).then_some(ErrorCode::Denied)
}

#[tokio::test]
async fn every_route_lets_in_whom_it_should() {
    let manager = TestManager::start().await;
    let tested: BTreeSet<_> = ROUTES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(documented(&manager), tested, "each route has a row, and each row a route");

    let callers = callers(&manager).await;
    assert_eq!(callers.len(), 1 + 7 + 2 + 1 + 3 * Role::ALL.len());
    for (method, path, action) in ROUTES {
        let uri = fill(path, "prod");
        for (name, caller, certificate) in &callers {
            let request = Request::builder()
                .method(method.parse::<Method>().expect("a method"))
                .uri(&uri)
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from(body_for(method, path)))
                .expect("a request");
            let response = manager.send(certificate.as_ref(), request).await;
            let told = match response.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(read(response).await.error().code),
                // Whether there is such a thing, or the request is well-formed, is for handlers to say.
                _ => None,
            };
            assert_eq!(told, expected(caller, path, action), "{name}: {method} {path}");
        }
    }
}

/// A path in an environment, where nothing of these names is.
pub(super) fn fill(path: &str, environment: &str) -> String {
    let path = path.replace("{environment}", environment).replace("{role}", "viewer");
    let path = path.replace("{token}", "000000000000");
    ["{secret}", "{service}", "{target}", "{node}", "{key}", "{operator}"]
        .iter()
        .fold(path, |path, parameter| path.replace(parameter, "absent"))
}

/// A body that can be decided about, of a call whose body is. It is refused all the same.
pub(super) fn body_for(method: &str, path: &str) -> &'static str {
    match (method, path.rsplit_once('/')) {
        ("POST", Some((_, "attachments"))) => r#"{"secret":"absent"}"#,
        ("POST", Some((_, "assignments"))) => r#"{"node":"absent"}"#,
        ("POST", Some((_, "tokens"))) => r#"{"ttl_seconds":0}"#,
        ("POST", Some((operators, "{operator}"))) if operators.ends_with("/operators") => {
            r#"{"roles":[],"ttl_seconds":0}"#
        }
        _ => "{}",
    }
}

pub(super) fn documented(manager: &TestManager) -> BTreeSet<String> {
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

type Row = (String, Caller, Option<PeerCertificate>);

async fn callers(manager: &TestManager) -> Vec<Row> {
    let store = &manager.app.store;
    let revoked = manager.join("prod", "revoked", false).await;
    store.revoke(&revoked.environment, &revoked.name).await.expect("revoked");
    let removed = manager.join("prod", "removed", false).await;
    store.remove_node(&removed.environment, &removed.name).await.expect("removed");
    // Of the same name, but another node.
    manager.join("prod", "removed", false).await;
    let pending = manager.join("prod", "pending", true).await;
    let expired = PeerCertificate { not_after: Timestamp::now(), ..TestManager::operator() };
    let unknown = operator_peer("eve", 1);

    let unauthenticated = || Caller::Refused(ErrorCode::Unauthenticated);
    let node = |name: &str, caller, peer| (name.to_owned(), caller, Some(peer));
    let mut rows: Vec<Row> = vec![
        ("anonymous".to_owned(), Caller::Anonymous, None),
        ("expired operator".to_owned(), unauthenticated(), Some(expired)),
        ("unknown operator".to_owned(), unauthenticated(), Some(unknown)),
        ("operator who has logged in anew".to_owned(), unauthenticated(), Some(operator_peer("admin", 2))),
        ("operator without an id".to_owned(), unauthenticated(), Some(operator_peer("admin", 0))),
        node("revoked node", unauthenticated(), node_peer(&revoked)),
        node("removed node", unauthenticated(), node_peer(&removed)),
        node("pending node", Caller::Pending, node_peer(&pending)),
        node("node in prod", Caller::Node, node_peer(&manager.join("prod", "node", false).await)),
        node("node in dev", Caller::Node, node_peer(&manager.join("dev", "node", false).await)),
        ("no role".to_owned(), Caller::NoRole, Some(manager.operator_with(Vec::new()).await)),
    ];
    for role in Role::ALL {
        let within = |name: &str| Some(name.parse().expect("a name"));
        for (place, caller, environment) in [
            ("in prod", Caller::InProd(role), within("prod")),
            ("in dev", Caller::InDev, within("dev")),
            ("everywhere", Caller::Everywhere(role), None),
        ] {
            let operator = manager.operator_with(vec![Grant { role, environment }]).await;
            rows.push((format!("{role} {place}"), caller, Some(operator)));
        }
    }
    rows
}
