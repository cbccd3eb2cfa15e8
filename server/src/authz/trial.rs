//! Policies without a manager: are they valid, and do they decide as they are meant to?

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use secretfs_wire::api::Facts;
use secretfs_wire::audit::Object;
use secretfs_wire::{Action, EnvironmentName, Grant, NodeId, NodeName, OperatorName};
use serde::{Deserialize, Serialize};

use super::{Authorizer, PolicyError, Resource};
use crate::authn::{Identity, NodeIdentity, OperatorIdentity};
use crate::error::chain;

/// The built-in policies together with those of a directory, to be tried.
pub struct PolicyTrial(Authorizer);

/// Questions with the answers that are expected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyCases {
    /// Each question.
    pub case: Vec<PolicyCase>,
}

/// One question with the answer that is expected. It is asked by an operator with these grants, or by a
/// node on its own behalf.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyCase {
    /// What it shows.
    #[serde(default)]
    pub name: Option<String>,
    /// The operator that asks.
    #[serde(default)]
    pub operator: Option<OperatorName>,
    /// The operator's roles.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// The node that asks, where it is none.
    #[serde(default)]
    pub node: Option<CaseNode>,
    /// What for.
    pub action: Action,
    /// In which environment.
    #[serde(default)]
    pub environment: Option<EnvironmentName>,
    /// On what.
    #[serde(default)]
    pub object: Object,
    /// What such a call says beside.
    #[serde(default)]
    pub facts: Facts,
    /// From which address [default: 127.0.0.1].
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The answer that is expected.
    pub expect: Expected,
    /// A policy that has to be among those that decide.
    #[serde(default)]
    pub policy: Option<String>,
}

/// A node that asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseNode {
    /// The environment that it joined.
    pub environment: EnvironmentName,
    /// Its name.
    pub name: NodeName,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// It may be done.
    Allow,
    /// It may not.
    Deny,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseOutcome {
    /// What the case shows.
    pub name: String,
    /// What was expected.
    pub expected: Expected,
    /// What was answered; `None` if it could not be asked.
    pub answered: Option<Expected>,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// What could not be decided, or why it could not be asked.
    pub errors: Vec<String>,
    /// Whether it was as expected.
    pub passed: bool,
}

/// The schema that policies are checked against, in Cedar's form.
pub const fn policy_schema() -> &'static str {
    super::SCHEMA
}

/// The policies that ship with the manager, by file name.
pub const fn builtin_policies() -> &'static [(&'static str, &'static str)] {
    &super::BUILTIN
}

impl PolicyTrial {
    /// Takes the policies of a directory, or the built-in ones alone.
    ///
    /// # Errors
    /// When the directory cannot be read, or one of its policies is wrong.
    pub fn open(directory: Option<&Path>) -> Result<Self, PolicyError> {
        Authorizer::open(directory).map(Self)
    }

    /// How many policies there are, the built-in ones too.
    pub fn policies(&self) -> usize {
        self.0.in_force().policies.len()
    }

    /// How many policies there are beside the built-in ones.
    pub fn own_policies(&self) -> usize {
        self.0.in_force().policies.iter().filter(|policy| policy.file.is_some()).count()
    }

    /// Asks one question.
    pub fn ask(&self, case: &PolicyCase) -> CaseOutcome {
        let identity = case.identity();
        let who = identity.as_ref().map(ToString::to_string).unwrap_or_default();
        let outcome = CaseOutcome {
            name: case.name.clone().unwrap_or_else(|| format!("{who} {}", case.action)),
            expected: case.expect,
            answered: None,
            policies: Vec::new(),
            errors: Vec::new(),
            passed: false,
        };
        let Some(identity) = identity else {
            let problem = "the case names neither an operator nor a node that asks".to_owned();
            return CaseOutcome { errors: vec![problem], ..outcome };
        };
        let PolicyCase { environment, object, facts, .. } = case.clone();
        let resource = self.0.resource(case.action, Resource { environment, object, facts });
        let address = case.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        match self.0.decide(&identity, case.action, &resource, address) {
            Ok(decision) => {
                let answered = if decision.is_allowed() { Expected::Allow } else { Expected::Deny };
                let names_it = case.policy.as_ref().is_none_or(|policy| decision.policies.contains(policy));
                CaseOutcome {
                    answered: Some(answered),
                    passed: answered == case.expect && names_it,
                    policies: decision.policies,
                    errors: decision.errors,
                    ..outcome
                }
            }
            Err(error) => CaseOutcome { errors: vec![chain(&error)], ..outcome },
        }
    }
}

impl PolicyCase {
    fn identity(&self) -> Option<Identity> {
        let operator = self.operator.clone();
        let operator = operator
            .map(|name| Identity::Operator(OperatorIdentity { name, id: None, grants: self.grants.clone() }));
        let node = self.node.clone().map(|CaseNode { environment, name }| {
            Identity::Node(NodeIdentity { id: NodeId::random(), environment, name })
        });
        operator.or(node)
    }
}
