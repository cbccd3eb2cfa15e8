//! The network between node and manager loses every packet for a while. Nobody is told: what is sent is
//! not answered.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::network::Network;
use crate::harness::requirement::trials;
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount, Network];
    no_warm_read_notices_a_cut_and_what_was_missed_is_there_within_two_seconds,
}

/// How long the network is cut, in seconds: longer than anything waits for the other side. Another value
/// comes from this variable.
const CUT: (&str, u64) = ("SECRETFS_TEST_CUT_SECONDS", 20);
/// How soon after a cut all is there that was missed.
const HEALED: Duration = Duration::from_secs(2);
/// Whatever waits for the manager waits longer: 1.8 s. Most reads are much faster, also on a machine that
/// has other things to do.
const LOCAL: Duration = Duration::from_millis(1500);
const MOSTLY: Duration = Duration::from_millis(200);

const READERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(10);

fn no_warm_read_notices_a_cut_and_what_was_missed_is_there_within_two_seconds() {
    let network = Network::new();
    let site = Site::on(&network);
    site.serve("web-1", "web", &[("warm", b"value"), ("rotated", b"old"), ("removed", b"gone")]);
    site.create_secret("new", b"new");
    let mut node = site.host("web-1").on(&network.hosts()[1]);
    site.admit(&node);
    node.run_connected();
    for (name, value) in [("warm", &b"value"[..]), ("rotated", b"old"), ("removed", b"gone")] {
        node.wait_for(&format!("web/{name}"), value);
    }
    let start = Instant::now();
    let readers = Readers::start(&node.path("web/warm"));
    readers.wait_for(READERS * 300);

    let began = Instant::now();
    network.cut();
    site.rotate("rotated", b"changed");
    site.operator.ok(&["service", "detach", "web", "removed"]);
    site.attach("web", "new", &[]);
    deadline::eventually("the node notices", || node.status()["connected"] == false);
    let noticed = began.elapsed();
    let cut = std::env::var(CUT.0).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(CUT.1);
    // Not a wait for anything: this is how long the cut is.
    thread::sleep(Duration::from_secs(cut).saturating_sub(began.elapsed()));
    assert_eq!(
        node.read("web/rotated").expect("last known good"),
        b"old",
        "a cut that lets something through"
    );

    let healed = Instant::now();
    network.heal();
    let seen = [
        when(healed, "the rotation", || reads(&node, "web/rotated", b"changed")),
        when(healed, "the removal", || node.path("web/removed").symlink_metadata().is_err()),
        when(healed, "the new target", || reads(&node, "web/new", b"new")),
    ];
    readers.wait_for(READERS * 100);
    let all = readers.end();
    let phases = [(start, began), (began, healed), (healed, Instant::now())];
    let phases = phases.map(|(from, to)| Phase::of(&all, from, to));
    say(cut, noticed, &seen, &phases);
    for phase in &phases {
        assert!(phase.failures.is_empty(), "{:?}", phase.failures);
        assert!(phase.longest() < LOCAL, "a warm read took {:?}", phase.longest());
        assert!(phase.quantile(0.95) < MOSTLY, "many warm reads took {:?}", phase.quantile(0.95));
    }
    assert!(seen.iter().all(|took| *took < HEALED), "{seen:?}");
}

fn reads(node: &Node, path: &str, value: &[u8]) -> bool {
    node.read(path).is_ok_and(|read| read == value)
}

fn when(begin: Instant, what: &str, condition: impl FnMut() -> bool) -> Duration {
    deadline::eventually(what, condition);
    begin.elapsed()
}

#[allow(clippy::print_stdout, reason = "a figure that people ask for")]
fn say(cut: u64, noticed: Duration, seen: &[Duration; 3], phases: &[Phase; 3]) {
    println!(
        "a cut of {cut} s, noticed after {noticed:.1?}; after it: rotation {:.0?}, removal {:.0?}, new target {:.0?}",
        seen[0], seen[1], seen[2]
    );
    for (name, phase) in ["before", "during", "after"].into_iter().zip(phases) {
        let (median, most, longest) = (phase.quantile(0.5), phase.quantile(0.99), phase.longest());
        let reads = phase.took.len();
        println!(
            "  {name}: {reads} warm reads, 0 failed; median {median:.0?}, 99 % {most:.0?}, longest {longest:.0?}"
        );
    }
}

/// One read.
struct Read {
    began: Instant,
    took: Duration,
    failure: Option<String>,
}

/// What the readers saw from one time to another.
struct Phase {
    took: Vec<Duration>,
    failures: Vec<String>,
}

impl Phase {
    fn of(all: &[Read], from: Instant, to: Instant) -> Self {
        let reads = || all.iter().filter(|read| (from..to).contains(&read.began));
        let mut took: Vec<_> = reads().map(|read| read.took).collect();
        took.sort();
        Self { took, failures: reads().filter_map(|read| read.failure.clone()).collect() }
    }

    fn quantile(&self, fraction: f64) -> Duration {
        self.took[((self.took.len() - 1) as f64 * fraction) as usize]
    }

    fn longest(&self) -> Duration {
        self.quantile(1.0)
    }
}

/// Read one file every 10 ms each.
struct Readers {
    ending: Arc<AtomicBool>,
    reads: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<Read>>>,
}

impl Readers {
    fn start(file: &Path) -> Self {
        let (ending, reads) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = (0..READERS).map(|_| {
            let (file, ending, reads) = (file.to_owned(), ending.clone(), reads.clone());
            thread::spawn(move || read_all(&file, &ending, &reads))
        });
        Self { threads: threads.collect(), ending, reads }
    }

    /// Waits until there were so many more reads.
    fn wait_for(&self, more: usize) {
        let before = self.reads.load(Ordering::Relaxed);
        deadline::eventually("reads end", || self.reads.load(Ordering::Relaxed) >= before + more);
    }

    fn end(self) -> Vec<Read> {
        self.ending.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("a reader")).collect()
    }
}

fn read_all(file: &Path, ending: &AtomicBool, reads: &AtomicUsize) -> Vec<Read> {
    let mut all = Vec::new();
    while !ending.load(Ordering::Relaxed) {
        let began = Instant::now();
        let read = fs::read(file);
        let took = began.elapsed();
        let failure = (!matches!(&read, Ok(value) if value == b"value")).then(|| format!("{read:?}"));
        all.push(Read { began, took, failure });
        reads.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
    all
}
