//! Which nodes have their change stream up at this manager.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use secretfs_wire::NodeId;

type Streams = Arc<Mutex<HashMap<NodeId, usize>>>;

/// Counts open streams per node.
#[derive(Default)]
pub(super) struct Presence {
    /// Never held across an await.
    streams: Streams,
}

/// One open stream; it is over when this is dropped.
pub(super) struct Present {
    node: NodeId,
    streams: Streams,
}

impl Presence {
    pub(super) fn enter(&self, node: NodeId) -> Present {
        *self.streams.lock().unwrap_or_else(PoisonError::into_inner).entry(node).or_default() += 1;
        Present { node, streams: Arc::clone(&self.streams) }
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&node)
    }

    /// How many nodes are connected.
    pub(super) fn count(&self) -> usize {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = streams.entry(self.node) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
