//! Who may do what. Policies decide, in Cedar's language: those that ship with the manager, one file for
//! each role, and the organisation's own. What no policy permits is denied, and a forbid wins.
//!
//! Each route states its [`Action`], and each request is decided about here before it reaches a handler.

mod context;
mod denial;
mod entities;
mod follow;
mod model;
mod own;
mod resource;
#[cfg(test)]
pub(crate) mod tests;
mod text;
pub(crate) mod trial;

use std::net::IpAddr;
use std::path::Path;

use arc_swap::ArcSwap;
use cedar_policy::{Authorizer as Engine, Effect, PolicyId, PolicySet};
use secretfs_wire::api::{PoliciesInForce, Policy, PolicyEffect};
use secretfs_wire::{Action, OperatorName};
use tokio::sync::watch;

use crate::authn::Identity;
use crate::error::{Cause, Error};

pub use text::PolicyError;

pub(crate) use denial::Denial;
pub(crate) use model::{BUILTIN, SCHEMA};
pub(crate) use resource::Resource;

use entities::Question;
use model::Model;
use own::OwnPolicies;

/// Decides about every request.
pub(crate) struct Authorizer {
    model: &'static Model,
    engine: Engine,
    policies: ArcSwap<Policies>,
    /// Told each time when other policies count.
    changes: watch::Sender<()>,
}

/// The policies that count at one moment.
#[derive(Clone)]
struct Policies {
    all: PolicySet,
    /// All of them for people, by id.
    described: Vec<Policy>,
    own: OwnPolicies,
    /// Why those that are there now do not count.
    problem: Option<String>,
}

/// What was decided about a request, and by which policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The answer.
    pub(crate) verdict: Verdict,
    /// The ids of the policies that it comes from. None of a request that nothing permits.
    pub(crate) policies: Vec<String>,
    /// What could not be decided, and by which policy. If that is a forbid, it counts as one.
    pub(crate) errors: Vec<String>,
}

/// Why there is no decision. Routes are such that there is always one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoDecision {
    #[error("{0} is recorded, and not asked for")]
    OnlyRecorded(Action),
    #[error("{action} is about {}, and this names {given}", .expected.join(" or "))]
    About { action: Action, expected: Vec<String>, given: String },
    #[error("{action} is about {missing} as well, and none is named")]
    Unstated { action: Action, missing: &'static str },
    #[error("cannot put the question to the policies")]
    Question(#[source] Cause),
}

impl From<NoDecision> for Error {
    fn from(error: NoDecision) -> Self {
        Self::internal(error)
    }
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Denied,
    /// Nothing of this kind can ask for it, whatever the policies are.
    WrongCaller(&'static str),
    /// It takes a certificate.
    Unauthenticated,
}

impl Authorizer {
    /// One with the policies that ship with the manager, and those of a directory.
    ///
    /// # Errors
    /// When one of those is wrong: without a forbid that somebody wrote, doors would be open.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Self, PolicyError> {
        let own = directory.map(OwnPolicies::read).transpose()?.unwrap_or_default();
        let model = Model::get();
        let policies = ArcSwap::from_pointee(Policies::new(model, own)?);
        Ok(Self { model, engine: Engine::new(), policies, changes: watch::Sender::new(()) })
    }

    /// The policies that count now.
    pub(crate) fn in_force(&self) -> PoliciesInForce {
        let policies = self.policies.load();
        PoliciesInForce { policies: policies.described.clone(), problem: policies.problem.clone() }
    }

    /// Hears when other policies count: whoever was let in for long has to be decided about anew. What
    /// counts from before this call on is not told.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The policy that speaks of an operator by name, if one does.
    pub(crate) fn policy_that_names(&self, operator: &OperatorName) -> Option<String> {
        let named = model::uid(&self.model.types.operator, operator);
        let policies = self.policies.load();
        let mut speaking = policies.all.policies().filter(|policy| policy.entity_literals().contains(&named));
        speaking.next().map(|policy| policy.id().to_string())
    }

    /// Decides whether somebody may do something, from somewhere.
    ///
    /// # Errors
    /// When there is no such question: the action is not one that can be asked for about this resource.
    pub(crate) fn decide(
        &self,
        identity: &Identity,
        action: Action,
        resource: &Resource,
        address: IpAddr,
    ) -> Result<Decision, NoDecision> {
        let described = self.model.action(action).ok_or(NoDecision::OnlyRecorded(action))?;
        if let Some(verdict) = described.callers.refuse(identity) {
            return Ok(Decision { verdict, policies: Vec::new(), errors: Vec::new() });
        }
        let target = resource.target(identity, action);
        let given = target.type_name(&self.model.types);
        if !described.resources.contains(given) {
            let expected = described.resources.iter().map(ToString::to_string).collect();
            return Err(NoDecision::About { action, expected, given: given.to_string() });
        }
        if let Some(missing) = described.facts.iter().find_map(|fact| fact.missing(resource)) {
            return Err(NoDecision::Unstated { action, missing });
        }
        let question = Question::new(self.model, identity, described, &target, resource, address)
            .map_err(NoDecision::Question)?;
        Ok(self.ask(&question))
    }

    /// What somebody is told who can never ask for an action, whatever it is about.
    pub(crate) fn refusal_of_caller(&self, identity: &Identity, action: Action) -> Option<Error> {
        let verdict = self.model.action(action)?.callers.refuse(identity)?;
        Decision { verdict, policies: Vec::new(), errors: Vec::new() }.refusal(
            identity,
            action,
            &Resource::default(),
        )
    }

    /// What an action would be about that somebody only asks about, in an environment or in none.
    pub(crate) fn resource(&self, action: Action, stated: Resource) -> Resource {
        match self.model.action(action) {
            Some(described) => stated.for_action(described, &self.model.types),
            None => stated,
        }
    }

    fn ask(&self, question: &Question) -> Decision {
        let policies = self.policies.load();
        let response = self.engine.is_authorized(&question.request, &policies.all, &question.entities);
        let said = response.diagnostics();
        let mut allowed = response.decision() == cedar_policy::Decision::Allow;
        let mut decided: Vec<String> = said.reason().map(ToString::to_string).collect();
        let mut errors = Vec::new();
        for error in said.errors() {
            errors.push(error.to_string());
            let cedar_policy::AuthorizationError::PolicyEvaluationError(failed) = error;
            if !policies.is_permit(failed.policy_id()) {
                // The engine passes over it. Nobody knows whether it forbids this, so it does.
                if std::mem::take(&mut allowed) {
                    decided.clear();
                }
                decided.push(failed.policy_id().to_string());
            }
        }
        decided.sort_unstable();
        errors.sort_unstable();
        let verdict = if allowed { Verdict::Allowed } else { Verdict::Denied };
        Decision { verdict, policies: decided, errors }
    }
}

impl Policies {
    /// Own policies and those that ship with the manager.
    ///
    /// # Errors
    /// When one is wrong.
    fn new(model: &Model, own: OwnPolicies) -> Result<Self, PolicyError> {
        let mut all = model.builtin.clone();
        let mut described: Vec<Policy> = all.policies().map(|policy| describe(policy, None)).collect();
        for (file, text) in own.files() {
            for policy in model.parse(file, text)?.policies() {
                described.push(describe(policy, Some(file)));
                all.add(policy.clone()).map_err(|_| {
                    PolicyError::new(file, None, format!("@id(\"{}\"): another file has it too", policy.id()))
                })?;
            }
        }
        described.sort_by(|a, b| (&a.file, &a.id).cmp(&(&b.file, &b.id)));
        Ok(Self { all, described, own, problem: None })
    }

    fn is_permit(&self, id: &PolicyId) -> bool {
        self.all.policy(id).is_some_and(|policy| policy.effect() == Effect::Permit)
    }
}

fn describe(policy: &cedar_policy::Policy, file: Option<&str>) -> Policy {
    let effect = match policy.effect() {
        Effect::Permit => PolicyEffect::Permit,
        Effect::Forbid => PolicyEffect::Forbid,
    };
    Policy { id: policy.id().to_string(), effect, file: file.map(str::to_owned), text: policy.to_string() }
}

impl Decision {
    /// Whether it may be done.
    pub(crate) fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allowed
    }

    /// What the caller is told, unless it may be done. It does not say whether the thing exists.
    pub(crate) fn refusal(&self, identity: &Identity, action: Action, resource: &Resource) -> Option<Error> {
        match self.verdict {
            Verdict::Allowed => None,
            Verdict::Unauthenticated => Some(Error::Unauthenticated("this call needs a client certificate")),
            Verdict::WrongCaller(caller) => Some(Error::Denied { caller }),
            Verdict::Denied => {
                let denial = Denial::new(identity, action, resource, &self.policies);
                Some(Error::NotAllowed(Box::new(denial)))
            }
        }
    }
}
