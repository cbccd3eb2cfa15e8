//! Which nodes have their change stream up at this manager.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secretfs_wire::{InstanceId, NodeId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::instances::Speaker;

type Streams = Arc<Mutex<HashMap<NodeId, NodeStreams>>>;

/// The streams of one node: two for a moment when it renews its certificate, or when a worker takes over.
struct NodeStreams {
    touched: watch::Sender<()>,
    open: Vec<Open>,
    /// Tells streams apart.
    next: u64,
}

struct Open {
    number: u64,
    instance: Option<InstanceId>,
    leave: CancellationToken,
}

/// Nodes with open streams, and word to these when something about the node itself changes.
#[derive(Default)]
pub(super) struct Presence {
    /// Never held across an await.
    streams: Streams,
}

/// One open stream; it is over when this is dropped.
pub(super) struct Present {
    node: NodeId,
    number: u64,
    streams: Streams,
    touched: watch::Receiver<()>,
}

impl Presence {
    /// A stream that is opened by this daemon of a node.
    pub(super) fn enter(&self, node: NodeId, speaker: &Speaker) -> Present {
        let mut streams = lock(&self.streams);
        let streams = streams.entry(node).or_insert_with(NodeStreams::new);
        let (number, touched) = (streams.next, streams.touched.subscribe());
        streams.next += 1;
        let (instance, leave) = (speaker.instance, speaker.connection.leave.clone());
        streams.open.push(Open { number, instance, leave });
        Present { node, number, streams: Arc::clone(&self.streams), touched }
    }

    /// Ends the streams that other daemons than this one have open as a node, and their connections.
    pub(super) fn end_others(&self, node: NodeId, instance: Option<InstanceId>) {
        if let Some(streams) = lock(&self.streams).get(&node) {
            let others = streams.open.iter().filter(|open| open.instance != instance);
            others.for_each(|open| open.leave.cancel());
        }
    }

    /// Ends all streams of a node, and their connections; who lives opens new ones.
    pub(super) fn end_all(&self, node: NodeId) {
        if let Some(streams) = lock(&self.streams).get(&node) {
            streams.open.iter().for_each(|open| open.leave.cancel());
        }
    }

    /// Says that a node's state or labels are not what they were. To be called after the commit.
    pub(super) fn touch(&self, node: NodeId) {
        if let Some(streams) = lock(&self.streams).get(&node) {
            streams.touched.send_replace(());
        }
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        lock(&self.streams).contains_key(&node)
    }

    /// How many nodes are connected.
    pub(super) fn count(&self) -> usize {
        lock(&self.streams).len()
    }
}

impl NodeStreams {
    fn new() -> Self {
        Self { touched: watch::Sender::new(()), open: Vec::new(), next: 0 }
    }
}

fn lock(streams: &Streams) -> MutexGuard<'_, HashMap<NodeId, NodeStreams>> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut nodes = lock(&self.streams);
        if let Some(streams) = nodes.get_mut(&self.node) {
            streams.open.retain(|open| open.number != self.number);
            if streams.open.is_empty() {
                nodes.remove(&self.node);
            }
        }
    }
}
