//! `secretfs run`: a program under supervision.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use secretfs_wire::ServiceName;

use super::Global;
use super::error::Failure;
use crate::run::{self, OnChange, Options, RestartLimit, RunError};

pub(super) const EXAMPLE: &str = "Examples:\n  \
    secretfs run --service web --on-change SIGHUP -- nginx -g 'daemon off;'\n  \
    secretfs run --service web --on-change 'exec:nginx -t && kill -HUP $SECRETFS_PID' -- nginx -g 'daemon off;'\n  \
    secretfs run --directory /run/secrets --on-change restart -- ./server\n\n\
    It ends with the program, with its exit code; 128 and the signal's number if a signal ended it; \
    127 if there is no such program, 126 if it cannot be executed.";

/// Where nodes mount all services by default.
const MOUNT: &str = "/run/secrets";

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The service whose files are followed, at /run/secrets/SERVICE
    #[arg(long, required_unless_present = "directory")]
    service: Option<ServiceName>,
    /// The directory whose files are followed, where it is another one: in a container, /run/secrets
    #[arg(long, value_name = "DIR", conflicts_with = "service")]
    directory: Option<PathBuf>,
    /// What a change leads to: a signal such as SIGHUP, `restart`, or `exec:COMMAND`, run by /bin/sh
    #[arg(long, value_name = "ACTION", default_value = "restart")]
    on_change: OnChange,
    /// How long nothing may change before a change is acted on, so that many become one
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = humantime::parse_duration)]
    debounce: Duration,
    /// How long a program that is restarted has from SIGTERM to SIGKILL
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    stop_timeout: Duration,
    /// How often it is restarted at most; what is too much waits
    #[arg(long, value_name = "COUNT/TIME", default_value = "5/1m")]
    restart_limit: RestartLimit,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) async fn run(args: RunArgs, global: &Global) -> Result<ExitCode, Failure> {
    global.start_logging("info")?;
    let service = args.service.map(|service| Path::new(MOUNT).join(service.as_str()));
    let directory = args.directory.or(service).unwrap_or_else(|| PathBuf::from(MOUNT));
    let options = Options {
        directory,
        on_change: args.on_change,
        debounce: args.debounce,
        stop_timeout: args.stop_timeout,
        restart_limit: args.restart_limit,
        command: args.command,
    };
    run::run(options).await.map(ExitCode::from).map_err(|error| match &error {
        RunError::Directory { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::not_found(&error).hint(
                "is the service assigned to this node and the node running? --directory names another place",
            )
        }
        _ => Failure::from_error(&error),
    })
}
