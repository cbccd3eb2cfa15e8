//! What a former worker left in the arena.

use std::collections::HashMap;
use std::sync::Arc;

use secretfs_wire::VersionId;

use super::{Arena, Key, Value};

/// The whole values that a former worker left behind, until it is known which are still wanted: first
/// by the open files, then by the cache. What neither wants is wiped with this.
pub(crate) struct LeftBehind(HashMap<u32, (Key, Arc<Value>)>);

impl LeftBehind {
    /// Takes them over. Called once, before anything is kept, by who knows that no other worker uses
    /// the memory any more.
    pub(crate) fn in_arena(arena: &Arc<Arena>) -> Self {
        let adopted = arena.adopt().into_iter();
        Self(adopted.map(|(key, value)| (value.entry(), (key, Arc::new(value)))).collect())
    }

    /// The value that an open file pins.
    pub(crate) fn find(&self, entry: u32, version: VersionId) -> Option<Arc<Value>> {
        let (key, value) = self.0.get(&entry)?;
        (key.version == version).then(|| value.clone())
    }

    /// All of them, for [`ValueCache::adopt`](super::ValueCache::adopt).
    pub(crate) fn into_values(self) -> Vec<(Key, Arc<Value>)> {
        self.0.into_values().collect()
    }
}
