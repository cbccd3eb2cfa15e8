//! A rotation on its way to many nodes: from the return of the call to the moment when each node has
//! the new manifest; then the same again with nodes that fetch the new value, all at once, to the
//! moment when each has opened it; and what a connected node costs the manager in memory.
//!
//! The manager is the product, as a process of its own with its store on disk. The nodes are simulated
//! by this one: each has joined with a token and has its own certificate, connection and change stream,
//! as a real one does. Manager and nodes share the machine's processors.
//!
//!     cargo bench --bench fleet -- [NODES]
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

mod manager;
mod node;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use futures::StreamExt as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;

use self::manager::Manager;
use self::node::{Heard, SharedKeys};

const NODES: usize = 2_000;
const ROTATIONS: u64 = 30;
/// How many join and connect at once.
const AT_ONCE: usize = 32;
/// Far more than a rotation takes.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() {
    let nodes = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(NODES);
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).expect("more open files");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(nodes));
}

async fn measure(nodes: usize) {
    let manager = Manager::start(nodes);
    manager.prepare().await;
    let keys = SharedKeys::generate();

    let began = Instant::now();
    let joining = futures::stream::iter(0..nodes).map(|number| node::join(&manager, &keys, number));
    let joined: Vec<_> = joining.buffer_unordered(AT_ONCE).collect().await;
    let join = began.elapsed();

    let (before, began) = (manager.memory(), Instant::now());
    let (heard, mut hears) = mpsc::unbounded_channel();
    let fetching = Arc::new(AtomicBool::new(false));
    let following =
        futures::stream::iter(joined).map(|node| node.follow(&manager, heard.clone(), fetching.clone()));
    let _streams: Vec<_> = following.buffer_unordered(AT_ONCE).collect().await;
    wait_for_all(&mut hears, nodes, 1).await;
    let connect = began.elapsed();
    let memory = (manager.memory() - before) / nodes as u64;

    let (mut delays, mut last, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for version in 2..=1 + 2 * ROTATIONS {
        let fetches = version > 1 + ROTATIONS;
        fetching.store(fetches, Relaxed);
        manager.rotate(version).await;
        let returned = Instant::now();
        let reached = wait_for_all(&mut hears, nodes, version).await;
        let since = |at: fn(&Heard) -> Instant| {
            reached.iter().map(move |heard| at(heard).saturating_duration_since(returned))
        };
        if fetches {
            values.extend(since(|heard| heard.fetched));
        } else {
            last.extend(since(|heard| heard.at).max());
            delays.extend(since(|heard| heard.at));
        }
    }
    print(nodes, [join, connect], memory, [delays, last, values]);
}

/// Waits until every node has a version.
async fn wait_for_all(hears: &mut mpsc::UnboundedReceiver<Heard>, nodes: usize, version: u64) -> Vec<Heard> {
    let mut reached = Vec::with_capacity(nodes);
    let all = async {
        while reached.len() < nodes {
            let heard = hears.recv().await.expect("the nodes live");
            assert_eq!(heard.version, version, "rotations are made one after the other");
            reached.push(heard);
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("a rotation reaches every node");
    reached
}

fn print(
    nodes: usize,
    [join, connect]: [Duration; 2],
    memory: u64,
    [mut delays, mut last, mut values]: [Vec<Duration>; 3],
) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([format!("{nodes} nodes"), String::new()]);
    let rotation = format!("{ROTATIONS} rotations");
    for (what, durations) in [
        ("the manifest, at a node", &mut delays),
        ("the manifest, at the last node", &mut last),
        ("the value, at a node", &mut values),
    ] {
        for (name, part) in [("median", 0.5), ("p99", 0.99), ("most", 1.0)] {
            table.add_row([format!("{rotation}: {what}, {name}"), millis(quantile(durations, part))]);
        }
    }
    table.add_row(["the manager's memory for a connected node".to_owned(), format!("{} KiB", memory >> 10)]);
    table.add_row(["all join".to_owned(), format!("{:.1} s", join.as_secs_f64())]);
    table.add_row(["all connect".to_owned(), format!("{:.1} s", connect.as_secs_f64())]);
    println!("{table}");
}

fn quantile(durations: &mut [Duration], part: f64) -> Duration {
    durations.sort_unstable();
    durations[((durations.len() - 1) as f64 * part).round() as usize]
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
