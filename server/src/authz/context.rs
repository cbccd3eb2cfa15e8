//! What policies can look at beside who, what and about which thing: the context of a request.

use std::net::IpAddr;

use cedar_policy::{Context, EntityUid, RestrictedExpression};
use secretfs_wire::{Action, Labels};

use super::entities::Builder;
use super::resource::{Kind, Resource};
use crate::error::Cause;

/// What the context of an action has beside the address. The schema says what it looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    Operator,
    /// At least one.
    Role,
    /// Any number.
    Roles,
    Secret,
    /// A node or a selector.
    Place,
    /// A node, or none.
    Node,
    Labels,
    Approval,
    Fingerprint,
}

impl Fact {
    /// Those of an action.
    pub(super) const fn of(action: Action) -> &'static [Self] {
        match action {
            Action::OperatorAdd => &[Self::Operator, Self::Roles],
            Action::OperatorGrant | Action::OperatorUngrant => &[Self::Operator, Self::Role],
            Action::OperatorRemove | Action::OperatorEnroll => &[Self::Operator],
            Action::ServiceAttach | Action::ServiceDetach => &[Self::Secret],
            Action::ServiceAssign => &[Self::Place],
            Action::TokenCreate => &[Self::Labels, Self::Approval, Self::Node],
            Action::NodeLabel => &[Self::Labels],
            Action::NodeApprove => &[Self::Fingerprint],
            _ => &[],
        }
    }

    /// What a resource has to name and does not. Nothing is decided about half a call.
    pub(super) fn missing(self, resource: &Resource) -> Option<&'static str> {
        let Resource { object, facts, .. } = resource;
        match self {
            Self::Operator => object.operator.is_none().then_some("an operator"),
            Self::Role => facts.roles.is_empty().then_some("a role"),
            Self::Secret => object.secret.is_none().then_some("a secret"),
            Self::Place => {
                (object.node.is_none() && facts.selector.is_none()).then_some("a node or a selector")
            }
            Self::Roles | Self::Node | Self::Labels | Self::Approval | Self::Fingerprint => None,
        }
    }
}

impl Builder<'_> {
    pub(super) fn context(
        &mut self,
        facts: &[Fact],
        resource: &Resource,
        address: IpAddr,
    ) -> Result<Context, Cause> {
        let mut pairs = vec![("address", RestrictedExpression::new_ip(address.to_string()))];
        for fact in facts {
            self.state(*fact, resource, &mut pairs)?;
        }
        Ok(Context::from_pairs(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)))?)
    }

    fn state(
        &mut self,
        fact: Fact,
        resource: &Resource,
        pairs: &mut Vec<(&'static str, RestrictedExpression)>,
    ) -> Result<(), Cause> {
        let Resource { environment, object, facts } = resource;
        match fact {
            Fact::Operator => {
                if let Some(operator) = &object.operator {
                    pairs.push(("operator", reference(self.operator(operator)?)));
                }
            }
            Fact::Role | Fact::Roles => pairs.push(("roles", texts(&facts.roles))),
            Fact::Secret => {
                if let (Some(environment), Some(secret)) = (environment, &object.secret) {
                    let secret = self.inside(environment, Kind::Secret, secret.as_str())?;
                    pairs.push(("secret", reference(secret)));
                }
            }
            Fact::Node => {
                if let (Some(environment), Some(node)) = (environment, &object.node) {
                    let node = self.inside(environment, Kind::Node, node.as_str())?;
                    pairs.push(("node", reference(node)));
                }
            }
            Fact::Place => {
                self.state(Fact::Node, resource, pairs)?;
                if let Some(selector) = &facts.selector {
                    pairs.push(("selector", labels(selector.labels())));
                }
            }
            Fact::Labels => pairs.push(("labels", labels(&facts.labels))),
            Fact::Approval => pairs.push(("approval", RestrictedExpression::new_bool(facts.approval))),
            Fact::Fingerprint => {
                if let Some(fingerprint) = &facts.fingerprint {
                    pairs.push(("fingerprint", RestrictedExpression::new_string(fingerprint.to_string())));
                }
            }
        }
        Ok(())
    }
}

fn reference(uid: EntityUid) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid)
}

fn texts<T: ToString>(texts: impl IntoIterator<Item = T>) -> RestrictedExpression {
    let texts = texts.into_iter().map(|text| RestrictedExpression::new_string(text.to_string()));
    RestrictedExpression::new_set(texts)
}

/// Labels as a command line has them: `role=web`.
fn labels(labels: &Labels) -> RestrictedExpression {
    texts(labels.iter().map(|(key, value)| format!("{key}={value}")))
}
