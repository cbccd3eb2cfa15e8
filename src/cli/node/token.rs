//! Join tokens: what they give, who made them, and that they are withdrawn.

use std::time::Duration;

use clap::Subcommand;
use secretfs_wire::api::{CreateToken, Token};
use secretfs_wire::{Labels, NodeName, TokenId};

use super::super::error::Failure;
use super::super::{Global, labels, output};
use crate::client::EnvironmentClient;

/// Join tokens.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    /// Create a token that joins one node, once
    #[command(after_help = "Examples:\n  secretfs node token create --ttl 10m --label role=web\n  \
        secretfs node token create --name db-1")]
    Create {
        /// How long it is good for
        #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// Let the node wait for `secretfs node approve`
        #[arg(long)]
        approval: bool,
        /// A label that the node has from the start; may be given several times
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<Labels>,
        /// Join a node of this name only [default: the host says its name]
        #[arg(long)]
        name: Option<NodeName>,
    },
    /// List tokens and what they give, never the tokens themselves
    #[command(after_help = "Example:\n  secretfs node token ls --json")]
    Ls,
    /// Withdraw a token that nobody has used: no host joins with it any more
    #[command(after_help = "Example:\n  secretfs node token rm 5f0c1d2e3a4b")]
    Rm {
        /// Its id, as `secretfs node token ls` shows it
        id: TokenId,
    },
}

pub(super) async fn run(
    command: TokenCommand,
    global: &Global,
    environment: EnvironmentClient<'_>,
) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { ttl, approval, labels, name } => {
            let labels = labels::merge(&labels)?;
            let request = CreateToken { ttl_seconds: ttl.as_secs(), approval, labels, name };
            let created = environment.create_token(&request).await?;
            let text = format!(
                "{}\n\nOn the new node, before {}:\n  secretfs node join {} --token {}",
                created.token,
                output::time(created.expires),
                created.manager,
                created.token
            );
            output::one(global, &created, &text)?;
        }
        TokenCommand::Ls => {
            let tokens = environment.tokens().await?;
            let headings =
                ["ID", "STATE", "NAME", "LABELS", "APPROVAL", "USED BY", "CREATED", "CREATED BY", "EXPIRES"];
            output::listing(global, headings, &tokens, row)?;
        }
        TokenCommand::Rm { id } => {
            environment.remove_token(id).await?;
            output::one(global, &id, &id.to_string())?;
        }
    }
    Ok(())
}

fn row(token: &Token) -> [String; 9] {
    let name = |name: Option<String>| output::or_dash(name.unwrap_or_default());
    [
        token.id.to_string(),
        token.state.as_str().to_owned(),
        name(token.name.as_ref().map(ToString::to_string)),
        output::or_dash(token.labels.to_string()),
        if token.approval { "yes" } else { "no" }.to_owned(),
        name(token.used_by.as_ref().map(ToString::to_string)),
        output::time(token.created),
        name(token.created_by.as_ref().map(ToString::to_string)),
        output::time(token.expires),
    ]
}
