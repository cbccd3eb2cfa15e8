use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use secretfs_server::{Manager, OperatorCredentials};
use secretfs_wire::api::{Assignment, Attach, CreateEnvironment, CreateToken};
use secretfs_wire::{EnvironmentName, Labels, NodeName, SecretName, ServiceName};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::error::Failure;
use super::{Global, connect, manager, output};
use crate::client::{NewValue, OperatorClient};
use crate::holder::Settings;
use crate::host;
use crate::node::{self, MountConfig, NodeIdentity, StateDirectory};

pub(super) const EXAMPLE: &str = "Example:\n  secretfs dev --mount /tmp/secrets";

/// How long the demo's secrets may take to appear.
const READY: Duration = Duration::from_secs(30);
/// What the daemons log, unless it is asked for otherwise.
const LOG: &str = "warn";
const ENVIRONMENT: &str = "dev";
const SERVICE: &str = "demo";
/// Names, and how many characters are generated.
const SECRETS: [(&str, u32); 2] = [("db_password", 32), ("api_key", 64)];

#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Where to mount [default: /run/secrets if it is absent or empty, else a temporary directory]
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
}

pub(super) async fn run(args: DevArgs, global: &Global) -> Result<(), Failure> {
    // What is printed is the guide; only trouble belongs between its lines.
    global.start_logging(LOG)?;
    if let Err(error) = host::harden() {
        tracing::warn!("{error}");
    }
    let shutdown = super::shutdown_signal()?;
    let files = private_directory()?;
    let mount = MountPoint::choose(args.mount, files.path())?;
    let stop_manager = CancellationToken::new();
    let (url, operator, serving) = start_manager(stop_manager.clone()).await?;
    let mut node = tokio::select! {
        node = start_node(&url, operator, &mount, files.path(), global) => node?,
        () = shutdown.cancelled() => return Ok(()),
    };
    output::line(&guide(&mount.path, &files.path().join("config.toml")))?;
    tokio::select! {
        () = shutdown.cancelled() => {}
        ended = node.holder.wait() => return Err(Failure::failed(format!("the node has ended: {}", text(ended)))),
    }

    node.stop().await?;
    stop_manager.cancel();
    match serving.await {
        Ok(outcome) => outcome.map_err(|error| Failure::from_error(&error))?,
        Err(error) => return Err(Failure::from_error(&error)),
    }
    mount.remove();
    files.close().map_err(|error| Failure::failed(format!("cannot remove the temporary files: {error}")))
}

type Serving = tokio::task::JoinHandle<Result<(), secretfs_server::RunError>>;

/// A manager in memory, on a free port of this machine.
async fn start_manager(shutdown: CancellationToken) -> Result<(Url, OperatorCredentials, Serving), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| Failure::failed(format!("cannot listen on 127.0.0.1: {error}")))?;
    let address = listener.local_addr().map_err(|error| Failure::from_error(&error))?;
    let url = format!("https://{address}");
    let raw = secretfs_server::RawConfig { url: Some(url.clone()), ..Default::default() };
    let config = raw.check().map_err(|error| Failure::from_error(&error))?;
    let (manager, operator) =
        Manager::in_memory(&config).await.map_err(|error| Failure::from_error(&error))?;
    let url = url.parse().map_err(|error: url::ParseError| Failure::from_error(&error))?;
    Ok((url, operator, tokio::spawn(secretfs_server::run(manager, listener, shutdown))))
}

/// The demo, set up through the same calls that an operator makes, and a node that joins with a
/// token as every other does.
async fn start_node(
    url: &Url,
    operator: OperatorCredentials,
    mount: &MountPoint,
    files: &Path,
    global: &Global,
) -> Result<Node, Failure> {
    let socket = files.join("node.sock");
    let credentials =
        manager::write_operator(files, &connect::show(url), Some(ENVIRONMENT), operator).await?;
    append_node_section(files, &socket)?;
    let client = OperatorClient::new(url.clone(), &credentials)?;
    let identity = set_up(&client, url).await?;
    let state_dir = files.join("node");
    StateDirectory::at(&state_dir).save(&identity).map_err(|error| Failure::from_error(&error))?;
    let raw = node::RawConfig {
        state_dir: Some(state_dir),
        socket: Some(socket.clone()),
        mounts: vec![MountConfig::new(mount.path.clone(), None)],
        ..Default::default()
    };
    let mut config = raw.check().map_err(|error| Failure::from_error(&error))?;
    config.serve.unlocked = true;
    #[cfg(feature = "unaudited")]
    {
        config.serve.unaudited = std::env::var_os("SECRETFS_UNAUDITED").is_some();
    }
    let mut node = Node::start(config, global)?;
    tokio::select! {
        appeared = tokio::time::timeout(READY, secrets_appear(&socket)) => {
            appeared.map_err(|_| Failure::failed("the demo's secrets did not appear in time"))?;
        }
        ended = node.holder.wait() => {
            return Err(Failure::failed(format!("the node did not start: {}", text(ended))));
        }
    }
    Ok(node)
}

/// The node's processes, as `secretfs node run` has them.
struct Node {
    holder: tokio::process::Child,
}

impl Node {
    fn start(config: node::Config, global: &Global) -> Result<Self, Failure> {
        let settings = Settings { config, bound_to_parent: true };
        let command = settings.command(global.log_filter(LOG), global.log_format);
        let holder = command.and_then(|command| tokio::process::Command::from(command).spawn());
        let holder = holder.map_err(|error| Failure::failed(format!("cannot start the holder: {error}")))?;
        Ok(Self { holder })
    }

    async fn stop(mut self) -> Result<(), Failure> {
        if let Some(pid) = self.holder.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // Ctrl-C may have ended it already.
            let _ = kill_process(pid, Signal::TERM);
        }
        match self.holder.wait().await {
            Ok(status) if status.success() => Ok(()),
            ended => Err(Failure::failed(format!("the node did not stop cleanly: {}", text(ended)))),
        }
    }
}

fn text(ended: std::io::Result<std::process::ExitStatus>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

async fn secrets_appear(socket: &Path) {
    while !node::ask_status(socket).await.is_ok_and(|status| status.targets == SECRETS.len()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn set_up(client: &OperatorClient, url: &Url) -> Result<NodeIdentity, Failure> {
    let environment: EnvironmentName = parse(ENVIRONMENT)?;
    let service: ServiceName = parse(SERVICE)?;
    let name: NodeName = parse("dev")?;
    client
        .create_environment(&CreateEnvironment {
            name: environment.clone(),
            key_name: None,
            key_backend: None,
        })
        .await?;
    let calls = client.environment(&environment);
    calls.create_service(&service).await?;
    for (secret, length) in SECRETS {
        let secret: SecretName = parse(secret)?;
        calls.create_secret(&secret, &Labels::default(), NewValue::Generated(length)).await?;
        let attach =
            Attach { secret, target: None, ownership: Default::default(), audit: Default::default() };
        calls.attach(&service, &attach).await?;
    }
    calls.assign(&service, &Assignment::Node(name.clone())).await?;
    let request = CreateToken { ttl_seconds: 60, approval: false, labels: Labels::default(), name: None };
    let token = parse(&calls.create_token(&request).await?.token)?;
    let options = node::JoinOptions { manager: url.clone(), token, name: Some(name), fallback_name: None };
    let (identity, _) = node::join(options).await.map_err(|error| Failure::from_error(&error))?;
    Ok(identity)
}

fn parse<T: std::str::FromStr<Err: std::error::Error + 'static>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error: T::Err| Failure::from_error(&error))
}

/// The operator's and the node's files, for this run only: on a tmpfs where there is one.
fn private_directory() -> Result<TempDir, Failure> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let bases = [Some(PathBuf::from("/run")), runtime, Some(std::env::temp_dir())];
    let mut failure = None;
    for base in bases.into_iter().flatten() {
        match tempfile::Builder::new().prefix("secretfs-dev-").tempdir_in(base) {
            Ok(directory) => return Ok(directory),
            Err(error) => failure = Some(error),
        }
    }
    Err(Failure::failed(format!(
        "cannot create a temporary directory: {}",
        failure.map(|error| error.to_string()).unwrap_or_default()
    )))
}

fn append_node_section(files: &Path, socket: &Path) -> Result<(), Failure> {
    let path = files.join("config.toml");
    let node = format!("\n[node]\nsocket = {:?}\n", socket.display().to_string());
    std::fs::read_to_string(&path)
        .and_then(|text| host::files::write_private(&path, (text + &node).as_bytes()))
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

/// The mount point, and whether it was made for this run.
struct MountPoint {
    path: PathBuf,
    made: bool,
}

impl MountPoint {
    fn choose(given: Option<PathBuf>, files: &Path) -> Result<Self, Failure> {
        if let Some(path) = given {
            return Self::make(&path)
                .map_err(|error| Failure::failed(format!("cannot create {}: {error}", path.display())));
        }
        let usual = Path::new("/run/secrets");
        let free = match std::fs::read_dir(usual) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        match free.then(|| Self::make(usual)) {
            Some(Ok(mount)) => Ok(mount),
            // Not root, or in use: beside the other temporary files.
            _ => Self::make(&files.join("secrets")).map_err(|error| Failure::from_error(&error)),
        }
    }

    fn make(path: &Path) -> std::io::Result<Self> {
        let made = match std::fs::create_dir(path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.canonicalize()?, made })
    }

    fn remove(&self) {
        if self.made {
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

fn guide(mount: &Path, config: &Path) -> String {
    let (mount, config, program) = (mount.display(), config.display(), program());
    format!(
        "secretfs {version}: manager, node and mount. Nothing is kept.\n\n\
         Mounted at {mount}. Read a secret:\n\n    \
         cat {mount}/demo/db_password\n    \
         cat {mount}/demo/api_key\n\n\
         In another shell:\n\n    \
         export SECRETFS_CONFIG={config}\n    \
         {program} secret ls\n    \
         {program} secret rotate db_password --generate\n    \
         cat {mount}/demo/db_password\n    \
         echo 'postgres://app:{{{{ secrets.db_password }}}}@db/app' | {program} service template set demo dsn\n    \
         cat {mount}/demo/dsn\n    \
         {program} node status\n    \
         docker run --rm -v {mount}/demo:/run/secrets:ro busybox cat /run/secrets/db_password\n\n\
         Ctrl-C ends it and leaves nothing.",
        version = crate::VERSION,
    )
}

/// How this program is called: by its name if the shell finds it so, else by its path.
fn program() -> String {
    let path = std::env::current_exe().ok();
    let found = std::env::var_os("PATH").and_then(|paths| {
        std::env::split_paths(&paths).map(|directory| directory.join("secretfs")).find(|path| path.exists())
    });
    match path {
        Some(path) if found.and_then(|found| found.canonicalize().ok()).as_ref() != Some(&path) => {
            path.display().to_string()
        }
        _ => "secretfs".to_owned(),
    }
}
