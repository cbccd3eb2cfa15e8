//! Operators: who they are, what roles they have, and how they get in.

use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, Subcommand};
use secretfs_wire::api::{AddOperator, CreatedEnrolment, Enroll, Operator as Listed, RemovedOperator};
use secretfs_wire::{Grant, OperatorName, Role};

use super::choice::one_of;
use super::config::ConfigFile;
use super::connect::{Operator, ScopeArgs};
use super::error::Failure;
use super::{Global, output};
use crate::client::ClientError;

/// Operators and their roles: in the environment that is named, or with --all-environments everywhere.
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
        /// A role; may be given several times, and left out of who has what a policy gives them by their name
        #[arg(long = "role", value_name = "ROLE", value_parser = role())]
        roles: Vec<Role>,
        #[command(flatten)]
        token: TokenArgs,
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// List operators, their roles and whether they can act
    #[command(after_help = "Examples:\n  secretfs operator ls\n  secretfs operator ls -e prod --json")]
    Ls(ScopeArgs),
    /// Take an operator all roles in an environment; shut out whom it enrolled, or with --all-environments
    /// anybody, at their next request, and the name is free again. Join tokens that they made are withdrawn
    #[command(after_help = "Examples:\n  secretfs operator rm alice -e prod\n  \
        secretfs operator rm bob --all-environments")]
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
    #[command(after_help = "Examples:\n  secretfs operator enroll alice -e prod --ttl 10m\n  \
        secretfs operator enroll alice -e prod --cancel")]
    Enroll {
        /// The operator's name
        name: OperatorName,
        #[command(flatten)]
        token: TokenArgs,
        /// Withdraw a token that nobody has used yet, and make none
        #[arg(long, conflicts_with = "ttl")]
        cancel: bool,
        #[command(flatten)]
        scope: ScopeArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct RolesArgs {
    /// A role; may be given several times
    #[arg(long = "role", value_name = "ROLE", required = true, value_parser = role())]
    roles: Vec<Role>,
}

fn role() -> impl TypedValueParser<Value = Role> {
    one_of(Role::ALL.map(Role::as_str))
}

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// How long the token is good for
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

pub(super) async fn run(command: OperatorCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let operator = Operator::new(global, &file)?;
    match command {
        OperatorCommand::Add { name, roles, token, scope } => {
            let request = AddOperator { roles, ttl_seconds: token.ttl.as_secs() };
            let created = operator.operators(&scope)?.add(&name, &request).await?;
            show_token(global, &created)?;
        }
        OperatorCommand::Ls(scope) => {
            let operators = operator.visible_operators(&scope).list().await?;
            let headings = ["NAME", "STATE", "ENROLLED IN", "ROLES", "CERTIFICATE ENDS"];
            output::listing(global, headings, &operators, row)?;
        }
        OperatorCommand::Rm { name, scope } => {
            let removed = operator.operators(&scope)?.remove(&name).await?;
            output::one(global, &removed, &what_went(&removed))?;
        }
        OperatorCommand::Grant { name, roles, scope } => {
            let calls = operator.operators(&scope)?;
            each_role(global, roles, async |role| calls.grant(&name, role).await).await?;
        }
        OperatorCommand::Ungrant { name, roles, scope } => {
            let calls = operator.operators(&scope)?;
            each_role(global, roles, async |role| calls.ungrant(&name, role).await).await?;
        }
        OperatorCommand::Enroll { name, cancel: true, scope, .. } => {
            operator.operators(&scope)?.cancel_enrolment(&name).await?;
            output::one(global, &name, name.as_str())?;
        }
        OperatorCommand::Enroll { name, token, scope, .. } => {
            let request = Enroll { ttl_seconds: token.ttl.as_secs() };
            let created = operator.operators(&scope)?.enroll(&name, &request).await?;
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

/// Changes one role after the other, and shows those that the operator has then.
async fn each_role(
    global: &Global,
    args: RolesArgs,
    change: impl AsyncFn(Role) -> Result<Listed, ClientError>,
) -> Result<(), Failure> {
    let mut changed = None;
    for role in args.roles {
        changed = Some(change(role).await?);
    }
    let Some(operator) = changed else { return Ok(()) };
    Ok(output::one(global, &operator, &format!("{} {}", operator.name, roles(&operator.grants)))?)
}

fn row(operator: &Listed) -> [String; 5] {
    let state = match operator.enrolment_expires {
        Some(until) => format!("{}, enrolment open until {}", operator.state.as_str(), output::time(until)),
        None => operator.state.as_str().to_owned(),
    };
    [
        operator.name.to_string(),
        state,
        operator.scope.as_ref().map_or_else(|| "all environments".to_owned(), ToString::to_string),
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
