//! Asking the manager why.

use std::net::IpAddr;

use clap::Args;
use secretfs_wire::api::{Explain, Explanation, Facts};
use secretfs_wire::audit::Object;
use secretfs_wire::{
    Action, KeyFingerprint, KeyName, Labels, NodeName, OperatorName, Role, SecretName, Selector, ServiceName,
};

use crate::cli::choice::one_of;
use crate::cli::connect::{Operator, ScopeArgs};
use crate::cli::error::Failure;
use crate::cli::{Global, labels, output};

pub(super) const EXAMPLE: &str = "Examples:\n  \
    secretfs policy explain -e prod secret.rotate --secret db_password\n  \
    secretfs policy explain -e prod service.attach --service web --secret db_password --as alice\n  \
    secretfs policy explain --all-environments operator.grant --operator bob --role admin --address 10.1.2.3";

#[derive(Debug, Args)]
pub(in crate::cli) struct ExplainArgs {
    /// What
    #[arg(value_parser = one_of::<Action>(Action::ALL.iter().map(|action| action.as_str())))]
    action: Action,
    /// Who would do it [default: you]
    #[arg(long = "as", value_name = "OPERATOR")]
    asker: Option<OperatorName>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    object: ObjectArgs,
    #[command(flatten)]
    facts: FactsArgs,
    /// From which address [default: yours]
    #[arg(long)]
    address: Option<IpAddr>,
}

/// What it is about. Nothing of it need exist.
#[derive(Debug, Args)]
struct ObjectArgs {
    /// About which secret; it need not exist
    #[arg(long)]
    secret: Option<SecretName>,
    /// About which service
    #[arg(long)]
    service: Option<ServiceName>,
    /// About which node
    #[arg(long)]
    node: Option<NodeName>,
    /// About which key
    #[arg(long)]
    key: Option<KeyName>,
    /// About which operator
    #[arg(long)]
    operator: Option<OperatorName>,
}

/// What such a call says beside.
#[derive(Debug, Args)]
struct FactsArgs {
    /// A role that the operator would get or lose; may be given several times
    #[arg(long = "role", value_name = "ROLE", value_parser = one_of::<Role>(Role::ALL.map(Role::as_str)))]
    roles: Vec<Role>,
    /// A label that the node would get; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Labels>,
    /// The labels of the nodes that the service would be assigned to
    #[arg(long, value_name = "KEY=VALUE")]
    selector: Option<Selector>,
    /// That the token would demand approval
    #[arg(long)]
    approval: bool,
    /// The fingerprint that the node would have to have
    #[arg(long)]
    fingerprint: Option<KeyFingerprint>,
}

pub(super) async fn explain(args: ExplainArgs, global: &Global, operator: &Operator) -> Result<(), Failure> {
    let ExplainArgs { action, asker, scope, object, facts, address } = args;
    let ObjectArgs { secret, service, node, key, operator: whom } = object;
    let object = Object { secret, service, node, key, operator: whom, ..Object::NONE };
    let FactsArgs { roles, labels, selector, approval, fingerprint } = facts;
    let (roles, labels) = (roles.into_iter().collect(), labels::merge(&labels)?);
    let facts = Facts { roles, labels, selector, approval, fingerprint };
    let environment = operator.scope(&scope).cloned();
    let asked = Explain { action, environment, object, facts, address };
    let explanation = operator.client.explain(asker.as_ref(), &asked).await?;
    Ok(output::one(global, &explanation, &describe(&explanation))?)
}

fn describe(explanation: &Explanation) -> String {
    let Explanation { allowed, policies, errors } = explanation;
    let mut lines = vec![match (allowed, policies.is_empty()) {
        (true, _) => format!("allowed by {}", policies.join(", ")),
        (false, false) => format!("forbidden by {}", policies.join(", ")),
        (false, true) => "denied: no policy permits it".to_owned(),
    }];
    lines.extend(errors.iter().map(|error| format!("not evaluated: {error}")));
    lines.join("\n")
}
