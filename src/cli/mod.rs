//! The command line: words and forms as Docker's, one module a noun.

mod audit;
mod choice;
mod completions;
mod config;
mod connect;
mod credentials;
#[cfg(feature = "manager")]
mod dev;
mod environment;
mod error;
mod in_use;
mod key;
mod labels;
mod login;
#[cfg(feature = "manager")]
mod manager;
mod node;
mod operator;
mod output;
mod policy;
mod renewal;
mod run;
mod secret;
mod service;
mod template;
mod token;
mod value;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Args, Parser, Subcommand};
use secretfs_wire::EnvironmentName;
use url::Url;

use config::ConfigFile;
use error::Failure;
use renewal::Renewal;

use crate::host::logging::{self, LogFormat};

/// Secrets where programs already look for them: files under /run/secrets, never written down.
#[derive(Debug, Parser)]
#[command(
    name = "secretfs",
    version = crate::VERSION,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Try it:\n  secretfs dev\n\n\
        Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 denied, 5 unreachable\n\n\
        Settings come from flags, then environment variables, then the configuration file, then defaults."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The environment to work in
    #[arg(short = 'e', long = "env", env = "SECRETFS_ENV", value_name = "ENV", global = true)]
    environment: Option<EnvironmentName>,
    /// The manager's URL
    #[arg(long, env = "SECRETFS_MANAGER", value_name = "URL", global = true)]
    manager: Option<Url>,
    /// The configuration file [default: ~/.config/secretfs/config.toml, then /etc/secretfs/config.toml]
    #[arg(long, env = "SECRETFS_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// How daemons write their log to stderr
    #[arg(
        long,
        env = "SECRETFS_LOG_FORMAT",
        value_enum,
        default_value_t,
        global = true,
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
    /// What is logged, such as `debug` or `secretfs=debug,warn` [default: info; for dev: warn]
    #[arg(long, env = "SECRETFS_LOG", global = true, value_name = "FILTER")]
    log: Option<String>,
    /// The certificate that the command came with, to be renewed in time.
    #[arg(skip)]
    renewal: OnceLock<Renewal>,
}

impl Global {
    /// Logs what the user asked for, or else what `default` lets through, from now on.
    fn start_logging(&self, default: &str) -> Result<(), Failure> {
        logging::start(self.log_filter(default), self.log_format).map_err(Failure::usage)
    }

    fn log_filter<'a>(&'a self, default: &'a str) -> &'a str {
        self.log.as_deref().unwrap_or(default)
    }

    /// The filter for another process, which could not say what is wrong with it.
    fn checked_log_filter<'a>(&'a self, default: &'a str) -> Result<&'a str, Failure> {
        let filter = self.log_filter(default);
        logging::check(filter).map_err(Failure::usage).map(|()| filter)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run manager, node and mount on this machine, with two secrets to try; nothing is kept
    #[cfg(feature = "manager")]
    #[command(after_help = dev::EXAMPLE)]
    Dev(dev::DevArgs),
    /// Set up and run a manager
    #[cfg(feature = "manager")]
    #[command(subcommand)]
    Manager(manager::ManagerCommand),
    /// Environments, the scope of everything
    #[command(subcommand, name = "env")]
    Environment(environment::EnvironmentCommand),
    /// Secrets and their versions
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Services, what is attached to them and where they run
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// The keys under which everything is encrypted: rotate, move, retire
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Who may do what: the policies that decide, and why they decide as they do
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// The audit log: look at it, verify it, export it
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Nodes: join, run, approve, revoke
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Operators and their roles: add, grant, remove
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Become an operator, with the token that another one was given for you
    #[command(after_help = login::LOGIN_EXAMPLE)]
    Login(login::LoginArgs),
    /// Show who you are to the manager, and what roles you have
    #[command(after_help = login::WHOAMI_EXAMPLE)]
    Whoami,
    /// Run a program, and tell or restart it when its secrets change
    #[command(after_help = run::EXAMPLE)]
    Run(run::RunArgs),
    /// Print a completion script for a shell
    #[command(after_help = completions::EXAMPLE)]
    Completions(completions::CompletionsArgs),
}

/// Parses the command line, does what it says, and tells how it went.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))
        .and_then(|runtime| {
            let outcome = runtime.block_on(run(cli));
            // A blocking read of standard input must not keep a finished command alive.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// A token that is cancelled by SIGINT or SIGTERM.
#[cfg(feature = "manager")]
fn shutdown_signal() -> Result<tokio_util::sync::CancellationToken, Failure> {
    crate::host::shutdown::on_signal()
        .map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { global, command } = cli;
    let file = || ConfigFile::load(global.config.as_deref());
    let done = match command {
        #[cfg(feature = "manager")]
        Command::Dev(args) => dev::run(args, &global).await,
        #[cfg(feature = "manager")]
        Command::Manager(command) => manager::run(command, &global, file()?).await,
        Command::Environment(command) => environment::run(command, &global, file()?).await,
        Command::Secret(command) => secret::run(command, &global, file()?).await,
        Command::Service(command) => service::run(command, &global, file()?).await,
        Command::Key(command) => key::run(command, &global, file()?).await,
        Command::Policy(command) => policy::run(command, &global, file()?).await,
        Command::Audit(command) => audit::run(command, &global, file()?).await,
        Command::Node(command) => node::run(command, &global, file()?).await,
        Command::Operator(command) => operator::run(command, &global, file()?).await,
        Command::Login(args) => login::login(args, &global).await,
        Command::Whoami => login::whoami(&global, file()?).await,
        Command::Run(args) => return run::run(args, &global).await,
        Command::Completions(args) => completions::run(&args),
    };
    // Whoever was let in comes again.
    if let (Ok(()), Some(renewal)) = (&done, global.renewal.get()) {
        renewal.run_if_due().await;
    }
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let mut leaf = true;
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                leaf = false;
                check(inner, &path);
            }
            if leaf {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} has no example");
                assert!(help.contains("secretfs "), "{path}'s example does not call secretfs");
            }
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn a_wrong_role_or_action_is_answered_with_those_there_are() {
        let refused = |args: &[&str]| {
            let error = Cli::try_parse_from([&["secretfs"], args].concat()).expect_err("it is wrong");
            error.to_string()
        };
        let role = refused(&["operator", "grant", "alice", "--role", "root"]);
        assert!(role.contains("viewer, editor, granter, node-admin, auditor, admin"), "{role}");
        assert!(refused(&["policy", "explain", "secret.read"]).contains("secret.rotate"));
        let mut completions = Vec::new();
        clap_complete::generate(
            clap_complete::Shell::Bash,
            &mut Cli::command(),
            "secretfs",
            &mut completions,
        );
        let completions = String::from_utf8(completions).expect("text");
        assert!(completions.contains("node-admin") && completions.contains("operator.grant"));
    }

    #[test]
    fn an_assignment_names_a_node_or_a_selector() {
        let parse = |args: &[&str]| {
            Cli::try_parse_from([&["secretfs", "service", "assign", "web"], args].concat()).is_ok()
        };
        assert!(parse(&["--node", "web-1"]));
        assert!(parse(&["--selector", "role=web"]));
        assert!(!parse(&[]));
        assert!(!parse(&["--node", "web-1", "--selector", "role=web"]));
    }

    #[test]
    fn a_value_is_never_an_argument() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["secretfs", "secret"], args].concat());
        assert!(parse(&["create", "db", "-"]).is_ok());
        assert!(parse(&["create", "db", "file"]).is_ok());
        assert!(parse(&["create", "db", "--generate"]).is_ok());
        assert!(parse(&["create", "db", "--generate=64"]).is_ok());
        for refused in
            [&["create", "db"][..], &["create", "db", "-", "--generate"], &["create", "db", "--generate=8"]]
        {
            assert!(parse(refused).is_err(), "{refused:?}");
        }
    }
}
