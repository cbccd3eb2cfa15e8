//! The values that are kept: bounded by their bytes, the least recently used go first.

use std::sync::Arc;

use lru::LruCache;

use super::{Key, Value};

pub(super) struct Shelf {
    values: LruCache<Key, Arc<Value>>,
    bytes: usize,
    capacity: usize,
}

impl Shelf {
    pub(super) fn new(capacity: usize) -> Self {
        // Bounded by `put`: the crate bounds only how many there are.
        Self { values: LruCache::unbounded(), bytes: 0, capacity }
    }

    /// The value, which is now the most recently used.
    pub(super) fn get(&mut self, key: &Key) -> Option<Arc<Value>> {
        self.values.get(key).cloned()
    }

    /// Keeps a value, unless it alone is larger than all there is room for. Returns what had to go.
    pub(super) fn put(&mut self, key: Key, value: Arc<Value>) -> Vec<Arc<Value>> {
        let mut gone = Vec::new();
        if value.len() > self.capacity {
            return gone;
        }
        self.bytes += value.len();
        if let Some(replaced) = self.values.put(key, value) {
            self.bytes -= replaced.len();
            gone.push(replaced);
        }
        while self.bytes > self.capacity {
            let Some((_, oldest)) = self.values.pop_lru() else { break };
            self.bytes -= oldest.len();
            gone.push(oldest);
        }
        gone
    }

    /// Keeps only what is wanted. Returns the rest.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Key) -> bool) -> Vec<(Key, Arc<Value>)> {
        let unwanted: Vec<Key> =
            self.values.iter().map(|(key, _)| key).filter(|key| !wanted(key)).cloned().collect();
        let gone: Vec<_> = unwanted.iter().filter_map(|key| self.values.pop_entry(key)).collect();
        self.bytes -= gone.iter().map(|(_, value)| value.len()).sum::<usize>();
        gone
    }

    /// Lets go of the least recently used value that nobody else holds, so that it is wiped.
    pub(super) fn make_room(&mut self) -> Option<Arc<Value>> {
        let mut oldest_first = self.values.iter().rev();
        let (key, _) = oldest_first.find(|(_, value)| Arc::strong_count(value) == 1)?;
        let key = key.clone();
        let gone = self.values.pop(&key)?;
        self.bytes -= gone.len();
        Some(gone)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn entries(&self) -> usize {
        self.values.len()
    }
}
