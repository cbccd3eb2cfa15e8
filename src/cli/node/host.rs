//! What a node's own host is told: join, run, and how it does.

use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use secretfs_wire::api::NodeState;
use secretfs_wire::{JoinToken, NodeName, ServiceName};
use url::Url;
use zeroize::Zeroizing;

use super::super::config::ConfigFile;
use super::super::error::Failure;
use super::super::{Global, connect, logging, output, shutdown};
use crate::host;
use crate::node::{self, Daemon, MountConfig, NodeStatus, StateDirectory, StateError};

/// What a node's own host is told.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum HostCommand {
    /// Make this host a node
    #[command(
        after_help = "Example:\n  secretfs node join https://manager.example:7443 --token sfj1....\n  \
        secretfs node join https://manager.example:7443 --token - < token"
    )]
    Join(JoinArgs),
    /// Present the node's secrets as files, until SIGTERM
    #[command(
        after_help = "Examples:\n  secretfs node run\n  secretfs node run --mount /run/secrets --service web"
    )]
    Run(RunArgs),
    /// Show how the node daemon on this host does
    #[command(after_help = "Example:\n  secretfs node status --json")]
    Status(StatusArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct JoinArgs {
    /// The manager's URL
    url: Url,
    /// The token from `secretfs node token create`, or `-` to read it from standard input
    #[arg(long, env = "SECRETFS_JOIN_TOKEN", hide_env_values = true)]
    token: String,
    /// The node's name [default: the host's]
    #[arg(long)]
    name: Option<NodeName>,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StateArgs {
    /// Where the node keeps its keys and certificate [default: /var/lib/secretfs/node]
    #[arg(long, env = "SECRETFS_NODE_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Where to mount, an empty directory; may be given several times [default: /run/secrets]
    #[arg(long = "mount", value_name = "DIR")]
    mounts: Vec<PathBuf>,
    /// Mount only this service's files, without a directory for it
    #[arg(long)]
    service: Option<ServiceName>,
    /// How long a read may wait for the manager [default: 2s]
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// How long values are served while the manager is away [default: 12h]
    #[arg(long, value_name = "TIME")]
    max_stale: Option<String>,
    #[command(flatten)]
    socket: StatusArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Where the daemon answers [default: /run/secretfs/node.sock]
    #[arg(long, env = "SECRETFS_NODE_SOCKET", value_name = "SOCKET")]
    socket: Option<PathBuf>,
}

pub(super) async fn run(command: HostCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    match command {
        HostCommand::Join(args) => join(args, global, file).await,
        HostCommand::Run(args) => run_daemon(args, global, file).await,
        HostCommand::Status(args) => status(args, global, file).await,
    }
}

async fn join(args: JoinArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let raw = node::RawConfig { state_dir: args.state.state_dir, ..Default::default() };
    let config = raw.or(file.node).check().map_err(|error| Failure::usage(error.to_string()))?;
    let state = StateDirectory::at(&config.state_dir);
    state.ensure_vacant().map_err(|error| {
        Failure::from_error(&error).hint("to join anew, remove the node at the manager and this directory")
    })?;
    let token = match args.token.as_str() {
        "-" => read_token()?,
        text => Zeroizing::new(text.to_owned()),
    };
    let token: JoinToken =
        token.parse().map_err(|error: secretfs_wire::InvalidToken| Failure::usage(error.to_string()))?;
    let name = match args.name {
        Some(name) => name,
        None => host_name()?,
    };
    let manager = args.url.clone();
    let (identity, joined) =
        node::join(node::JoinOptions { manager, token, name }).await.map_err(|error| match error {
            node::JoinError::Manager(error) => error.into(),
            error => Failure::from_error(&error),
        })?;
    state.save(&identity).map_err(|error| Failure::from_error(&error))?;
    let about = &identity.about;
    let mut text = format!(
        "joined {} as node {} of environment {}",
        connect::show(&about.manager),
        about.name,
        about.environment
    );
    match joined {
        NodeState::Pending => text.push_str(&format!(
            "\nIt is served when an operator runs:\n  secretfs -e {} node approve {}",
            about.environment, about.name
        )),
        NodeState::Active | NodeState::Revoked => text.push_str("\nNext:\n  secretfs node run"),
    }
    Ok(output::one(global, &serde_json::json!({ "node": about, "state": joined }), &text)?)
}

fn read_token() -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .take(1024)
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(format!("cannot read the token from standard input: {error}")))?;
    Ok(text)
}

fn host_name() -> Result<NodeName, Failure> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    name.parse()
        .map_err(|error| Failure::usage(format!("the host's name cannot be the node's: {error}; add --name")))
}

async fn run_daemon(args: RunArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    logging::start(global, "info")?;
    let raw = node::RawConfig {
        state_dir: args.state.state_dir,
        socket: args.socket.socket,
        mounts: mounts(args.mounts, args.service)?,
        deadline: args.deadline,
        max_stale: args.max_stale,
        cache_bytes: None,
    };
    let config = raw.or(file.node).check().map_err(|error| Failure::usage(error.to_string()))?;
    host::harden().map_err(|error| Failure::from_error(&error))?;
    let shutdown = shutdown::on_signal()?;
    let state = StateDirectory::at(&config.state_dir);
    let identity = state.load().map_err(|error| match error {
        StateError::NotJoined(_) => {
            Failure::from_error(&error).hint("run `secretfs node join URL --token T` first")
        }
        error => Failure::from_error(&error),
    })?;
    let daemon =
        Daemon::start(identity, Some(state), config).await.map_err(|error| Failure::from_error(&error))?;
    tokio::select! {
        () = daemon.first_manifest() => {
            tracing::info!("ready");
            shutdown.cancelled().await;
        }
        () = shutdown.cancelled() => {}
    }
    daemon.stop().await;
    Ok(())
}

fn mounts(paths: Vec<PathBuf>, service: Option<ServiceName>) -> Result<Vec<MountConfig>, Failure> {
    match (paths.len(), service) {
        (0, None) => Ok(Vec::new()),
        (0, service) => Ok(vec![MountConfig { path: PathBuf::from("/run/secrets"), service }]),
        (1, service) => {
            Ok(paths.into_iter().map(|path| MountConfig { path, service: service.clone() }).collect())
        }
        (_, None) => Ok(paths.into_iter().map(|path| MountConfig { path, service: None }).collect()),
        (_, Some(_)) => Err(Failure::usage("--service goes with one --mount")
            .hint("write several mounts into the configuration as [[node.mount]]")),
    }
}

async fn status(args: StatusArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let raw = node::RawConfig { socket: args.socket, ..Default::default() };
    let config = raw.or(file.node).check().map_err(|error| Failure::usage(error.to_string()))?;
    let status = node::ask_status(&config.socket).await.map_err(|error| {
        Failure::unreachable(format!("no node daemon answers at {}: {error}", config.socket.display()))
            .hint("is `secretfs node run` running, and are you its user?")
    })?;
    Ok(output::one(global, &status, &describe(&status))?)
}

fn describe(status: &NodeStatus) -> String {
    let link = match (status.connected, status.stale_since) {
        (true, _) => "up; what is served is current".to_owned(),
        (false, Some(since)) => format!(
            "down since {}: {}",
            output::time(since),
            status.reason.as_deref().unwrap_or("not connected yet")
        ),
        (false, None) => format!("down: {}", status.reason.as_deref().unwrap_or("not connected yet")),
    };
    let mut lines = vec![
        format!("Node:         {} of environment {} (id {})", status.name, status.environment, status.id),
        format!("Manager:      {}", status.manager),
        format!("Stream:       {link}"),
    ];
    if let Some(end) = status.certificate_expires {
        lines.push(format!("Certificate:  ends {}", output::time(end)));
    }
    for mount in &status.mounts {
        let what = mount.service.as_ref().map_or("all services".to_owned(), |name| format!("service {name}"));
        let gone = if mount.served { "" } else { ", unmounted by somebody else" };
        lines.push(format!("Mount:        {} ({what}{gone})", mount.path.display()));
    }
    lines.push(format!("Manifest:     {} services, {} targets", status.services, status.targets));
    lines.push(format!(
        "Cache:        {} values, {} bytes, {} hits, {} misses; open files hold {} versions",
        status.cached_values,
        status.cached_bytes,
        status.cache_hits,
        status.cache_misses,
        status.pinned_versions
    ));
    for rejected in &status.rejected {
        lines.push(format!("Left out:     {}: {}", rejected.entry, rejected.reason));
    }
    if let Some(trouble) = &status.trouble {
        lines.push(format!("Trouble:      since {}: {}", output::time(trouble.since), trouble.reason));
    }
    lines.join("\n")
}
