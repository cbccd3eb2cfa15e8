//! Operators: who they are, what roles they have, and how they get in.

use std::time::Duration;

use clap::{Args, Subcommand};
use secretfs_wire::api::{AddOperator, CreatedEnrolment, Enroll, Operator as Listed, RemovedOperator};
use secretfs_wire::{Grant, OperatorName, Role};

use super::config::ConfigFile;
use super::connect::Operator;
use super::error::Failure;
use super::{Global, output};

/// Operators and their roles: in the environment that is named, or everywhere.
#[derive(Debug, Subcommand)]
pub(super) enum OperatorCommand {
    /// Add a person or a job, and print the token that they log in with, once
    #[command(
        after_help = "Examples:\n  secretfs operator add alice --role editor --role granter -e prod\n  \
        secretfs operator add bob --role admin --all-environments"
    )]
    Add {
        /// The new operator's name
        name: OperatorName,
        #[command(flatten)]
        roles: RolesArgs,
        #[command(flatten)]
        token: TokenArgs,
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// List operators, their roles and whether they can act
    #[command(after_help = "Examples:\n  secretfs operator ls\n  secretfs operator ls -e prod --json")]
    Ls(ScopeArgs),
    /// Shut an operator out at their next request, and withdraw the join tokens that they made; the name is
    /// free again
    #[command(after_help = "Example:\n  secretfs operator rm alice")]
    Rm {
        /// The operator's name
        name: OperatorName,
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// Give an operator roles
    #[command(after_help = "Example:\n  secretfs operator grant alice --role node-admin -e prod")]
    Grant {
        /// The operator's name
        name: OperatorName,
        #[command(flatten)]
        roles: RolesArgs,
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// Take roles from an operator
    #[command(after_help = "Example:\n  secretfs operator ungrant alice --role node-admin -e prod")]
    Ungrant {
        /// The operator's name
        name: OperatorName,
        #[command(flatten)]
        roles: RolesArgs,
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// Print a new token for an operator whose key is lost or whose certificate has ended; when it is used,
    /// the old key is of no use any more
    #[command(after_help = "Example:\n  secretfs operator enroll alice --ttl 10m")]
    Enroll {
        /// The operator's name
        name: OperatorName,
        #[command(flatten)]
        token: TokenArgs,
        #[command(flatten)]
        scope: ScopeArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct RolesArgs {
    /// viewer, editor, granter, node-admin, auditor or admin; may be given several times
    #[arg(long = "role", value_name = "ROLE", required = true)]
    roles: Vec<Role>,
}

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// How long the token is good for
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

#[derive(Debug, Args)]
pub(super) struct ScopeArgs {
    /// Everywhere, also where -e, SECRETFS_ENV or the configuration names an environment
    #[arg(long)]
    all_environments: bool,
}

pub(super) async fn run(command: OperatorCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let operator = Operator::new(global, &file)?;
    match command {
        OperatorCommand::Add { name, roles, token, scope } => {
            let request = AddOperator { roles: roles.roles, ttl_seconds: token.ttl.as_secs() };
            let created = operator.operators(scope.all_environments).add(&name, &request).await?;
            show_token(global, &created)?;
        }
        OperatorCommand::Ls(scope) => {
            let operators = operator.operators(scope.all_environments).list().await?;
            let headings = ["NAME", "STATE", "ROLES", "CERTIFICATE ENDS"];
            output::listing(global, headings, &operators, row)?;
        }
        OperatorCommand::Rm { name, scope } => {
            let removed = operator.operators(scope.all_environments).remove(&name).await?;
            output::one(global, &removed, &what_went(&removed))?;
        }
        OperatorCommand::Grant { name, roles, scope } => {
            let calls = operator.operators(scope.all_environments);
            let mut changed = None;
            for role in roles.roles {
                changed = Some(calls.grant(&name, role).await?);
            }
            show_roles(global, changed.as_ref())?;
        }
        OperatorCommand::Ungrant { name, roles, scope } => {
            let calls = operator.operators(scope.all_environments);
            let mut changed = None;
            for role in roles.roles {
                changed = Some(calls.ungrant(&name, role).await?);
            }
            show_roles(global, changed.as_ref())?;
        }
        OperatorCommand::Enroll { name, token, scope } => {
            let request = Enroll { ttl_seconds: token.ttl.as_secs() };
            let created = operator.operators(scope.all_environments).enroll(&name, &request).await?;
            show_token(global, &created)?;
        }
    }
    Ok(())
}

/// Prints a token that nobody can be shown again, and what to do with it.
pub(super) fn show_token(global: &Global, created: &CreatedEnrolment) -> Result<(), Failure> {
    let CreatedEnrolment { operator, token, expires, manager } = created;
    let text = format!(
        "{token}\n\nShown this once. Whoever uses it first is {operator}. On {operator}'s machine, before {}:\n  \
         secretfs login {manager} --token {token}",
        output::time(*expires),
    );
    Ok(output::once(global, created, &text)?)
}

fn what_went(removed: &RemovedOperator) -> String {
    let RemovedOperator { operator, withdrawn_tokens } = removed;
    match withdrawn_tokens {
        0 => operator.to_string(),
        1 => format!("{operator}, and 1 open join token of theirs"),
        several => format!("{operator}, and {several} open join tokens of theirs"),
    }
}

fn show_roles(global: &Global, changed: Option<&Listed>) -> Result<(), Failure> {
    let Some(operator) = changed else { return Ok(()) };
    Ok(output::one(global, operator, &format!("{} {}", operator.name, roles(&operator.grants)))?)
}

fn row(operator: &Listed) -> [String; 4] {
    [
        operator.name.to_string(),
        operator.state.as_str().to_owned(),
        roles(&operator.grants),
        output::or_dash(operator.certificate_expires.map(output::time).unwrap_or_default()),
    ]
}

/// Roles as people read them, such as `admin in all environments, editor in prod`.
pub(super) fn roles(grants: &[Grant]) -> String {
    let role = |grant: &Grant| match &grant.environment {
        Some(environment) => format!("{} in {environment}", grant.role),
        None => format!("{} in all environments", grant.role),
    };
    output::or_dash(grants.iter().map(role).collect::<Vec<_>>().join(", "))
}
