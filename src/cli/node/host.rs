//! What a node's own host is told: join, run, and how it does.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use secretfs_wire::api::NodeState;
use secretfs_wire::{JoinToken, NodeName, ServiceName};
use url::Url;

use super::super::config::ConfigFile;
use super::super::error::Failure;
use super::super::{Global, connect, output, token};
use super::{metrics, status};
use crate::client::describe_clock;
use crate::holder::{Settings, control};
use crate::node::{self, MountConfig, StateDirectory, StateError};

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
    /// Print how the node daemon on this host does, for Prometheus
    #[command(after_help = "Example, for node_exporter's textfile collector:\n  \
        secretfs node metrics > /var/lib/node_exporter/secretfs.prom.new; \\\n  \
        mv /var/lib/node_exporter/secretfs.prom.new /var/lib/node_exporter/secretfs.prom")]
    Metrics(StatusArgs),
    /// Serve from another version of this program, without a read failing
    #[command(after_help = "Example:\n  secretfs node upgrade\n  secretfs node upgrade --program ./secretfs")]
    Upgrade(UpgradeArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct JoinArgs {
    /// The manager's URL
    url: Url,
    /// The token from `secretfs node token create`, or `-` to read it from standard input
    #[arg(long, env = "SECRETFS_JOIN_TOKEN", hide_env_values = true)]
    token: String,
    /// The node's name [default: the token's if it is for one, else the host's]
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
    /// As whom the workers run, where this is root [default: secretfs if there is that user, else nobody]
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    socket: StatusArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UpgradeArgs {
    /// The program to serve from [default: the one that this command is]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    #[command(flatten)]
    socket: StatusArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Where the daemon answers [default: /run/secretfs/node.sock]
    #[arg(long, env = "SECRETFS_NODE_SOCKET", value_name = "SOCKET")]
    pub(super) socket: Option<PathBuf>,
}

impl StatusArgs {
    /// The configured socket.
    pub(super) fn resolve(self, file: ConfigFile) -> Result<PathBuf, Failure> {
        let raw = node::RawConfig { socket: self.socket, ..Default::default() };
        let config = raw.or(file.node).check().map_err(|error| Failure::usage(error.to_string()))?;
        Ok(config.socket)
    }
}

pub(super) async fn run(command: HostCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    match command {
        HostCommand::Join(args) => join(args, global, file).await,
        HostCommand::Run(args) => run_daemon(args, global, file),
        HostCommand::Status(args) => status::run(args, global, file).await,
        HostCommand::Metrics(args) => metrics::run(args, file).await,
        HostCommand::Upgrade(args) => upgrade(args, global, file).await,
    }
}

async fn join(args: JoinArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let raw = node::RawConfig { state_dir: args.state.state_dir, ..Default::default() };
    let config = raw.or(file.node).check().map_err(|error| Failure::usage(error.to_string()))?;
    let state = StateDirectory::at(&config.state_dir);
    state.ensure_vacant().map_err(|error| {
        Failure::from_error(&error).hint("to join anew, remove the node at the manager and this directory")
    })?;
    let token: JoinToken = token::read(&args.token)?
        .parse()
        .map_err(|error: secretfs_wire::InvalidToken| Failure::usage(error.to_string()))?;
    let options =
        node::JoinOptions { manager: args.url.clone(), token, name: args.name, fallback_name: host_name() };
    let (identity, node::JoinOutcome { state: joined, clock_ahead, fingerprint }) =
        node::join(options).await.map_err(|error| match error {
            node::JoinError::Manager(error) => error.into(),
            error => Failure::from_error(&error),
        })?;
    state.save(&identity).map_err(|error| Failure::from_error(&error))?;
    let about = &identity.about;
    let mut text = format!(
        "joined {} as node {} of environment {}\nFingerprint: {fingerprint}",
        connect::show(&about.manager),
        about.name,
        about.environment
    );
    match joined {
        NodeState::Pending => text.push_str(&format!(
            "\nIt is served when an operator runs:\n  secretfs -e {} node approve {} --fingerprint {fingerprint}",
            about.environment, about.name
        )),
        NodeState::Active | NodeState::Revoked => text.push_str("\nNext:\n  secretfs node run"),
    }
    if let Some(ahead) = clock_ahead {
        text.push_str(&format!("\nNote: {}", describe_clock(ahead)));
    }
    let told = serde_json::json!({ "node": about, "state": joined, "fingerprint": fingerprint });
    Ok(output::one(global, &told, &text)?)
}

/// The host's name, if a node can have it.
fn host_name() -> Option<NodeName> {
    rustix::system::uname().nodename().to_str().ok()?.parse().ok()
}

/// Becomes the holder. Nothing of this process is left in it: neither memory nor arguments.
fn run_daemon(args: RunArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let raw = node::RawConfig {
        state_dir: args.state.state_dir,
        socket: args.socket.socket,
        mounts: mounts(args.mounts, args.service)?,
        deadline: args.deadline,
        max_stale: args.max_stale,
        cache_bytes: None,
        audit_bytes: None,
        user: args.user,
    };
    let config = raw.or(file.node).check().map_err(|error| Failure::usage(error.to_string()))?;
    StateDirectory::at(&config.state_dir).open().map_err(|error| match error {
        StateError::NotJoined(_) => {
            Failure::from_error(&error).hint("run `secretfs node join URL --token T` first")
        }
        error => Failure::from_error(&error),
    })?;
    let filter = global.checked_log_filter("info")?;
    let settings = Settings { config, bound_to_parent: false };
    let mut command =
        settings.command(filter, global.log_format).map_err(|error| Failure::from_error(&error))?;
    Err(Failure::failed(format!("cannot start the holder: {}", command.exec())))
}

async fn upgrade(args: UpgradeArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let socket = control::socket_beside(&args.socket.resolve(file)?);
    let program = match args.program {
        Some(program) => program,
        None => std::env::current_exe().map_err(|error| Failure::from_error(&error))?,
    };
    let program = program
        .canonicalize()
        .map_err(|error| Failure::usage(format!("{} cannot be served from: {error}", program.display())))?;
    let upgraded = control::upgrade(&socket, &program)
        .await
        .map_err(|error| status::nobody_answers(&socket, &error))?
        .map_err(|reason| Failure::failed(reason).hint("the old version goes on serving"))?;
    Ok(output::one(global, &upgraded, &format!("version {} serves now", upgraded.version))?)
}

fn mounts(paths: Vec<PathBuf>, service: Option<ServiceName>) -> Result<Vec<MountConfig>, Failure> {
    match (paths.len(), service) {
        (0, None) => Ok(Vec::new()),
        (0, service) => Ok(vec![MountConfig::new(PathBuf::from("/run/secrets"), service)]),
        (1, service) => Ok(paths.into_iter().map(|path| MountConfig::new(path, service.clone())).collect()),
        (_, None) => Ok(paths.into_iter().map(|path| MountConfig::new(path, None)).collect()),
        (_, Some(_)) => Err(Failure::usage("--service goes with one --mount")
            .hint("write several mounts into the configuration as [[node.mount]]")),
    }
}
