//! Who reads many files of a node all the time.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::deadline;
use super::node::Node;
use super::site::Site;

/// Each value is 40 bytes that only its secret has.
pub(crate) fn value(name: &str) -> Vec<u8> {
    format!("{name:*>40}").into_bytes()
}

/// Lets a service on a node see secrets of these names, each with its own [`value`].
pub(crate) fn serve(site: &Site, node: &str, service: &str, names: &[String]) {
    let values: Vec<_> = names.iter().map(|name| value(name)).collect();
    let secrets: Vec<_> =
        names.iter().zip(&values).map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    site.serve(node, service, &secrets);
}

/// A node that has joined and runs, and has no room to keep a value.
pub(crate) fn cold_node(site: &Site, name: &str) -> Node {
    let mut node = site.join(name);
    node.configure("cache_bytes = 1");
    node.run_connected();
    node
}

/// Reads files over and over, and says what failed. Where the node has no room to keep a value
/// (`cache_bytes = 1`), each read is the manager's to answer.
pub(crate) struct ColdReaders {
    ending: Arc<AtomicBool>,
    reads: Arc<AtomicUsize>,
    files: usize,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl ColdReaders {
    pub(crate) fn start(node: &Node, service: &str, names: &[String]) -> Self {
        let (ending, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..2)
            .map(|thread| {
                let (ending, reads) = (Arc::clone(&ending), Arc::clone(&reads));
                let mut files: Vec<(PathBuf, Vec<u8>)> =
                    names.iter().map(|name| (node.path(service).join(name), value(name))).collect();
                let half = files.len() / 2 * thread;
                files.rotate_left(half);
                thread::spawn(move || {
                    let mut failures = Vec::new();
                    while !ending.load(Ordering::Relaxed) {
                        for (file, value) in &files {
                            match fs::read(file) {
                                Ok(read) if read == *value => {}
                                other => failures.push(format!("{}: {other:?}", file.display())),
                            }
                            reads.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    failures
                })
            })
            .collect();
        Self { ending, reads, files: names.len(), threads }
    }

    /// Waits until each file was read again, whatever was under way.
    pub(crate) fn go_round(&self) {
        let before = self.reads.load(Ordering::Relaxed);
        deadline::eventually("every file is read once more", || {
            self.reads.load(Ordering::Relaxed) > before + 3 * self.files
        });
    }

    /// How many files were read.
    pub(crate) fn count(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// Ends all; what failed.
    pub(crate) fn end(self) -> Vec<String> {
        self.ending.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("a reader")).collect()
    }
}
