use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

/// How the log does, for everybody who wants to know.
#[derive(Clone)]
pub(crate) struct Status(Arc<Inner>);

struct Inner {
    trouble: Mutex<Trouble>,
    recorded: AtomicU64,
    refused: AtomicU64,
    head: AtomicU64,
    signed: Mutex<Option<Timestamp>>,
    /// Counts commits.
    commits: watch::Sender<u64>,
}

#[derive(Default)]
struct Trouble {
    broken: Option<String>,
    unwritable: Option<String>,
}

impl Status {
    pub(super) fn new(head: u64) -> Self {
        Self(Arc::new(Inner {
            trouble: Mutex::default(),
            recorded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            head: AtomicU64::new(head),
            signed: Mutex::default(),
            commits: watch::Sender::new(0),
        }))
    }

    pub(super) fn broken(reason: String) -> Self {
        let status = Self::new(0);
        status.set_broken(reason);
        status
    }

    /// Nothing is recorded any more until somebody has looked at it and restarts.
    pub(super) fn set_broken(&self, reason: String) {
        tracing::error!(reason, "the audit log is broken; nothing is recorded, and so nothing done");
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).broken = Some(reason);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken_reason().is_some()
    }

    pub(super) fn broken_reason(&self) -> Option<String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).broken.clone()
    }

    pub(super) fn set_unwritable(&self, reason: Option<String>) {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).unwritable = reason;
    }

    /// What is wrong with it, in words for everybody.
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (&trouble.broken, &trouble.unwritable) {
            (Some(reason), _) => Some(format!("the audit log is broken: {reason}")),
            (None, Some(reason)) => Some(format!("the audit log cannot be written: {reason}")),
            (None, None) => None,
        }
    }

    pub(super) fn committed(&self, records: u64, head: u64) {
        self.0.recorded.fetch_add(records, Ordering::Relaxed);
        self.0.head.store(head, Ordering::Relaxed);
        self.0.commits.send_modify(|commits| *commits += 1);
    }

    pub(super) fn signed(&self, at: Timestamp) {
        *self.0.signed.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        self.0.commits.send_modify(|commits| *commits += 1);
    }

    pub(super) fn count_refused(&self, events: u64) {
        self.0.refused.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.0.commits.subscribe()
    }

    /// How many records this manager has written.
    pub(crate) fn records(&self) -> u64 {
        self.0.recorded.load(Ordering::Relaxed)
    }

    /// How many events could not be recorded, so that what they are of was refused.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// The number of the last record.
    pub(crate) fn head(&self) -> u64 {
        self.0.head.load(Ordering::Relaxed)
    }

    /// When this manager signed last.
    pub(crate) fn last_signed(&self) -> Option<Timestamp> {
        *self.0.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
