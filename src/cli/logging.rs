//! Structured logs of the daemons, to stderr.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::Global;
use super::error::Failure;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people and for journald.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs what the user asked for, or else what `default` lets through, from now on.
pub(super) fn start(global: &Global, default: &str) -> Result<(), Failure> {
    let filter = global.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::usage(format!("--log {filter:?} is not a filter: {error}")))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match global.log_format {
        LogFormat::Text => subscriber.with_ansi(false).try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    }
    .map_err(|error| Failure::failed(format!("cannot start logging: {error}")))
}
