mod explain;
#[cfg(feature = "manager")]
mod offline;

use clap::Subcommand;
use secretfs_wire::api::{Policy, PolicyEffect};

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
    #[command(after_help = explain::EXAMPLE)]
    Explain(Box<explain::ExplainArgs>),
    /// List the policies that count at the manager
    #[command(after_help = "Example:\n  secretfs policy ls --json")]
    Ls,
}

pub(super) async fn run(command: PolicyCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    match command {
        #[cfg(feature = "manager")]
        PolicyCommand::Check(args) => offline::check(args, global, file),
        #[cfg(feature = "manager")]
        PolicyCommand::Test(args) => offline::test(args, global, file),
        #[cfg(feature = "manager")]
        PolicyCommand::Show(args) => offline::show(&args, global),
        PolicyCommand::Explain(args) => explain::explain(*args, global, &Operator::new(global, &file)?).await,
        PolicyCommand::Ls => list(global, &Operator::new(global, &file)?).await,
    }
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
