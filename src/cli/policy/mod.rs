#[cfg(feature = "manager")]
mod offline;

use std::net::IpAddr;

use clap::{Args, Subcommand};
use secretfs_wire::api::{Explain, Explanation, Policy, PolicyEffect};
use secretfs_wire::audit::Object;
use secretfs_wire::{Action, KeyName, NodeName, OperatorName, SecretName, ServiceName};

use super::config::ConfigFile;
use super::connect::Operator;
use super::error::Failure;
use super::{Global, output};

/// Who may do what.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Check policies before a manager gets them, against the schema of this version
    #[cfg(feature = "manager")]
    #[command(after_help = offline::CHECK_EXAMPLE)]
    Check(offline::CheckArgs),
    /// Try policies: each case of a file says who asks for what, and what the answer has to be
    #[cfg(feature = "manager")]
    #[command(after_help = offline::TEST_EXAMPLE)]
    Test(offline::TestArgs),
    /// Print the policies that ship with the manager, and the schema, to begin from
    #[cfg(feature = "manager")]
    #[command(after_help = offline::SHOW_EXAMPLE)]
    Show(offline::ShowArgs),
    /// Ask the manager whether an operator may do something, and which policies decide
    #[command(
        after_help = "Examples:\n  secretfs policy explain -e prod secret.rotate --secret db_password\n  \
        secretfs policy explain -e prod service.attach --service web --operator alice --address 10.1.2.3"
    )]
    Explain(ExplainArgs),
    /// List the policies that count at the manager
    #[command(after_help = "Example:\n  secretfs policy ls --json")]
    Ls,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// What, such as secret.rotate
    action: Action,
    /// Who would do it [default: you]
    #[arg(long, value_name = "OPERATOR")]
    operator: Option<OperatorName>,
    /// On which secret; it need not exist
    #[arg(long)]
    secret: Option<SecretName>,
    /// On which service
    #[arg(long)]
    service: Option<ServiceName>,
    /// On which node
    #[arg(long)]
    node: Option<NodeName>,
    /// On which key
    #[arg(long)]
    key: Option<KeyName>,
    /// From which address [default: yours]
    #[arg(long)]
    address: Option<IpAddr>,
}

pub(super) async fn run(command: PolicyCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    match command {
        #[cfg(feature = "manager")]
        PolicyCommand::Check(args) => offline::check(args, global, file),
        #[cfg(feature = "manager")]
        PolicyCommand::Test(args) => offline::test(args, global, file),
        #[cfg(feature = "manager")]
        PolicyCommand::Show(args) => offline::show(&args, global),
        PolicyCommand::Explain(args) => explain(args, global, &Operator::new(global, &file)?).await,
        PolicyCommand::Ls => list(global, &Operator::new(global, &file)?).await,
    }
}

async fn explain(args: ExplainArgs, global: &Global, operator: &Operator) -> Result<(), Failure> {
    let ExplainArgs { action, operator: about, secret, service, node, key, address } = args;
    let object = Object { secret, service, node, key, ..Object::NONE };
    let environment = operator.environment_name().cloned();
    let asked = Explain { action, environment, object, address };
    let explanation = operator.client.explain(about.as_ref(), &asked).await?;
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

async fn list(global: &Global, operator: &Operator) -> Result<(), Failure> {
    let in_force = operator.client.policies().await?;
    match global.json {
        true => output::json(&in_force)?,
        false => output::listing(global, ["ID", "EFFECT", "FILE"], &in_force.policies, row)?,
    }
    match in_force.problem {
        Some(problem) => {
            Err(Failure::failed(format!("the policies that are there now do not count: {problem}"))
                .hint("mend that file; until then those that are listed count"))
        }
        None => Ok(()),
    }
}

fn row(policy: &Policy) -> [String; 3] {
    let effect = match policy.effect {
        PolicyEffect::Permit => "permit",
        PolicyEffect::Forbid => "forbid",
    };
    [policy.id.clone(), effect.to_owned(), output::or_dash(policy.file.clone().unwrap_or_default())]
}
