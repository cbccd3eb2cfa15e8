//! What a call says in its body of what it is about, for a decision before any handler has it.

use std::time::Duration;

use axum::body::Body;
use http::HeaderMap;
use secretfs_wire::Action;
use secretfs_wire::api::{AddOperator, ApproveNode, Assignment, Attach, ChangeLabels, CreateToken};
use serde::de::DeserializeOwned;

use crate::api::body::{self, JSON_MAX_BYTES};
use crate::authz::Resource;
use crate::error::Error;

/// A body that says something of what its call is about.
trait States: DeserializeOwned {
    /// Adds it to what the path says.
    fn state(self, resource: &mut Resource);
}

/// How that is read from a body's bytes.
type Read = fn(&[u8], &mut Resource) -> Result<(), Error>;

fn read<T: States>(bytes: &[u8], resource: &mut Resource) -> Result<(), Error> {
    body::parse::<T>(bytes).map(|stated| stated.state(resource))
}

/// The actions whose bodies do. A handler takes the same type of the same bytes.
const fn of(action: Action) -> Option<Read> {
    match action {
        Action::OperatorAdd => Some(read::<AddOperator>),
        Action::ServiceAttach => Some(read::<Attach>),
        Action::ServiceAssign => Some(read::<Assignment>),
        Action::TokenCreate => Some(read::<CreateToken>),
        Action::NodeLabel => Some(read::<ChangeLabels>),
        Action::NodeApprove => Some(read::<ApproveNode>),
        _ => None,
    }
}

/// Completes what a call is about by its body, which is read once for that and handed on.
///
/// # Errors
/// When the body is not what the call takes: nothing is decided about it.
pub(super) async fn complete(
    action: Action,
    mut resource: Resource,
    headers: &HeaderMap,
    body: Body,
    within: Duration,
) -> Result<(Resource, Body), Error> {
    let Some(read) = of(action) else { return Ok((resource, body)) };
    let mut bytes = body::json(headers, body, JSON_MAX_BYTES, within).await?;
    read(&bytes, &mut resource)?;
    Ok((resource, std::mem::take(&mut *bytes).into()))
}

impl States for AddOperator {
    fn state(self, resource: &mut Resource) {
        resource.facts.roles.extend(self.roles);
    }
}

impl States for Attach {
    fn state(self, resource: &mut Resource) {
        resource.object.secret = Some(self.secret);
    }
}

impl States for Assignment {
    fn state(self, resource: &mut Resource) {
        match self {
            Self::Node(node) => resource.object.node = Some(node),
            Self::Selector(selector) => resource.facts.selector = Some(selector),
        }
    }
}

impl States for CreateToken {
    fn state(self, resource: &mut Resource) {
        (resource.facts.labels, resource.facts.approval) = (self.labels, self.approval);
        resource.object.node = self.name;
    }
}

impl States for ChangeLabels {
    fn state(self, resource: &mut Resource) {
        resource.facts.labels = self.set;
    }
}

impl States for ApproveNode {
    fn state(self, resource: &mut Resource) {
        resource.facts.fingerprint = self.fingerprint;
    }
}
