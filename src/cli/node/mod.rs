mod describe;
mod host;
mod metrics;
mod status;
mod token;

use clap::{Args, Subcommand};
use secretfs_wire::api::{ApproveNode, ChangeLabels, Node};
use secretfs_wire::{KeyFingerprint, NodeName, ServiceName};

use super::config::ConfigFile;
use super::connect::Operator;
use super::error::Failure;
use super::{Global, output};

/// Nodes: join, run, approve, revoke.
#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    #[command(flatten)]
    Host(host::HostCommand),
    #[command(flatten)]
    Operator(OperatorCommand),
}

/// What an operator says of nodes.
#[derive(Debug, Subcommand)]
pub(super) enum OperatorCommand {
    /// Join tokens, each for one node
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List the nodes of the environment
    #[command(after_help = "Example:\n  secretfs node ls --json")]
    Ls,
    /// Show a node: its fingerprint, from where it joined, what its host claims to be
    #[command(after_help = "Example:\n  secretfs node inspect web-1")]
    Inspect(Named),
    /// Let in a node that joined with a token that demands approval; the mark of a duplicate is taken away
    #[command(after_help = "Example:\n  secretfs node approve web-1 --fingerprint SHA256:ungWv48B...")]
    Approve {
        /// The node
        name: NodeName,
        /// What the fingerprint of its key has to be, as `secretfs node status` shows it on that host
        #[arg(long)]
        fingerprint: Option<KeyFingerprint>,
    },
    /// Refuse a node from its next request on, for good
    #[command(after_help = "Example:\n  secretfs node revoke web-1")]
    Revoke(Named),
    /// Forget a node; its name is free again
    #[command(after_help = "Example:\n  secretfs node rm web-1")]
    Rm(Named),
    /// Set labels, or take them away with a trailing dash
    #[command(after_help = "Example:\n  secretfs node label web-1 role=web zone-")]
    Label {
        /// The node
        name: NodeName,
        /// `key=value` sets, `key-` takes away
        #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
        labels: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Its name
    name: NodeName,
}

pub(super) async fn run(command: NodeCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    match command {
        NodeCommand::Host(command) => host::run(command, global, file).await,
        NodeCommand::Operator(command) => operate(command, global, &file).await,
    }
}

async fn operate(command: OperatorCommand, global: &Global, file: &ConfigFile) -> Result<(), Failure> {
    let operator = Operator::new(global, file)?;
    let environment = operator.environment()?;
    match command {
        OperatorCommand::Token(command) => token::run(command, global, environment).await?,
        OperatorCommand::Ls => {
            let nodes = environment.nodes().await?;
            let headings = ["NAME", "STATE", "CONNECTED", "LABELS", "SERVICES", "CERTIFICATE ENDS"];
            output::listing(global, headings, &nodes, node_row)?;
            let attention: Vec<_> = nodes.iter().filter_map(describe::attention).collect();
            if !global.json && !attention.is_empty() {
                output::line(&format!("\n{}", attention.join("\n")))?;
            }
        }
        OperatorCommand::Inspect(Named { name }) => {
            let node = environment.node(&name).await?;
            output::one(global, &node, &describe::node(&node))?;
        }
        OperatorCommand::Approve { name, fingerprint } => {
            let node = environment.approve_node(&name, &ApproveNode { fingerprint }).await?;
            output::one(global, &node, &describe::approved(&node))?;
        }
        OperatorCommand::Revoke(Named { name }) => {
            let node = environment.revoke_node(&name).await?;
            output::one(global, &node, node.name.as_str())?;
        }
        OperatorCommand::Rm(Named { name }) => {
            environment.remove_node(&name).await?;
            output::one(global, &name, name.as_str())?;
        }
        OperatorCommand::Label { name, labels } => {
            let node = environment.label_node(&name, &parse_change(&labels)?).await?;
            output::one(global, &node, &format!("{} {}", node.name, node.labels))?;
        }
    }
    Ok(())
}

fn parse_change(given: &[String]) -> Result<ChangeLabels, Failure> {
    let mut change = ChangeLabels::default();
    for label in given {
        match (label.split_once('='), label.strip_suffix('-')) {
            (Some((key, value)), _) => {
                change.set.set(key, value).map_err(|error| Failure::usage(error.to_string()))?;
            }
            (None, Some(key)) => change.remove.push(key.to_owned()),
            (None, None) => {
                return Err(Failure::usage(format!("{label:?} is neither key=value nor key-")));
            }
        }
    }
    Ok(change)
}

fn node_row(node: &Node) -> [String; 6] {
    let services: Vec<_> = node.services.iter().map(ServiceName::as_str).collect();
    [
        node.name.to_string(),
        describe::state(node),
        if node.connected { "yes" } else { "no" }.to_owned(),
        output::or_dash(node.labels.to_string()),
        output::or_dash(services.join(",")),
        output::time(node.certificate_expires),
    ]
}
