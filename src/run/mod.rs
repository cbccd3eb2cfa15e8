//! `secretfs run`: a program, and what is done with it when its secrets change.
//!
//! - [`directory`]: what a directory of secrets presents, by version and never by value
//! - [`debounce`]: many changes become one
//! - [`watch`], [`names`]: a thread that waits for changes of the directory, through the mount alone
//! - [`program`], [`launcher`]: the program, which ends with its supervisor
//! - [`signals`], [`orphans`]: what a supervisor owes the kernel
//! - [`supervisor`]: all of it together

mod action;
mod debounce;
mod directory;
pub(crate) mod launcher;
mod limit;
mod names;
mod orphans;
mod program;
mod signals;
mod supervisor;
mod watch;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use action::OnChange;
pub(crate) use limit::RestartLimit;

/// What is run, and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// The directory whose files are followed.
    pub(crate) directory: PathBuf,
    /// What a change leads to.
    pub(crate) on_change: OnChange,
    /// How long the directory must be quiet before a change is acted on.
    pub(crate) debounce: Duration,
    /// How long the program has from SIGTERM to SIGKILL when it is restarted.
    pub(crate) stop_timeout: Duration,
    /// How often it is restarted at most.
    pub(crate) restart_limit: RestartLimit,
    /// The program and its arguments.
    pub(crate) command: Vec<OsString>,
}

/// Why a program could not be supervised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The directory is not there, or may not be listed.
    #[error("cannot follow {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Signals or threads could not be had.
    #[error("cannot supervise a program")]
    System(#[source] io::Error),
    /// The program could not be started.
    #[error("cannot start the program")]
    Start(#[source] io::Error),
}

/// Supervises a program to its end. The exit code is the program's; a signal is 128 and its number.
///
/// To be awaited on the thread that lives as long as the process does: the kernel ends the program
/// together with the thread that started it.
pub(crate) async fn run(options: Options) -> Result<u8, RunError> {
    let signals = signals::Signals::register().map_err(RunError::System)?;
    // Before the program starts: it reads what is there now or something newer.
    let changes = watch::start(options.directory.clone(), options.debounce)?;
    supervisor::Supervisor::start(options)?.supervise(signals, changes).await
}
