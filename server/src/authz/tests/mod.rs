mod own;
mod roles;
pub(crate) mod table;
mod trial;

use std::net::IpAddr;

use secretfs_wire::{Action, Grant, NodeId, Role};

use super::{Authorizer, Decision, Resource};
use crate::authn::{Identity, NodeIdentity, OperatorIdentity};

/// What nobody asks for: it happens.
const ONLY_RECORDED: [Action; 11] = [
    Action::CallerLimit,
    Action::NodeDuplicate,
    Action::FileOpen,
    Action::FileLost,
    Action::AuditBegin,
    Action::AuditGap,
    Action::ManagerStart,
    Action::ManagerStop,
    Action::ManagerUnlock,
    Action::ManagerRekey,
    Action::SecretDamaged,
];

/// An operator with roles: `editor` or `prod/editor`.
fn operator(roles: &[&str]) -> Identity {
    let grants = roles.iter().map(|role| match role.split_once('/') {
        Some((within, role)) => grant(role, Some(within)),
        None => grant(role, None),
    });
    let name = "alice".parse().expect("a name");
    Identity::Operator(OperatorIdentity { name, id: None, grants: grants.collect() })
}

fn grant(role: &str, within: Option<&str>) -> Grant {
    let role = role.parse::<Role>().expect("a role");
    Grant { role, environment: within.map(|name| name.parse().expect("a name")) }
}

fn node(environment: &str, name: &str) -> Identity {
    Identity::Node(NodeIdentity {
        id: NodeId::random(),
        environment: environment.parse().expect("a name"),
        name: name.parse().expect("a name"),
    })
}

/// A resource by a path such as `environment/prod/secret/db`.
fn at(path: &str) -> Resource {
    let parts: Vec<_> = path.split_terminator('/').collect();
    Resource::from_path(parts.chunks(2).map(|pair| (pair[0], pair[1]))).expect("names")
}

/// Something of the kind that an action is about, in prod or in no environment.
fn about(action: Action) -> Resource {
    let path = match action.as_str().split_once('.').expect("two words") {
        (_, "list") if action.as_str().starts_with("environment.") => "",
        ("manager", _) => "",
        (_, "create") if action == Action::EnvironmentCreate => "",
        ("key", "list") | ("operator", "login") | ("policy", "show") | ("audit", "rotate") => "",
        ("node", "join") => "",
        ("key", "import") => "key/new",
        ("operator", "renew" | "show") => "",
        ("policy", "explain") => "operator/bob",
        ("secret" | "service" | "node", "list") => "environment/prod",
        ("operator", "list") => "environment/prod",
        ("operator", _) => "environment/prod/operator/bob/role/viewer",
        ("environment" | "key" | "token" | "audit", _) => "environment/prod",
        ("secret", _) => "environment/prod/secret/db",
        ("service", "assign") => "environment/prod/service/web/node/web-1",
        ("service" | "template", _) => "environment/prod/service/web/secret/db",
        ("node", _) => "environment/prod/node/web-1",
        _ => panic!("{action} is about what?"),
    };
    at(path)
}

fn decide(authorizer: &Authorizer, identity: &Identity, action: Action, resource: &Resource) -> Decision {
    let address: IpAddr = "192.0.2.7".parse().expect("an address");
    authorizer.decide(identity, action, resource, address).unwrap_or_else(|error| {
        panic!("{identity} {action} {resource:?}: {error}: {:?}", std::error::Error::source(&error))
    })
}

#[test]
fn the_schema_has_every_action_that_can_be_asked_for() {
    let authorizer = Authorizer::open(None).expect("the built-in policies");
    for action in Action::ALL {
        let only_recorded = ONLY_RECORDED.contains(action);
        assert_eq!(authorizer.model.action(*action).is_none(), only_recorded, "{action}");
    }
    let known = authorizer.model.schema.actions().count();
    let groups = authorizer.model.schema.action_groups().count();
    assert_eq!(known - groups, Action::ALL.len() - ONLY_RECORDED.len(), "and no other");
}

#[test]
fn a_service_is_what_is_decided_about_when_a_secret_of_it_is_named_too() {
    let authorizer = Authorizer::open(None).expect("the built-in policies");
    let path = at("environment/prod/service/web/secret/db/target/db");
    let decision = decide(&authorizer, &operator(&["prod/granter"]), Action::ServiceDetach, &path);
    assert!(decision.is_allowed(), "{decision:?}");
}

#[test]
fn what_is_no_question_is_refused() {
    let authorizer = Authorizer::open(None).expect("the built-in policies");
    let address: IpAddr = "::1".parse().expect("an address");
    let admin = operator(&["admin"]);
    for (action, path) in [
        (Action::FileOpen, "environment/prod"),
        (Action::SecretRotate, "environment/prod"),
        // Half of a call is none: a forbid that looks at the rest would not see it.
        (Action::ServiceAttach, "environment/prod/service/web"),
        (Action::ServiceAssign, "environment/prod/service/web"),
        (Action::OperatorGrant, "environment/prod/operator/bob"),
        (Action::OperatorGrant, "operator/bob"),
        (Action::OperatorEnroll, "environment/prod"),
    ] {
        assert!(authorizer.decide(&admin, action, &at(path), address).is_err(), "{action} {path}");
    }
    assert!(Resource::from_path([("environment", "a b")]).is_err());
}
