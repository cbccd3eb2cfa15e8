//! A shell script under `secretfs run`.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::area::Logs;
use super::deadline;
use super::process::{Daemon, SECRETFS};

pub(crate) struct Supervised(Daemon);

/// The program under test where no signal is ignored. A supervisor goes on ignoring what was ignored when
/// it was started, as SIGHUP is where the suite runs under nohup.
pub(crate) fn supervisor() -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(SECRETFS);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

impl Supervised {
    /// Starts `script` over a directory; `options` are those of `secretfs run`.
    pub(crate) fn start(directory: &Path, options: &[&str], script: &str, logs: &Logs) -> Self {
        let mut command = supervisor();
        command.args(arguments(directory, options, script));
        Self::start_by(&mut command, logs)
    }

    /// Starts it by a command of the test's own.
    pub(crate) fn start_by(command: &mut Command, logs: &Logs) -> Self {
        Self(Daemon::start("run", command, logs))
    }

    /// How many of the lines that script and supervisor have printed begin with these words.
    pub(crate) fn count(&self, words: &str) -> usize {
        self.log().lines().filter(|line| line.starts_with(words)).count()
    }

    /// Waits until it has printed so many such lines.
    pub(crate) fn wait_for(&self, words: &str, count: usize) {
        deadline::eventually(&format!("{count} times {words:?}"), || {
            let seen = self.count(words);
            assert!(seen <= count, "{seen} times {words:?}, not {count}: {}", self.log());
            seen == count
        });
    }

    /// Waits until the supervisor has logged this.
    pub(crate) fn wait_for_log(&self, words: &str) {
        self.0.wait_for_log(words);
    }

    pub(crate) fn log(&self) -> String {
        self.0.log()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// Waits until it ends; the exit code.
    pub(crate) fn wait(&mut self) -> i32 {
        self.0.wait()
    }
}

/// The arguments of `secretfs` for a script.
pub(crate) fn arguments(directory: &Path, options: &[&str], script: &str) -> Vec<String> {
    let directory = directory.to_str().expect("a plain path");
    let begin = ["run", "--directory", directory];
    let end = ["--", "/bin/sh", "-c", script];
    [&begin[..], options, &end].concat().into_iter().map(str::to_owned).collect()
}

/// The files that a program needs beside its own, where it is linked with shared libraries.
pub(crate) fn shared_libraries(program: &str) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
