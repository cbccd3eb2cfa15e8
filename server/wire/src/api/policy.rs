use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::audit::Object;
use crate::{Action, EnvironmentName, KeyFingerprint, Labels, Role, Selector};

/// The policies that a manager decides by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoliciesInForce {
    /// Each of them, by id.
    pub policies: Vec<Policy>,
    /// Why the files that are there now do not count: one of them is wrong. Those from before do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Policy {
    /// Its id, by which decisions and the audit log name it.
    pub id: String,
    /// What it does when it applies.
    pub effect: PolicyEffect,
    /// The file that it is in, of the organisation's own; none of one that ships with the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its text.
    pub text: String,
}

/// What a policy does when it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PolicyEffect {
    /// It may be done, unless another one forbids it.
    Permit,
    /// It may not be done, whatever others say.
    Forbid,
}

/// Asks whether an operator may do something, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explain {
    /// What.
    pub action: Action,
    /// In which environment, if in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// On what. It need not exist.
    #[serde(default, skip_serializing_if = "Object::is_empty")]
    pub object: Object,
    /// What such a call would say beside.
    #[serde(default, skip_serializing_if = "Facts::is_empty")]
    pub facts: Facts,
    /// From which address; from that of this request if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
}

/// What a call says beside the names of what it is about, as far as policies look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Facts {
    /// The roles that an operator is given or loses.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<Role>,
    /// The labels that a node is given, by a token or by name.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The labels of the nodes that a service is assigned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Whether a node that joins with a token waits for an operator's approval.
    #[serde(default, skip_serializing_if = "is_false")]
    pub approval: bool,
    /// What the fingerprint of a node has to be that is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub fingerprint: Option<KeyFingerprint>,
}

impl Facts {
    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

const fn is_false(said: &bool) -> bool {
    !*said
}

/// Whether an operator may do something, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// Whether it may be done.
    pub allowed: bool,
    /// The policies that decided. None if it is denied because nothing permits it.
    pub policies: Vec<String>,
    /// What could not be decided, and by which policy. A forbid among them counts as one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}
