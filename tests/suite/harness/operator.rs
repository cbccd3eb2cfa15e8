//! The command line, as an operator types it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::area::Logs;
use super::clock::shift_clock;
use super::process::{Outcome, finish, secretfs_on};

/// Runs commands under one configuration file.
#[derive(Clone)]
pub(crate) struct Operator {
    config: PathBuf,
    environment: Option<String>,
    host: Option<PathBuf>,
    logs: Logs,
}

impl Operator {
    pub(crate) fn new(config: &Path, environment: Option<&str>, logs: &Logs) -> Self {
        let environment = environment.map(str::to_owned);
        Self { config: config.to_owned(), environment, host: None, logs: logs.clone() }
    }

    /// The same operator in another environment.
    pub(crate) fn within(&self, environment: &str) -> Self {
        Self { environment: Some(environment.to_owned()), ..self.clone() }
    }

    /// The same operator on another host.
    pub(crate) fn on(self, host: Option<&Path>) -> Self {
        Self { host: host.map(Path::to_owned), ..self }
    }

    /// The directory of its credentials.
    pub(crate) fn directory(&self) -> &Path {
        self.config.parent().expect("a file in a directory")
    }

    /// Runs a command, however it ends.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with(arguments, b"")
    }

    /// Runs a command under another clock, however it ends.
    pub(crate) fn run_at(&self, clock: Option<&str>, arguments: &[&str]) -> Outcome {
        let mut command = self.command(arguments);
        if let Some(off) = clock {
            shift_clock(&mut command, off);
        }
        finish(&mut command, b"", &self.logs)
    }

    /// Runs a command with `stdin`, however it ends.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Outcome {
        finish(&mut self.command(arguments), stdin, &self.logs)
    }

    /// Runs a command that must succeed; what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, b"")
    }

    /// Runs a command with `stdin` that must succeed; what it printed.
    pub(crate) fn ok_with(&self, arguments: &[&str], stdin: &[u8]) -> String {
        let outcome = self.run_with(arguments, stdin);
        assert_eq!(outcome.code, 0, "secretfs {arguments:?}: {}", outcome.stderr);
        outcome.stdout
    }

    /// Runs a command with `--json` that must succeed; what it printed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {printed:?}"))
    }

    /// A command that the caller starts.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = secretfs_on(self.host.as_deref());
        command.args(arguments).env("SECRETFS_CONFIG", &self.config).env("SECRETFS_LOG", "debug");
        if let Some(environment) = &self.environment {
            command.env("SECRETFS_ENV", environment);
        }
        command
    }
}
