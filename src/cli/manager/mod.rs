mod backup;
mod seal;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use secretfs_server::{Config, FirstSteps, Manager, RawConfig};
use secretfs_wire::OperatorName;
use tokio::net::TcpListener;

use self::backup::{BackupArgs, RestoreArgs};
use self::seal::SealArgs;
use super::config::{ConfigFile, user_directory};
use super::credentials::Login;
use super::error::Failure;
use super::{Global, connect, operator, output};
use crate::client::Credentials;
use crate::host::{self, files};

/// Set up and run a manager.
#[derive(Debug, Subcommand)]
pub(super) enum ManagerCommand {
    /// Create a manager: its keys, its CA and the first operator
    #[command(after_help = "Examples:\n  secretfs manager init --name manager.example\n  \
        secretfs manager init --name manager.example --shares 5 --threshold 3")]
    Init(InitArgs),
    /// Serve, until SIGTERM
    #[command(after_help = "Example:\n  secretfs manager run --listen 0.0.0.0:7443")]
    Run(ManagerArgs),
    /// Unlock the sealed manager that runs on this host, with an unlock key or shares of one, read line by
    /// line from standard input
    #[command(after_help = "Examples:\n  secretfs manager unlock\n  secretfs manager unlock < unlock-key")]
    Unlock(ManagerArgs),
    /// Make a new unlock key for a stopped manager; what unlocked it before, read from standard input
    /// unless it opens by itself, is of no use after it
    #[command(after_help = "Examples:\n  secretfs manager rekey --shares 5 --threshold 3 < unlock-key\n  \
        secretfs manager rekey --auto-unlock none")]
    Rekey(RekeyArgs),
    /// Let somebody in as an administrator of everything when no operator can let them in: print a token
    /// for a stopped manager; what unlocks it is read from standard input, unless it opens by itself
    #[command(after_help = "Example:\n  secretfs manager enroll admin < unlock-key")]
    Enroll(EnrollArgs),
    /// Set a broken audit log of a stopped manager aside, and begin a new one that says so; what unlocks the
    /// manager is read from standard input, unless it opens by itself
    #[command(after_help = "Example:\n  secretfs manager begin-audit < unlock-key")]
    BeginAudit(DataDirArgs),
    /// Write everything that a manager has into one file, encrypted to age recipients; it may be running
    #[command(after_help = "Example:\n  secretfs manager backup --recipient age1... --output manager.age")]
    Backup(BackupArgs),
    /// Make a manager out of a backup, in a data directory that is absent or empty
    #[command(after_help = "Example:\n  secretfs manager restore --identity key.txt manager.age")]
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub(super) struct DataDirArgs {
    /// Where the manager keeps its state [default: /var/lib/secretfs/manager]
    #[arg(long, env = "SECRETFS_MANAGER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDirArgs {
    fn check(&self, file: ConfigFile) -> Result<Config, Failure> {
        let flags = RawConfig { data_dir: self.data_dir.clone(), ..Default::default() };
        flags.or(file.manager).check().map_err(|error| Failure::usage(error.to_string()))
    }
}

#[derive(Debug, Args)]
pub(super) struct ManagerArgs {
    /// Where the manager keeps its state [default: /var/lib/secretfs/manager]
    #[arg(long, env = "SECRETFS_MANAGER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address to listen on [default: 0.0.0.0:7443]
    #[arg(long, env = "SECRETFS_MANAGER_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A DNS name or IP address of the manager, for its certificate; may be given several times
    #[arg(long = "name", env = "SECRETFS_MANAGER_NAMES", value_delimiter = ',', value_name = "NAME")]
    names: Option<Vec<String>>,
    /// The URL at which nodes and operators reach the manager [default: the first name, the port]
    #[arg(long, env = "SECRETFS_MANAGER_URL", value_name = "URL")]
    url: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    manager: ManagerArgs,
    /// Where the first operator's configuration and credentials are written
    /// [default: ~/.config/secretfs]
    #[arg(long, value_name = "DIR")]
    operator_dir: Option<PathBuf>,
    #[command(flatten)]
    seal: SealArgs,
}

#[derive(Debug, Args)]
pub(super) struct RekeyArgs {
    #[command(flatten)]
    manager: ManagerArgs,
    #[command(flatten)]
    seal: SealArgs,
}

#[derive(Debug, Args)]
pub(super) struct EnrollArgs {
    /// The operator's name, there already or new
    name: OperatorName,
    /// How long the token is good for
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    #[command(flatten)]
    manager: ManagerArgs,
}

impl ManagerArgs {
    fn check(self, file: ConfigFile) -> Result<Config, Failure> {
        let flags = RawConfig {
            data_dir: self.data_dir,
            listen: self.listen,
            names: self.names,
            url: self.url,
            ..Default::default()
        };
        flags.or(file.manager).check().map_err(|error| Failure::usage(error.to_string()))
    }
}

pub(super) async fn run(command: ManagerCommand, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    if !matches!(command, ManagerCommand::Run(_)) {
        // Keys pass through this process too, for a moment. Not everybody may lock memory.
        let _ = host::harden();
    }
    match command {
        ManagerCommand::Init(args) => init(args, global, file).await,
        ManagerCommand::Run(args) => serve(args, global, file).await,
        ManagerCommand::Unlock(args) => seal::unlock(&args.check(file)?, global).await,
        ManagerCommand::Rekey(args) => seal::rekey(&args.seal, &args.manager.check(file)?, global).await,
        ManagerCommand::Enroll(args) => {
            let config = args.manager.check(file)?;
            let created = seal::enroll(&args.name, args.ttl, &config, global).await?;
            operator::show_token(global, &created)
        }
        ManagerCommand::BeginAudit(args) => seal::begin_audit(&args.check(file)?, global).await,
        ManagerCommand::Backup(args) => {
            let config = args.data_dir.check(file)?;
            backup::backup(args, global, &config).await
        }
        ManagerCommand::Restore(args) => {
            let config = args.data_dir.check(file)?;
            backup::restore(args, global, &config).await
        }
    }
}

async fn init(args: InitArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let directory = args.operator_dir.or_else(user_directory).ok_or_else(|| {
        Failure::usage("there is no home directory for the operator's credentials")
            .hint("add --operator-dir DIR")
    })?;
    let config_path = directory.join("config.toml");
    if config_path.exists() {
        return Err(Failure::failed(format!("{} exists already", config_path.display()))
            .hint("add --operator-dir DIR to write the new operator's credentials elsewhere"));
    }
    let config = args.manager.check(file)?;
    let plan = args.seal.plan()?;
    let FirstSteps { operator, unlock } =
        Manager::init(&config, &plan).await.map_err(|error| Failure::from_error(&error))?;
    let name = operator.name.clone();
    write_operator(&directory, &connect::show(&config.url), None, operator).await?;

    let automatic = plan.auto.is_some_and(|auto| !auto.is_empty());
    let text = format!(
        "The manager's keys are in {data}.\n\n{means}\n\n\
         The first operator, {name}, has its credentials in {operator}. Next:\n\n    \
         secretfs manager run\n{unlock}    \
         export SECRETFS_CONFIG={config}\n    \
         secretfs env create prod\n    \
         secretfs -e prod secret create db_password --generate\n    \
         secretfs -e prod node token create",
        data = config.data_dir.display(),
        means = seal::text(&unlock, &config),
        unlock = if automatic { "" } else { "    secretfs manager unlock\n" },
        operator = directory.display(),
        config = config_path.display(),
    );
    let mut json = seal::to_json(&unlock);
    json["data_dir"] = serde_json::json!(config.data_dir);
    json["operator"] = serde_json::json!(name);
    json["config"] = serde_json::json!(config_path);
    Ok(output::once(global, &json, &text)?)
}

/// Writes an operator's configuration with its credentials beside it, for their owner alone.
pub(super) async fn write_operator(
    directory: &Path,
    manager: &str,
    environment: Option<&str>,
    operator: secretfs_server::OperatorCredentials,
) -> Result<Credentials, Failure> {
    files::create_private_directory(directory)
        .map_err(|error| Failure::failed(format!("cannot write to {}: {error}", directory.display())))?;
    let secretfs_server::OperatorCredentials { certificate, key, ca, .. } = operator;
    let credentials = Credentials { certificate, key, ca };
    let login = Login::at(&directory.join("config.toml"));
    login.write(&login.lock().await?, manager, environment, &credentials)?;
    Ok(credentials)
}

async fn serve(args: ManagerArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    global.start_logging("info")?;
    let config = args.check(file)?;
    host::open_files::raise_limit();
    if let Err(error) = host::harden() {
        tracing::warn!(%error, "memory is not protected");
    }
    let shutdown = super::shutdown_signal()?;
    let manager = Manager::open(&config).await.map_err(|error| Failure::from_error(&error))?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| Failure::failed(format!("cannot listen on {}: {error}", config.listen)))?;
    secretfs_server::run(manager, listener, shutdown).await.map_err(|error| Failure::from_error(&error))
}
