//! Who wants to hear when a file changes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use fuser::PollNotifier;

use crate::fs::Inode;

/// How many open files of one inode wait at most. The kernel does not tell when one of them is
/// closed, so beyond this all are woken; whoever still waits comes again.
const MOST: usize = 1024;

/// The open files that are polled, by inode.
#[derive(Default)]
pub(super) struct Pollers {
    // A std mutex: held for a map access, never across an await or a call into the kernel.
    waiting: Mutex<HashMap<Inode, HashMap<u64, PollNotifier>>>,
}

impl Pollers {
    /// Remembers an open file until its inode changes. The kernel has one number for each.
    pub(super) fn add(&self, inode: Inode, poller: PollNotifier) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let pollers = waiting.entry(inode).or_default();
        let too_many = if pollers.len() < MOST { HashMap::new() } else { std::mem::take(pollers) };
        pollers.insert(poller.handle().0, poller);
        drop(waiting);
        wake_all(too_many);
    }

    /// How many wait, or have waited and been closed since.
    pub(super) fn count(&self) -> usize {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.values().map(HashMap::len).sum()
    }

    /// Wakes all who wait for an inode.
    pub(super) fn wake(&self, inode: Inode) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = waiting.remove(&inode);
        drop(waiting);
        wake_all(woken.unwrap_or_default());
    }
}

/// Waking takes no lock in the kernel that a pending request could hold.
fn wake_all(pollers: HashMap<u64, PollNotifier>) {
    for poller in pollers.into_values() {
        if let Err(error) = poller.notify() {
            tracing::debug!(%error, "a poller could not be woken");
        }
    }
}
