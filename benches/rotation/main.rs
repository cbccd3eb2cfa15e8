//! How soon a rotation is seen: from the return of `secretfs secret rotate` to the end of the first
//! open and read that has the new bytes, by a program in a mount namespace of its own with the
//! service's directory bind mounted, as a container has it. Rotations and reads take turns.
//!
//! The last column is the command itself, from start to return.
//!
//! Needs root, /dev/fuse and unshare: `cargo bench --bench rotation -- [ROTATIONS]`.
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

#[path = "../cold_read/dev.rs"]
mod dev;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};

use self::dev::Dev;

const ROTATIONS: usize = 1_000;
/// Far more than a rotation takes.
const DEADLINE: Duration = Duration::from_secs(30);
/// Set to the file in the process that reads.
const READ: &str = "ROTATION_READER";

fn main() {
    if let Ok(file) = std::env::var(READ) {
        return read_on_demand(&file);
    }
    let rotations = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROTATIONS);
    let dev = Dev::start();
    let mut container = Container::start(&dev);
    let (mut delays, mut commands) = (Vec::new(), Vec::new());
    for number in 0..rotations {
        let value = format!("value-{number}");
        let began = Instant::now();
        dev.run(&["secret", "rotate", "api_key", "-"], value.as_bytes());
        let returned = Instant::now();
        commands.push(returned - began);
        container.read_until(&value);
        delays.push(returned.elapsed());
    }
    let mut table = Table::new();
    let header = [format!("{rotations} rotations"), "to the new bytes".to_owned(), "the command".to_owned()];
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for (name, part) in [("median", 0.5), ("p99", 0.99), ("most", 1.0)] {
        table.add_row([name.to_owned(), quantile(&mut delays, part), quantile(&mut commands, part)]);
    }
    println!("{table}");
}

/// A program in a mount namespace of its own.
struct Container {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _directory: tempfile::TempDir,
}

impl Container {
    fn start(dev: &Dev) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let script = "mount --bind \"$0\" \"$1\" && exec \"$2\"";
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .args([dev.mount.join("demo").as_path(), directory.path()])
            .arg(std::env::current_exe().expect("this program"))
            .env(READ, directory.path().join("api_key"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let orders = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, orders, answers, _directory: directory }
    }

    /// Lets it open and read again and again, until it has these bytes.
    fn read_until(&mut self, value: &str) {
        writeln!(self.orders, "{value}").expect("the reader lives");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the reader lives");
        assert_eq!(line.trim_end(), value);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_on_demand(file: &str) {
    for wanted in std::io::stdin().lines() {
        let wanted = wanted.expect("a line");
        let deadline = Instant::now() + DEADLINE;
        while fs::read(file).expect("a value") != wanted.as_bytes() {
            assert!(Instant::now() < deadline, "a rotation is not seen");
        }
        println!("{wanted}");
    }
}

fn quantile(durations: &mut [Duration], part: f64) -> String {
    durations.sort_unstable();
    let duration = durations[((durations.len() - 1) as f64 * part).round() as usize];
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
