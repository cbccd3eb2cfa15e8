//! What the death of a worker costs who reads, and what holder and workers keep in memory.
//!
//! One program reads a cached secret without a pause while the active worker is killed with SIGKILL
//! again and again. A stall is the time from the kill to the end of the read that it hit. Beside it
//! stand the longest reads of as much time without a kill: on a shared machine some are long anyway.
//! Then a thousand targets are cached, and the processes' resident memory is read from /proc.
//!
//! Needs root and /dev/fuse: `cargo bench --bench worker_death`.
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

#[path = "../cold_read/dev.rs"]
mod dev;

use std::error::Error;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use self::dev::Dev;

const KILLS: usize = 200;
const TARGETS: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dev = Dev::start();
    let holder = dev.config.with_file_name("node-holder.sock");
    let file = dev.mount.join("demo/api_key");
    let expected = fs::read(&file)?;

    let ending = AtomicBool::new(false);
    let (reads, kills) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&file, &expected, &ending));
        let kills = kill_again_and_again(&holder);
        ending.store(true, Ordering::Relaxed);
        (reader.join().expect("the reader"), kills)
    });
    let kills = kills?;
    let failures = reads.iter().filter(|read| !read.good).count();
    let mut stalls: Vec<Duration> = kills.iter().filter_map(|kill| stall(&reads, *kill)).collect();
    stalls.sort();
    let mut quiet: Vec<Duration> =
        reads.iter().filter(|read| !kills.iter().any(|kill| read.is_near(*kill))).map(Read::took).collect();
    quiet.sort();
    println!("{KILLS} kills -9 of the active worker under {} reads: {failures} failed\n", reads.len());
    println!("                          median       90 %       99 %       most   (µs)");
    println!("a read that a kill hit{}", row(&stalls));
    println!("any other read        {}", row(&quiet));

    cache_targets(&dev)?;
    let status = ask(&holder)?;
    println!("\nresident memory with {TARGETS} targets cached, kB");
    for process in ["pid", "active", "standby"] {
        let pid = status[process].as_u64().unwrap_or(0);
        let name = if process == "pid" { "holder" } else { process };
        println!("{name:<10}{:>8}", resident(pid)?);
    }
    Ok(())
}

struct Read {
    began: Instant,
    ended: Instant,
    good: bool,
}

impl Read {
    fn took(&self) -> Duration {
        self.ended - self.began
    }

    /// Whether a kill and what follows it may have had to do with this read.
    fn is_near(&self, kill: Instant) -> bool {
        self.ended >= kill && self.began <= kill + Duration::from_millis(100)
    }
}

fn read_until(file: &Path, expected: &[u8], ending: &AtomicBool) -> Vec<Read> {
    let mut reads = Vec::new();
    while !ending.load(Ordering::Relaxed) {
        let began = Instant::now();
        let good = fs::read(file).is_ok_and(|value| value == expected);
        reads.push(Read { began, ended: Instant::now(), good });
    }
    reads
}

fn stall(reads: &[Read], kill: Instant) -> Option<Duration> {
    // The kill is in effect a little after it was asked for, so the reads soon after are hit as well.
    let hit = reads.iter().filter(|read| read.ended >= kill && read.began <= kill + Duration::from_millis(5));
    hit.map(|read| read.ended - read.began.max(kill)).max()
}

fn kill_again_and_again(holder: &Path) -> Result<Vec<Instant>, std::io::Error> {
    let mut kills = Vec::new();
    while kills.len() < KILLS {
        let status = ask(holder)?;
        let (Some(active), Some(_)) = (status["active"].as_i64(), status["standby"].as_u64()) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        // The standby has just become ready; the next kill finds everything at rest.
        std::thread::sleep(Duration::from_millis(20));
        kills.push(Instant::now());
        if let Some(pid) = i32::try_from(active).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::KILL)?;
        }
        // Not asked all the time: that would take the processor away from who takes over.
        while ask(holder)?["active"].as_i64().is_none_or(|now| now == active) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(kills)
}

fn ask(holder: &Path) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(holder)?;
    stream.write_all(b"\"Status\"\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(serde_json::from_slice::<Value>(&answer)?["Ok"].take())
}

fn cache_targets(dev: &Dev) -> std::io::Result<()> {
    for target in 0..TARGETS {
        dev.run(&["service", "attach", "demo", "api_key", "--target", &format!("t{target}")], b"");
    }
    let last = dev.mount.join(format!("demo/t{}", TARGETS - 1));
    while !last.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    (0..TARGETS).try_for_each(|target| fs::read(dev.mount.join(format!("demo/t{target}"))).map(drop))
}

fn resident(pid: u64) -> std::io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse().unwrap_or(0))
}

fn row(times: &[Duration]) -> String {
    let at = |share: f64| times.get(((times.len().max(1) - 1) as f64 * share) as usize).copied();
    let micros = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1e6;
    [0.5, 0.9, 0.99, 1.0].map(|share| format!("{:>11.0}", micros(at(share)))).concat()
}
