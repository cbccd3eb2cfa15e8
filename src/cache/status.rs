//! What the cache tells of itself.

use jiff::Timestamp;

use super::shelf::Shelf;
use crate::source::SourceError;

/// What `node status` shows of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheStatus {
    /// Values that were here when they were asked for.
    pub(crate) hits: u64,
    /// Values that had to be waited for.
    pub(crate) misses: u64,
    /// Bytes of values kept.
    pub(crate) bytes: usize,
    /// Values kept.
    pub(crate) entries: usize,
    /// The last fetch that failed, also when others have succeeded since.
    pub(crate) last_failure: Option<Failure>,
}

/// A fetch that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Why.
    pub(crate) error: SourceError,
    /// When.
    pub(crate) at: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: u64,
    pub(super) misses: u64,
    last_failure: Option<Failure>,
}

impl Counters {
    pub(super) fn failed(&mut self, error: SourceError) {
        self.last_failure = Some(Failure { error, at: Timestamp::now() });
    }

    pub(super) fn status(&self, shelf: &Shelf) -> CacheStatus {
        CacheStatus {
            hits: self.hits,
            misses: self.misses,
            bytes: shelf.bytes(),
            entries: shelf.entries(),
            last_failure: self.last_failure.clone(),
        }
    }
}
