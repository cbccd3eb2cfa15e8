//! Which nodes have their change stream up at this manager.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use secretfs_wire::NodeId;
use tokio::sync::watch;

type Streams = Arc<Mutex<HashMap<NodeId, watch::Sender<()>>>>;

/// Nodes with open streams, and word to these when something about the node itself changes.
#[derive(Default)]
pub(super) struct Presence {
    /// Never held across an await.
    streams: Streams,
}

/// One open stream; it is over when this is dropped.
pub(super) struct Present {
    node: NodeId,
    streams: Streams,
    touched: watch::Receiver<()>,
}

impl Presence {
    pub(super) fn enter(&self, node: NodeId) -> Present {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let touched = streams.entry(node).or_insert_with(|| watch::Sender::new(())).subscribe();
        drop(streams);
        Present { node, streams: Arc::clone(&self.streams), touched }
    }

    /// Says that a node's state or labels are not what they were. To be called after the commit.
    pub(super) fn touch(&self, node: NodeId) {
        if let Some(streams) = self.streams.lock().unwrap_or_else(PoisonError::into_inner).get(&node) {
            streams.send_replace(());
        }
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&node)
    }

    /// How many nodes are connected.
    pub(super) fn count(&self) -> usize {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Present {
    /// Waits until the node is touched.
    pub(super) async fn touched(&mut self) {
        // The sender stays as long as there is a stream.
        if self.touched.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        // This one counts as long as it has not been dropped itself.
        if streams.get(&self.node).is_some_and(|streams| streams.receiver_count() == 1) {
            streams.remove(&self.node);
        }
    }
}
