//! What can be done, in one word each: what a route does, what policies speak of, and what the audit
//! log says was done.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A word that is no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no action")]
pub struct UnknownAction(String);

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What is done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum Action {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Action {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The action's word, such as `secret.rotate`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

actions! {
    /// Reads how the manager does.
    ManagerHealth = "manager.health",
    /// Reads the manager's metrics.
    ManagerMetrics = "manager.metrics",
    /// Reads the description of the API.
    ManagerDescribe = "manager.describe",

    /// Lists environments; each is shown to who may see into it.
    EnvironmentList = "environment.list",
    /// Sees an environment among others.
    EnvironmentSee = "environment.see",
    /// Creates an environment.
    EnvironmentCreate = "environment.create",
    /// Removes an empty environment.
    EnvironmentRemove = "environment.remove",

    /// Lists the keys of all environments.
    KeyList = "key.list",
    /// Imports a local key.
    KeyImport = "key.import",
    /// Makes a new version of an environment's key.
    KeyRotate = "key.rotate",
    /// Gives an environment another key.
    KeyMigrate = "key.migrate",
    /// Wraps data keys under the newest version.
    KeyRewrap = "key.rewrap",
    /// Retires versions that nothing uses.
    KeyRetire = "key.retire",

    /// Lists secrets.
    SecretList = "secret.list",
    /// Creates a secret.
    SecretCreate = "secret.create",
    /// Shows a secret's versions and use, no value.
    SecretInspect = "secret.inspect",
    /// Removes a secret.
    SecretRemove = "secret.remove",
    /// Gives a secret a new version.
    SecretRotate = "secret.rotate",
    /// Makes an earlier version current.
    SecretRollback = "secret.rollback",

    /// Lists services.
    ServiceList = "service.list",
    /// Creates a service.
    ServiceCreate = "service.create",
    /// Shows a service's attachments and assignments.
    ServiceInspect = "service.inspect",
    /// Removes a service.
    ServiceRemove = "service.remove",
    /// Attaches a secret to a service.
    ServiceAttach = "service.attach",
    /// Takes a secret from a service.
    ServiceDetach = "service.detach",
    /// Has a service run on nodes.
    ServiceAssign = "service.assign",
    /// Has it run there no longer.
    ServiceUnassign = "service.unassign",

    /// Shows a template's text.
    TemplateShow = "template.show",
    /// Sets a template.
    TemplateSet = "template.set",
    /// Removes a template.
    TemplateRemove = "template.remove",

    /// Lists nodes.
    NodeList = "node.list",
    /// Shows a node.
    NodeInspect = "node.inspect",
    /// Removes a node.
    NodeRemove = "node.remove",
    /// Lets a node that waits be served.
    NodeApprove = "node.approve",
    /// Refuses a node from now on.
    NodeRevoke = "node.revoke",
    /// Changes a node's labels.
    NodeLabel = "node.label",
    /// Lists join tokens.
    TokenList = "token.list",
    /// Makes a join token.
    TokenCreate = "token.create",
    /// Withdraws a join token.
    TokenRemove = "token.remove",

    /// Lists operators and their roles.
    OperatorList = "operator.list",
    /// Adds an operator, with roles from the start.
    OperatorAdd = "operator.add",
    /// Refuses an operator from now on.
    OperatorRemove = "operator.remove",
    /// Gives an operator a role.
    OperatorGrant = "operator.grant",
    /// Takes a role from an operator.
    OperatorUngrant = "operator.ungrant",
    /// Makes an enrolment token for an operator who is there.
    OperatorEnroll = "operator.enroll",
    /// Somebody logs in with an enrolment token.
    OperatorLogin = "operator.login",
    /// An operator renews their own certificate.
    OperatorRenew = "operator.renew",
    /// An operator sees who they are and what roles they have.
    OperatorShow = "operator.show",

    /// Shows the policies that count.
    PolicyShow = "policy.show",
    /// Says whether an operator may do something, and why.
    PolicyExplain = "policy.explain",

    /// A host joins.
    NodeJoin = "node.join",
    /// A node opens a session for envelopes.
    NodeSession = "node.session",
    /// A node follows changes.
    NodeFollow = "node.follow",
    /// A node is given a version of a secret.
    NodeFetch = "node.fetch",
    /// A node renews its certificate.
    NodeRenew = "node.renew",
    /// A node reports which versions it uses.
    NodeReport = "node.report",
    /// A node tells what was opened.
    NodeAudit = "node.audit",
    /// Two daemons speak as one node.
    NodeDuplicate = "node.duplicate",

    /// A program opens a file at a node.
    FileOpen = "file.open",
    /// A node had no room to keep what was opened.
    FileLost = "file.lost",

    /// Reads the audit log, as a whole or of an environment.
    AuditRead = "audit.read",
    /// Gives the audit log another key to be signed with.
    AuditRotate = "audit.rotate",
    /// A chain of audit records begins.
    AuditBegin = "audit.begin",
    /// The audit log could not be written, so that what should have been recorded was refused.
    AuditGap = "audit.gap",

    /// A manager begins to serve.
    ManagerStart = "manager.start",
    /// A manager ends.
    ManagerStop = "manager.stop",
    /// A manager's seal is opened.
    ManagerUnlock = "manager.unlock",
    /// A manager's root key is sealed anew.
    ManagerRekey = "manager.rekey",
    /// Somebody asks or fails too often, and is answered nothing else for a while.
    CallerLimit = "caller.limit",
    /// A stored version does not open in the place where it is.
    SecretDamaged = "secret.damaged",
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = UnknownAction;
    fn from_str(word: &str) -> Result<Self, UnknownAction> {
        let found = Self::ALL.iter().find(|action| action.as_str() == word);
        found.copied().ok_or_else(|| UnknownAction(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_action_has_a_word_of_its_own() {
        let words: BTreeSet<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
        assert_eq!(words.len(), Action::ALL.len());
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(*action));
        }
        assert!("secret.read".parse::<Action>().is_err());
    }
}
