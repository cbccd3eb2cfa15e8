//! What somebody is told who may not do something. It is the same whether the thing exists or not.

use std::fmt;

use secretfs_wire::Action;

use super::Resource;
use crate::authn::Identity;

/// That somebody may not do something, and by which policies, if any forbids it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    caller: Caller,
    action: Action,
    resource: Resource,
    forbidden_by: Vec<String>,
}

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Anonymous,
    Node,
    Operator,
}

impl Denial {
    pub(super) fn new(
        identity: &Identity,
        action: Action,
        resource: &Resource,
        forbidden_by: &[String],
    ) -> Self {
        let caller = match identity {
            Identity::Anonymous => Caller::Anonymous,
            Identity::Node(_) => Caller::Node,
            Identity::Operator(_) => Caller::Operator,
        };
        Self { caller, action, resource: resource.clone(), forbidden_by: forbidden_by.to_vec() }
    }

    /// What to do next, for who can ask why.
    pub(crate) fn hint(&self) -> Option<String> {
        let why = format!("`{}` says why", self.question());
        match (self.caller, &self.forbidden_by[..]) {
            (Caller::Anonymous | Caller::Node, _) => None,
            (Caller::Operator, []) => Some(format!("it takes a role that allows it; {why}")),
            (Caller::Operator, _) => Some(why),
        }
    }

    /// The command that asks the manager about this very call. Names and labels need no quoting in a shell.
    fn question(&self) -> String {
        let Resource { environment, object, facts } = &self.resource;
        let mut question = format!("secretfs policy explain {}", self.action);
        match environment {
            Some(environment) => question.push_str(&format!(" -e {environment}")),
            None => question.push_str(" --all-environments"),
        }
        let mut add = |flag: &str, value: Option<&dyn fmt::Display>| {
            question.extend(value.map(|value| format!(" --{flag} {value}")));
        };
        add("secret", object.secret.as_ref().map(|name| name as _));
        add("service", object.service.as_ref().map(|name| name as _));
        add("node", object.node.as_ref().map(|name| name as _));
        add("key", object.key.as_ref().map(|name| name as _));
        add("operator", object.operator.as_ref().map(|name| name as _));
        for role in &facts.roles {
            add("role", Some(role));
        }
        add("label", (!facts.labels.is_empty()).then_some(&facts.labels as _));
        add("selector", facts.selector.as_ref().map(|selector| selector as _));
        add("fingerprint", facts.fingerprint.as_ref().map(|fingerprint| fingerprint as _));
        if facts.approval {
            question.push_str(" --approval");
        }
        question
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.caller, &self.forbidden_by[..]) {
            (_, []) => f.write_str("no policy allows")?,
            // A stranger is told no names.
            (Caller::Anonymous, _) => f.write_str("a policy forbids")?,
            (_, [policy]) => write!(f, "policy {policy} forbids")?,
            (_, policies) => write!(f, "policies {} forbid", policies.join(", "))?,
        }
        let caller = match self.caller {
            Caller::Anonymous => "a caller without a certificate",
            Caller::Node => "this node",
            Caller::Operator => "this operator",
        };
        write!(f, " {caller} {}", self.action)?;
        match &self.resource.environment {
            Some(environment) => write!(f, " in environment {environment}"),
            None => Ok(()),
        }
    }
}
