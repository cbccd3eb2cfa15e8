//! What it costs a program that its opens are on record.
//!
//! A program opens a cached secret, asks for its size, reads it and closes it: with `secretfs dev` as it is,
//! and with the same program told to keep no record, which takes the feature `unaudited`. Reader and node are
//! on one CPU, the managers on another one, as they are on another host in earnest. Rounds alternate, and
//! each begins when the last one's records are told.
//!
//! Two figures: the median of the single opens, which is what a program notices, and the whole time of a round
//! by its opens, in which all is that the node does beside, above all telling the manager, while somebody
//! opens files without a pause.
//!
//! Needs root, /dev/fuse and two CPUs: `cargo bench --bench audited_open --features unaudited`.
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

#[allow(dead_code, reason = "of the bench that it is shared with")]
#[path = "../warm_read/bare.rs"]
mod bare;
#[allow(dead_code, reason = "of the bench that it is shared with")]
#[path = "../warm_read/daemon.rs"]
mod daemon;

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

use self::daemon::Daemon;

const ROUNDS: usize = 11;
const READS_PER_ROUND: usize = 5_000;
/// How much slower records may make an open.
const MOST: f64 = 1.1;
/// Long enough for the records of a round to be told.
const PAUSE: Duration = Duration::from_secs(1);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut one = CpuSet::new();
    one.set(0);
    rustix::thread::sched_setaffinity(None, &one)?;
    let (audited, unaudited) = (Daemon::secretfs()?, Daemon::unaudited()?);
    audited.move_to(1)?;
    unaudited.move_to(1)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(Round::of(unaudited.file())?);
        with.push(Round::of(audited.file())?);
        std::thread::sleep(PAUSE);
    }
    println!("open + fstat + read + close, one CPU, µs, {ROUNDS} rounds of {READS_PER_ROUND}\n");
    println!("                         audited  unaudited  ratio");
    let ratio = show("median of single opens", &with, &without, |round| round.median);
    show("a round, by its opens ", &with, &without, |round| round.whole);
    let verdict = if ratio <= MOST { "met" } else { "missed" };
    println!("\nratio {ratio:.2}; at most {MOST}: {verdict}");
    Ok(if ratio <= MOST { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One round.
struct Round {
    median: Duration,
    /// Its time, by the number of its opens.
    whole: Duration,
}

impl Round {
    fn of(path: &Path) -> io::Result<Self> {
        let mut buffer = [0; 4096];
        let mut times = Vec::with_capacity(READS_PER_ROUND);
        let began = Instant::now();
        for _ in 0..READS_PER_ROUND {
            let one = Instant::now();
            let mut file = File::open(path)?;
            let size = file.metadata()?.len();
            if file.read(&mut buffer)? as u64 != size {
                return Err(io::Error::other("a short read"));
            }
            drop(file);
            times.push(one.elapsed());
        }
        let whole = began.elapsed() / u32::try_from(READS_PER_ROUND).unwrap_or(u32::MAX);
        times.sort_unstable();
        Ok(Self { median: times[READS_PER_ROUND / 2], whole })
    }
}

/// Prints the medians over the rounds, and tells their ratio.
fn show(what: &str, with: &[Round], without: &[Round], figure: impl Fn(&Round) -> Duration) -> f64 {
    let median = |rounds: &[Round]| {
        let mut all: Vec<_> = rounds.iter().map(&figure).collect();
        all.sort_unstable();
        all[all.len() / 2].as_secs_f64() * 1e6
    };
    let (with, without) = (median(with), median(without));
    let ratio = with / without;
    println!("{what}  {with:>8.2}   {without:>8.2}   {ratio:.2}");
    ratio
}
