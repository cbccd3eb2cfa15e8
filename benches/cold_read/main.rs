//! A cold read, through the kernel, the node, TLS, the manager, its store and back, against the
//! floor below it: a warm keep-alive GET of 1 KiB over the same TLS stack (reqwest, rustls with
//! aws-lc, HTTP/2, client certificates) from a server that does nothing else.
//!
//! Both run in turns in one run with every process on one CPU; medians and their ratio are printed.
//!
//!     cargo bench --bench cold_read
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

mod bare;
mod dev;

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use rustix::thread::{CpuSet, sched_setaffinity};

use self::bare::BareServer;
use self::dev::Dev;

/// Each value is read once, so this is also how many cold reads are measured.
const SECRETS: usize = 300;
const ROUNDS: usize = 10;
const GETS: usize = 500;
const VALUE: [u8; 1024] = [b'x'; 1024];

fn main() {
    if let Ok(pem) = std::env::var(bare::SERVE) {
        return bare::serve(&pem);
    }
    pin_to_one_cpu();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let bare = BareServer::start();
    let dev = Dev::start();
    fill(&dev);

    let mut gets = Vec::new();
    let mut reads = Vec::new();
    let mut buffer = Vec::with_capacity(4096);
    let directory = dev.mount.join("bench");
    let names: Vec<_> = (0..SECRETS).map(|index| directory.join(format!("s{index:04}"))).collect();
    for chunk in names.chunks(SECRETS / ROUNDS) {
        gets.extend(runtime.block_on(bare.get_many(GETS)));
        for path in chunk {
            let start = Instant::now();
            slurp(path, &mut buffer);
            reads.push(start.elapsed());
            assert_eq!(buffer.len(), 1024);
        }
    }
    let (get, read) = (median(&mut gets), median(&mut reads));
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(["1 KiB, one CPU", "median, µs", "ratio"]);
    table.add_row(["warm GET, bare server", &micros(get), "1"]);
    table.add_row([
        "cold open+fstat+read+close",
        &micros(read),
        &format!("{:.2}", read.as_secs_f64() / get.as_secs_f64()),
    ]);
    println!("{table}");
}

/// A service with many secrets of 1 KiB, seen by the node.
fn fill(dev: &Dev) {
    dev.run(&["service", "create", "bench"], &[]);
    for index in 0..SECRETS {
        let name = format!("s{index:04}");
        dev.run(&["secret", "create", &name, "-"], &VALUE);
        dev.run(&["service", "attach", "bench", &name], &[]);
    }
    dev.run(&["service", "assign", "bench", "--node", "dev"], &[]);
    let last = dev.mount.join("bench").join(format!("s{:04}", SECRETS - 1));
    let deadline = Instant::now() + Duration::from_secs(30);
    while !last.exists() {
        assert!(Instant::now() < deadline, "the manifest did not arrive");
        std::thread::yield_now();
    }
}

/// Keeps this process, and those that it starts from now on, on CPU 0: across CPUs a FUSE round
/// trip takes two to five times as long and varies as much.
fn pin_to_one_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(0);
    sched_setaffinity(None, &cpus).expect("pinned");
}

/// The middle of some durations.
fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

/// A duration as microseconds.
fn micros(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e6)
}

/// Open, fstat, read to the end, close: what a program does with its secret.
fn slurp(path: &Path, buffer: &mut Vec<u8>) {
    buffer.clear();
    let mut file = std::fs::File::open(path).expect("opened");
    file.metadata().expect("stat");
    file.read_to_end(buffer).expect("read");
}
