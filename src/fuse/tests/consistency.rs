//! Ten thousand changes under readers that never stop, through the kernel: what they may rely on.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use secretfs_wire::VersionId;
use secretfs_wire::manifest::Target;

use super::rotation::Bind;
use super::{Rig, eventually, manifest, target};

const CHANGES: u64 = 10_000;
const READERS: u64 = 8;

/// Two files that change together, of different lengths: the change's number all over.
const FILES: [&str; 2] = ["a", "b"];

fn value(file: usize, change: u64) -> Vec<u8> {
    change.to_be_bytes().repeat((change as usize + 31 * file) % 97 + 1)
}

/// How far changes are.
#[derive(Default)]
struct Changes {
    /// The last one that may be seen.
    shown: AtomicU64,
    /// The last one that the kernel was told of.
    told: AtomicU64,
}

/// Dropped when the kernel was told of a change.
struct Told(Arc<Changes>, u64);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.told.store(self.1, SeqCst);
    }
}

fn publish(rig: &Rig, changes: &Arc<Changes>, change: u64) {
    changes.shown.store(change, SeqCst);
    let rows = FILES.iter().enumerate().map(|(file, name)| {
        let (id, value) = (2 * change + file as u64, value(file, change));
        rig.source.put(VersionId::from_u64(id).expect("an id"), Ok(&value));
        let modified = Timestamp::from_second(change.cast_signed()).expect("a time");
        ("web", *name, Target { modified, ..target(id, value.len() as u32) })
    });
    rig.server
        .apply(rig.fs.update(&Arc::new(manifest(rows.collect::<Vec<_>>()))), Told(changes.clone(), change));
}

/// What one reader has seen.
#[derive(Default)]
struct Seen {
    content: u64,
    opens: u64,
    /// Attributes older than what the kernel was told of when it was asked.
    stale: u64,
}

impl Seen {
    /// Opens, asks for attributes, reads to the end in chunks, and closes.
    fn read(&mut self, file: usize, path: &Path, chunk: usize, changes: &Changes) {
        let mut open = File::open(path).expect("it is always granted");
        let told = changes.told.load(SeqCst);
        let attributes = open.metadata().expect("attributes");
        let shown = changes.shown.load(SeqCst);
        let mut read = Vec::new();
        let mut part = vec![0; chunk];
        loop {
            let length = open.read(&mut part).expect("no read fails");
            if length == 0 {
                break;
            }
            read.extend_from_slice(&part[..length]);
        }
        let change = u64::from_be_bytes(read[..8].try_into().expect("8 bytes"));
        assert!(read == value(file, change), "torn: {read:?}");
        assert!(change >= self.content, "{} of change {change} after {}", FILES[file], self.content);
        self.content = change;
        // Of the current version, or of one before it that the kernel was not yet told of. A very few are
        // older: the kernel does not lock who asks out while it stores what another one was answered.
        let of = attributes.mtime().cast_unsigned();
        assert!((1..=shown).contains(&of), "the time of {of} of {shown}");
        let is_size_of = |change| attributes.len() == value(file, change).len() as u64;
        if !(told..=shown).contains(&of) || !(told..=shown).any(is_size_of) {
            self.stale += 1;
        }
        self.opens += 1;
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "a figure that people ask for")]
fn ten_thousand_changes_and_no_read_is_torn_or_goes_back_and_files_change_together() {
    let rig = Rig::new(&[]);
    let changes = Arc::new(Changes::default());
    publish(&rig, &changes, 1);
    eventually("the first one is told", || changes.told.load(SeqCst) == 1);
    let bind = Bind(rig.scratch.path().join("bound"));
    fs::write(&bind.0, "").expect("a file to mount on");
    rustix::mount::mount_bind(rig.path("web/a"), &bind.0).expect("a bind mount");
    let (opens, began) = (AtomicU64::new(0), Instant::now());
    let paths = |reader: u64| -> [PathBuf; 2] {
        // Some read the first one through a bind mount of the file alone.
        let first = if reader.is_multiple_of(4) { bind.0.clone() } else { rig.path("web/a") };
        [first, rig.path("web/b")]
    };
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (paths, opens, changes) = (paths(reader), &opens, &changes);
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    // Half of them in the other order: who opens one after the other never gets an
                    // older change from the second.
                    let mut order = [0, 1];
                    order.rotate_left(reader as usize % 2);
                    while seen.content < CHANGES {
                        for file in order {
                            seen.read(file, &paths[file], 90 + 7 * reader as usize, changes);
                            opens.fetch_add(1, SeqCst);
                        }
                    }
                    seen
                })
            })
            .collect();
        for change in 2..=CHANGES {
            publish(&rig, &changes, change);
            // Readers are to see most changes, and not the last one alone.
            let slow = Instant::now();
            while opens.load(SeqCst) < 3 * change && readers.iter().all(|reader| !reader.is_finished()) {
                assert!(slow.elapsed() < Duration::from_secs(60), "the readers stand still");
                std::thread::yield_now();
            }
        }
        readers.into_iter().map(|reader| reader.join().expect("what it saw")).collect()
    });
    let opens: u64 = seen.iter().map(|seen| seen.opens).sum();
    let stale: u64 = seen.iter().map(|seen| seen.stale).sum();
    let took = began.elapsed();
    println!("{CHANGES} changes, {opens} opens by {READERS} readers, {stale} stale attributes, {took:.1?}");
    assert!(stale < opens / 200, "{stale} of {opens} attributes are stale");
    assert!(opens >= 3 * CHANGES, "only {opens} opens");
    for (file, name) in FILES.iter().enumerate() {
        eventually("attributes are of the last change", || {
            let metadata = fs::metadata(rig.path("web").join(name)).expect("attributes");
            (metadata.mtime(), metadata.len()) == (CHANGES.cast_signed(), value(file, CHANGES).len() as u64)
        });
    }
    eventually("all are closed", || rig.fs.open_files() == 0);
    assert_eq!((rig.fs.pinned(), rig.fs.held().len()), (0, 0));
}
