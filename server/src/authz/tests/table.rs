//! What each role may do, written out a second time: the policies are what is tested.

use secretfs_wire::Role;

const SEE: &str = "environment.see node.inspect node.list secret.inspect secret.list service.inspect \
    service.list template.show token.list";
const SEE_NODES: &str = "environment.see node.inspect node.list token.list";
const EDIT: &str = "secret.create secret.remove secret.rollback secret.rotate";
const GRANT: &str = "service.assign service.attach service.create service.detach service.remove \
    service.unassign template.remove template.set";
const ADMIT: &str = "node.approve node.label node.remove node.revoke token.create \
    token.remove";
const ADMINISTER: &str = "environment.remove key.migrate key.retire key.rewrap key.rotate";
const OVERSEE: &str = "key.list manager.metrics operator.list policy.explain policy.show";
const MANAGE: &str = "audit.rotate environment.create key.import";
const OPERATORS: &str =
    "operator.add operator.enroll operator.grant operator.list operator.remove operator.ungrant";

/// What an operator may do without any role, to the manager or on their own behalf.
pub(crate) const EVERY_OPERATOR: &str = "environment.list manager.describe manager.health node.join \
    operator.login operator.renew operator.show policy.explain";
/// What a node may do, to the manager or on its own behalf.
pub(crate) const EVERY_NODE: &str = "manager.health node.audit node.fetch node.follow node.join \
    node.renew node.report node.session operator.login";
/// What somebody without a certificate may do.
pub(crate) const ANONYMOUS: &str = "node.join operator.login";

/// What a role may do in its environment.
pub(crate) fn in_its_environment(role: Role) -> Vec<&'static str> {
    words(match role {
        Role::Viewer => &[SEE],
        Role::Editor => &[SEE, EDIT],
        Role::Granter => &[SEE, GRANT],
        Role::NodeAdmin => &[SEE_NODES, ADMIT],
        Role::Auditor => &[SEE, "audit.read", "operator.list"],
        Role::Admin => &[SEE, EDIT, GRANT, ADMIT, ADMINISTER, OPERATORS, "audit.read"],
    })
}

/// What a role that somebody has everywhere may do with what belongs to no environment.
pub(crate) fn in_no_environment(role: Role) -> Vec<&'static str> {
    words(match role {
        Role::Viewer | Role::Editor | Role::Granter => &["manager.metrics"],
        Role::NodeAdmin => &[],
        Role::Auditor => &[OVERSEE, "audit.read"],
        Role::Admin => &[OVERSEE, MANAGE, OPERATORS, "audit.read"],
    })
}

/// The words of several lists.
pub(crate) fn words(lists: &[&'static str]) -> Vec<&'static str> {
    lists.iter().flat_map(|list| list.split_whitespace()).collect()
}
