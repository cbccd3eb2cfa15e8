//! Who may do what. Each route states its [`Action`]; there is no route without one.

use secretfs_wire::Action;

use crate::authn::Identity;
use crate::error::Error;

/// Who may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever has a join token: the one call without a client certificate.
    Join,
    /// A node, on its own behalf. Its environment and name are those of its certificate.
    Node,
    /// An operator. All may do everything until there are roles.
    Operator,
    /// Any node or operator.
    AnyIdentity,
}

impl Access {
    /// Who may do this.
    pub(crate) const fn to(action: Action) -> Self {
        match action {
            Action::NodeJoin => Self::Join,
            Action::ManagerHealth => Self::AnyIdentity,
            Action::NodeSession
            | Action::NodeFollow
            | Action::NodeFetch
            | Action::NodeRenew
            | Action::NodeReport
            | Action::NodeAudit => Self::Node,
            _ => Self::Operator,
        }
    }

    /// Lets an identity through, or says why not.
    pub(crate) fn check(self, identity: &Identity) -> Result<(), Error> {
        match (self, identity) {
            (Self::Join, _) => Ok(()),
            (_, Identity::Anonymous) => Err(Error::Unauthenticated("this call needs a client certificate")),
            (Self::AnyIdentity, _)
            | (Self::Node, Identity::Node(_))
            | (Self::Operator, Identity::Operator(_)) => Ok(()),
            (Self::Operator, Identity::Node(_)) => Err(Error::Denied { caller: "node" }),
            (Self::Node, Identity::Operator(_)) => Err(Error::Denied { caller: "operator" }),
        }
    }
}
