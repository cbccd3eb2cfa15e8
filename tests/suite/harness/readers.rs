//! Who reads all the time while a mount goes through something, and counts what fails.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::deadline;
use super::engine::{Container, Engine};

/// Readers of one file with one value: on the host, of an open file, and in a container.
pub(crate) struct Readers {
    ending: Arc<AtomicBool>,
    host: JoinHandle<Vec<Read>>,
    open: JoinHandle<Vec<String>>,
    container: Container,
    signals: PathBuf,
    reads: Arc<AtomicUsize>,
}

/// One read on the host.
pub(crate) struct Read {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    pub(crate) failure: Option<String>,
}

/// What all of them saw.
pub(crate) struct Seen {
    pub(crate) host: Vec<Read>,
    /// Of all readers.
    pub(crate) failures: Vec<String>,
    pub(crate) container_reads: usize,
}

/// Reads until it is told to end, a thousand times a second, and says what failed.
const LOOP: &str = "reads=0; while [ ! -e /signals/end ]; do \
    value=$(cat /run/secrets/key) && [ \"$value\" = value ] || echo \"failed: $value\"; \
    reads=$((reads+1)); usleep 1000; done; echo reads $reads";

impl Readers {
    /// Starts reading `key` of a service's directory, whose value is `value`. `signals` is a directory
    /// to talk to the container through.
    pub(crate) fn start(service: &Path, signals: &Path) -> Self {
        let (ending, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let file = service.join("key");
        let host = {
            let (ending, reads, file) = (ending.clone(), reads.clone(), file.clone());
            thread::spawn(move || read_host(&file, &ending, &reads))
        };
        let open = {
            let (ending, file) = (ending.clone(), File::open(&file).expect("an open file"));
            thread::spawn(move || read_open(&file, &ending))
        };
        let volumes =
            [format!("{}:/run/secrets:ro", service.display()), format!("{}:/signals:ro", signals.display())];
        let container = Engine::shared()
            .start_container(&["--volume", &volumes[0], "--volume", &volumes[1]], &["/bin/sh", "-c", LOOP]);
        Self { ending, host, open, container, signals: signals.to_owned(), reads }
    }

    /// Waits until the host's reader has read once more.
    pub(crate) fn wait_for_read(&self) {
        let before = self.reads.load(Ordering::Relaxed);
        deadline::eventually("a read ends", || self.reads.load(Ordering::Relaxed) > before + 1);
    }

    /// Ends all and collects what they saw.
    pub(crate) fn end(self) -> Seen {
        self.ending.store(true, Ordering::Relaxed);
        fs::write(self.signals.join("end"), "").expect("a signal");
        let host = self.host.join().expect("the host's reader");
        let printed = deadline::poll("the container's reader ends", || {
            let printed = self.container.printed();
            printed.contains("reads ").then_some(printed)
        });
        let mut failures = self.open.join().expect("the reader of an open file");
        failures.extend(host.iter().filter_map(|read| read.failure.clone()));
        failures.extend(printed.lines().filter(|line| line.starts_with("failed")).map(str::to_owned));
        let container_reads = printed
            .lines()
            .find_map(|line| line.strip_prefix("reads "))
            .and_then(|reads| reads.parse().ok())
            .expect("a count");
        Seen { host, failures, container_reads }
    }
}

fn read_host(file: &Path, ending: &AtomicBool, reads: &AtomicUsize) -> Vec<Read> {
    let mut all = Vec::new();
    while !ending.load(Ordering::Relaxed) {
        let began = Instant::now();
        let read = fs::read(file);
        let took = began.elapsed();
        let failure = match read {
            Ok(value) if value == b"value" => None,
            other => Some(format!("on the host: {other:?}")),
        };
        all.push(Read { began, took, failure });
        reads.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1));
    }
    all
}

/// An open file, read byte by byte and again from the beginning.
fn read_open(file: &File, ending: &AtomicBool) -> Vec<String> {
    let mut failures = Vec::new();
    let mut place = 0;
    while !ending.load(Ordering::Relaxed) {
        let mut byte = [0];
        let read = file.read_at(&mut byte, place as u64);
        if !matches!(read, Ok(1)) || byte[0] != b"value"[place] {
            failures.push(format!("of the open file, at {place}: {read:?}"));
        }
        place = (place + 1) % 5;
        thread::sleep(Duration::from_millis(1));
    }
    failures
}
