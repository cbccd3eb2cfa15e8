//! Structured logs of the daemons, to stderr.

use std::io::Write as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The variables that carry a daemon's choice to the processes it starts.
pub(crate) const FILTER: &str = "SECRETFS_LOG";
pub(crate) const FORMAT: &str = "SECRETFS_LOG_FORMAT";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people and for journald.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs what `filter` lets through, from now on.
///
/// # Errors
/// What is wrong with the filter.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    let subscriber = tracing_subscriber::fmt().with_env_filter(parse(filter)?).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.with_ansi(false).try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    }
    .map_err(|error| format!("cannot start logging: {error}"))
}

/// Says what is wrong with a filter.
///
/// # Errors
/// That.
pub(crate) fn check(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|error| format!("{filter:?} is not a filter: {error}"))
}

/// Logs as the process that started this one does.
pub(crate) fn inherit() {
    let filter = std::env::var(FILTER).unwrap_or_else(|_| "info".to_owned());
    let json = std::env::var(FORMAT).is_ok_and(|format| format == "json");
    // The filter was checked by whoever set it.
    let _ = start(&filter, if json { LogFormat::Json } else { LogFormat::Text });
}

/// The variables that make another process log as this one does.
pub(crate) fn variables() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    [FILTER, FORMAT, "RUST_BACKTRACE"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// What a process says when it cannot go on: the same line that a command ends with, whatever is
/// logged.
pub(crate) fn last_words(reason: &str) {
    let _ = writeln!(std::io::stderr(), "secretfs: {}", reason.replace(['\n', '\r'], " "));
}
