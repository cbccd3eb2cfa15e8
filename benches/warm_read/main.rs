//! What secretfs costs over the cheapest FUSE file system that could do the same.
//!
//! A program opens a cached secret, asks for its size, reads it and closes it: against the built
//! `secretfs dev`, and against a bare file system that answers the same requests from constants. All
//! run on one CPU, because a round trip between CPUs costs twice as much and varies, but for the manager,
//! which has the opens to record; rounds of both alternate, so that a noisy host disturbs both.
//!
//! Needs root, /dev/fuse and two CPUs: `cargo bench --bench warm_read`.
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

mod bare;
#[allow(dead_code, reason = "another bench has a use for the rest")]
mod daemon;

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

use self::daemon::Daemon;

const ROUNDS: usize = 11;
const READS_PER_ROUND: u32 = 5_000;
/// How much slower than the bare file system secretfs may be.
const MOST: f64 = 1.3;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, point, size] = arguments.as_slice()
        && command == bare::COMMAND
    {
        bare::serve(Path::new(point), size.parse()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    compare()
}

fn compare() -> Result<ExitCode, Box<dyn Error>> {
    // Inherited by both daemons.
    let mut one = CpuSet::new();
    one.set(0);
    rustix::thread::sched_setaffinity(None, &one)?;

    let secretfs = Daemon::secretfs()?;
    secretfs.move_to(1)?;
    let size = fs::metadata(secretfs.file())?.len();
    let bare = Daemon::bare(size)?;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..ROUNDS {
        theirs.push(round(bare.file())?);
        ours.push(round(secretfs.file())?);
    }
    let (ours, theirs) = (Spread::of(ours), Spread::of(theirs));
    let ratio = ours.median.as_secs_f64() / theirs.median.as_secs_f64();
    let verdict = if ratio <= MOST { "met" } else { "missed" };
    println!(
        "open + fstat + read + close of {size} bytes, one CPU, µs, {ROUNDS} rounds of {READS_PER_ROUND}\n"
    );
    println!("              median      least      most");
    println!("bare FUSE  {theirs}");
    println!("secretfs   {ours}");
    println!("\nratio {ratio:.2}; at most {MOST}: {verdict}");
    Ok(if ratio <= MOST { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The time of one read, on average over a round.
fn round(path: &Path) -> io::Result<Duration> {
    let mut buffer = [0; 4096];
    let began = Instant::now();
    for _ in 0..READS_PER_ROUND {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let read = file.read(&mut buffer)?;
        if read as u64 != size {
            return Err(io::Error::other(format!("{read} bytes where {size} were promised")));
        }
    }
    Ok(began.elapsed() / READS_PER_ROUND)
}

struct Spread {
    median: Duration,
    least: Duration,
    most: Duration,
}

impl Spread {
    /// At least one time.
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let last = times.len() - 1;
        Self { median: times[last / 2], least: times[0], most: times[last] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        write!(f, "{:>10.2} {:>10.2} {:>10.2}", micros(self.median), micros(self.least), micros(self.most))
    }
}
