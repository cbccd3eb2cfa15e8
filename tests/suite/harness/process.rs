//! Processes: commands that end and daemons that are ended.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use super::area::Logs;
use super::deadline;

/// The program under test.
pub(crate) const SECRETFS: &str = env!("CARGO_BIN_EXE_secretfs");

/// The program under test, with nothing in its environment that would change what it does.
pub(crate) fn secretfs() -> Command {
    let mut command = Command::new(SECRETFS);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// The program under test on a host of a [`Network`](super::network::Network), or on this one.
pub(crate) fn secretfs_on(host: Option<&Path>) -> Command {
    let Some(host) = host else { return secretfs() };
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", host.display())).arg(SECRETFS);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// How a command ended and what it printed.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code; a signal is 128 and its number, as in a shell.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end, or fails when it has none in time.
pub(crate) fn finish(command: &mut Command, stdin: &[u8], logs: &Logs) -> Outcome {
    let (out, err) = (logs.file("command.stdout"), logs.file("command.stderr"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(File::create(&out).expect("a log file"))
        .stderr(File::create(&err).expect("a log file"))
        .spawn()
        .expect("the command starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let stdin = stdin.to_vec();
    // In a thread, because who does not read must not hang the test; and no error if it does not.
    thread::spawn(move || pipe.write_all(&stdin));
    let mut guard = Guard(child);
    let status = guard.wait(&format!("{command:?} ends"));
    Outcome { code: code(status), stdout: text(&out), stderr: text(&err) }
}

/// A running daemon whose output goes to a file. Asked to end, then killed, when it is dropped.
pub(crate) struct Daemon {
    guard: Guard,
    name: String,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn start(name: &str, command: &mut Command, logs: &Logs) -> Self {
        let log = logs.file(&format!("{name}.log"));
        let file = File::create(&log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second descriptor"))
            .stderr(file)
            .spawn()
            .expect("the daemon starts");
        Self { guard: Guard(child), name: name.to_owned(), log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.guard.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.guard.signal(signal);
    }

    /// Whether it still runs, or how it ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.guard.0.try_wait().expect("a child of ours").map(code)
    }

    /// Waits until it ends; the exit code.
    pub(crate) fn wait(&mut self) -> i32 {
        code(self.guard.wait(&format!("{} ends", self.name)))
    }

    /// Waits until it has logged this.
    pub(crate) fn wait_for_log(&self, words: &str) {
        deadline::eventually(&format!("{} logs {words:?}", self.name), || self.log().contains(words));
    }

    pub(crate) fn log(&self) -> String {
        text(&self.log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::TERM);
            // A stopped process takes SIGTERM only when it goes on.
            self.signal(Signal::CONT);
            if !thread::panicking() {
                self.wait();
            }
        }
        if thread::panicking() {
            show_end_of_log(&self.name, &self.log());
        }
    }
}

/// A child that is killed and reaped when it is dropped.
struct Guard(Child);

impl Guard {
    fn wait(&mut self, what: &str) -> ExitStatus {
        deadline::poll(what, || self.0.try_wait().expect("a child of ours"))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a process id");
        // It may have ended by itself; it is not reaped yet, so the id is no other's.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("an ended process")
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

#[allow(clippy::print_stderr, reason = "a failed test shows what its daemons said")]
fn show_end_of_log(name: &str, log: &str) {
    let lines: Vec<_> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(40)..].join("\n");
    eprintln!("---- the end of the log of {name}:\n{end}");
}
