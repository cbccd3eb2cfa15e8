//! Who asks. A certificate is checked by the TLS layer once; whether the manager still honours it is
//! asked at each request, so that a revocation holds at once on connections that are open.

use jiff::Timestamp;
use secretfs_wire::api::NodeState;
use secretfs_wire::audit::Actor;
use secretfs_wire::{Action, EnvironmentName, Grant, NodeId, NodeName, OperatorId, OperatorName};

use crate::ca::{PeerCertificate, Subject};
use crate::error::Error;
use crate::store::Store;

/// Who asks, as far as the manager honours it at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// There is no client certificate.
    Anonymous,
    Node(NodeIdentity),
    Operator(OperatorIdentity),
}

/// An operator, and what roles the operator has at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperatorIdentity {
    pub(crate) name: OperatorName,
    /// None of a first operator from before there were ids, and of one who is only asked about.
    pub(crate) id: Option<OperatorId>,
    pub(crate) grants: Vec<Grant>,
}

/// A node that is served, or that renews its certificate while it waits to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeIdentity {
    pub(crate) id: NodeId,
    pub(crate) environment: EnvironmentName,
    pub(crate) name: NodeName,
}

impl Identity {
    /// Looks up whom a certificate names, who asks for something.
    pub(crate) async fn of(
        peer: Option<PeerCertificate>,
        action: Action,
        store: &dyn Store,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let Some(peer) = peer else { return Ok(Self::Anonymous) };
        if peer.not_after <= now {
            return Err(Error::Unauthenticated("the client certificate has expired"));
        }
        match peer.subject {
            Subject::Operator { name, id } => match store.operator_grants(&name, id).await? {
                Some(grants) => Ok(Self::Operator(OperatorIdentity { name, id, grants })),
                None => Err(Error::Unauthenticated(
                    "this operator is not known here, or has logged in anew elsewhere",
                )),
            },
            Subject::Node { environment, name, id } => {
                match store.node_state(&environment, &name, id).await? {
                    Some(NodeState::Active) => Ok(Self::Node(NodeIdentity { id, environment, name })),
                    // It may have to wait for longer than its certificate is good.
                    Some(NodeState::Pending) if action == Action::NodeRenew => {
                        Ok(Self::Node(NodeIdentity { id, environment, name }))
                    }
                    Some(NodeState::Pending) => Err(Error::PendingApproval),
                    Some(NodeState::Revoked) | None => {
                        Err(Error::Unauthenticated("this node is revoked or removed"))
                    }
                }
            }
        }
    }
}

impl Identity {
    /// As the audit log names it.
    pub(crate) fn actor(&self) -> Actor {
        match self {
            Self::Anonymous => Actor::Anonymous,
            Self::Operator(OperatorIdentity { name, id, .. }) => {
                Actor::Operator { name: name.clone(), id: *id }
            }
            Self::Node(node) => node.actor(),
        }
    }
}

impl NodeIdentity {
    /// As the audit log names it.
    pub(crate) fn actor(&self) -> Actor {
        let Self { environment, name, id } = self;
        Actor::Node { environment: environment.clone(), name: name.clone(), id: *id }
    }

    /// As its certificate names it.
    pub(crate) fn subject(&self) -> Subject {
        let Self { environment, name, id } = self;
        Subject::Node { environment: environment.clone(), name: name.clone(), id: *id }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Node(node) => write!(f, "node/{}/{}", node.environment, node.name),
            Self::Operator(operator) => write!(f, "operator/{}", operator.name),
        }
    }
}
