//! State for tests in memory that no other process sees.

use std::sync::Arc;
use std::time::Duration;

use super::{Freshness, Handles};
use crate::cache::Arena;
use crate::host::shared_memory::Words;

/// An arena of this process alone, which holds this many bytes of values.
pub(crate) fn arena(bytes: usize) -> Arc<Arena> {
    Arena::over(Words::private(Arena::words_for(bytes)).expect("memory"))
}

/// Open files of this process alone.
pub(crate) fn handles() -> Handles {
    Handles::over(Words::private(Handles::words()).expect("memory"))
}

/// The freshness of a process that has no predecessor.
pub(crate) fn freshness(max_stale: Duration) -> Freshness {
    let freshness = Freshness::over(Words::private(Freshness::WORDS).expect("memory"), max_stale);
    freshness.begin();
    freshness
}
