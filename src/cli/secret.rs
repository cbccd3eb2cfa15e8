use std::time::Duration;

use clap::{Args, Subcommand};
use secretfs_wire::api::{Rollback, Rotated, SecretDetails};
use secretfs_wire::{Labels, SecretName};

use super::config::ConfigFile;
use super::connect::Operator;
use super::error::Failure;
use super::in_use::{self, WaitArgs};
use super::value::ValueArgs;
use super::{Global, labels, output};
use crate::client::EnvironmentClient;

/// Secrets and their versions.
#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Create a secret with its first version
    #[command(after_help = "Examples:\n  secretfs secret create db_password --generate\n  \
        pass show db | secretfs secret create db_password -\n  \
        secretfs secret create tls_key server.key --label team=web")]
    Create {
        /// Its name
        name: SecretName,
        #[command(flatten)]
        value: ValueArgs,
        /// A label; may be given several times
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<Labels>,
    },
    /// Give a secret a new current version
    #[command(after_help = "Example:\n  secretfs secret rotate db_password --generate=40 --wait")]
    Rotate {
        /// Its name
        name: SecretName,
        #[command(flatten)]
        value: ValueArgs,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Make an older version the current one
    #[command(after_help = "Example:\n  secretfs secret rollback db_password --to 3")]
    Rollback {
        /// Its name
        name: SecretName,
        /// The version [default: the newest below the current one]
        #[arg(long, value_name = "VERSION")]
        to: Option<u64>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// List secrets, never their values
    #[command(after_help = "Example:\n  secretfs secret ls --json")]
    Ls,
    /// Show a secret's versions, where it is attached and which nodes have which, never its value
    #[command(after_help = "Example:\n  secretfs secret inspect db_password")]
    Inspect(Named),
    /// Remove a secret and all its versions
    #[command(after_help = "Example:\n  secretfs secret rm db_password")]
    Rm(Named),
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Its name
    name: SecretName,
}

pub(super) async fn run(command: SecretCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let operator = Operator::new(global, &file)?;
    let environment = operator.environment()?;
    match command {
        SecretCommand::Create { name, value, labels } => {
            let labels = labels::merge(&labels)?;
            let created = environment.create_secret(&name, &labels, value.read().await?).await?;
            output::one(global, &created, created.name.as_str())?;
        }
        SecretCommand::Rotate { name, value, wait } => {
            let rotated = environment.rotate_secret(&name, value.read().await?).await?;
            finish(global, environment, &rotated, &wait, Duration::ZERO).await?;
        }
        SecretCommand::Rollback { name, to, wait } => {
            let rotated = environment.roll_back_secret(&name, &Rollback { to }).await?;
            finish(global, environment, &rotated, &wait, in_use::SETTLE).await?;
        }
        SecretCommand::Ls => {
            let secrets = environment.secrets().await?;
            let headings = ["NAME", "CURRENT", "VERSIONS", "LABELS", "CHANGED"];
            output::listing(global, headings, &secrets, |secret| {
                [
                    secret.name.to_string(),
                    secret.current.to_string(),
                    secret.versions.to_string(),
                    output::or_dash(secret.labels.to_string()),
                    output::time(secret.changed),
                ]
            })?;
        }
        SecretCommand::Inspect(Named { name }) => {
            let details = environment.secret(&name).await?;
            output::one(global, &details, &describe(&details))?;
        }
        SecretCommand::Rm(Named { name }) => {
            environment.remove_secret(&name).await?;
            output::one(global, &name, name.as_str())?;
        }
    }
    Ok(())
}

/// Prints what is current now and, if asked to, waits until it is so everywhere.
async fn finish(
    global: &Global,
    environment: EnvironmentClient<'_>,
    rotated: &Rotated,
    wait: &WaitArgs,
    settle: Duration,
) -> Result<(), Failure> {
    let Rotated { secret, has_changed } = rotated;
    // One document for programs: the details, which have all of it, when the wait is over.
    if !(wait.wait && global.json) {
        let unchanged = if *has_changed { "" } else { " (unchanged)" };
        output::one(global, rotated, &format!("{} version {}{unchanged}", secret.name, secret.current))?;
    }
    if wait.wait {
        in_use::wait(global, environment, &secret.name, wait, settle).await?;
    }
    Ok(())
}

fn describe(details: &SecretDetails) -> String {
    let mut lines = vec![
        format!("Name:      {}", details.secret.name),
        format!("Labels:    {}", output::or_dash(details.secret.labels.to_string())),
        format!("Created:   {}", output::time(details.secret.created)),
        "Versions:".to_owned(),
    ];
    for version in &details.history {
        let current = if version.current { " (current)" } else { "" };
        lines.push(format!(
            "  {}  created {}  key {}{current}",
            version.version,
            output::time(version.created),
            version.key
        ));
    }
    lines.push(format!("Attached:{}", if details.attached.is_empty() { "  -" } else { "" }));
    for place in &details.attached {
        lines.push(format!("  {}/{}", place.service, place.target));
    }
    lines.push(format!("Nodes:{}", if details.usage.is_empty() { "     -" } else { "" }));
    for usage in &details.usage {
        lines.push(format!("  {}  {}", usage.node, in_use::describe(usage, details)));
    }
    lines.join("\n")
}
