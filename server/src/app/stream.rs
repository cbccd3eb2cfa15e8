//! The change stream of one node: its manifest at once, and again whenever it differs.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use jiff::Timestamp;
use secretfs_wire::api::StreamMessage;
use secretfs_wire::manifest::RawManifest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::presence::Present;
use super::{App, now};
use crate::authn::NodeIdentity;
use crate::error::Error;

/// A node's place in the changes of its environment.
struct Follower {
    app: Arc<App>,
    node: NodeIdentity,
    revision: watch::Receiver<u64>,
    /// What the node was told last.
    sent: RawManifest,
    /// When the node's certificate ends, and with it the stream.
    until: Instant,
    /// Taken by the first message.
    first: Option<RawManifest>,
    _present: Present,
}

impl App {
    /// Follows what a node may see, until its certificate ends, it is no longer served, or the
    /// manager stops.
    pub(crate) async fn follow(
        self: &Arc<Self>,
        node: NodeIdentity,
        not_after: Timestamp,
    ) -> Result<impl Stream<Item = StreamMessage> + Send + use<>, Error> {
        // Subscribed before the store is read: a change in between is found again, never missed.
        let revision = self.changes.subscribe(&node.environment);
        let manifest = self
            .store
            .manifest(&node.environment, node.id)
            .await?
            .ok_or(Error::Unauthenticated("this node is no longer served"))?;
        let left = Duration::try_from(now().duration_until(not_after)).unwrap_or_default();
        let follower = Follower {
            _present: self.presence.enter(node.id),
            app: Arc::clone(self),
            revision,
            sent: manifest.clone(),
            first: Some(manifest),
            until: Instant::now() + left,
            node,
        };
        Ok(stream::unfold(follower, |mut follower| async {
            let message = follower.next().await?;
            Some((message, follower))
        }))
    }
}

impl Follower {
    async fn next(&mut self) -> Option<StreamMessage> {
        if let Some(manifest) = self.first.take() {
            return Some(StreamMessage::Manifest(manifest));
        }
        let heartbeat = Instant::now() + self.app.config.heartbeat_interval;
        loop {
            tokio::select! {
                // In this order: an end is an end, and a heartbeat says that there is no change.
                biased;
                () = self.app.stopping.cancelled() => return None,
                () = sleep_until(self.until) => return None,
                moved = self.revision.changed() => moved.ok()?,
                () = sleep_until(heartbeat) => return Some(StreamMessage::Heartbeat),
            }
            let manifest = self.read().await?;
            if manifest != self.sent {
                self.sent.clone_from(&manifest);
                return Some(StreamMessage::Manifest(manifest));
            }
        }
    }

    /// The manifest now; `None` ends the stream, and the node asks again and is told why.
    async fn read(&self) -> Option<RawManifest> {
        let node = &self.node;
        match self.app.store.manifest(&node.environment, node.id).await {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::error!(%error, environment = %node.environment, node = %node.name, "a change stream ends");
                None
            }
        }
    }
}
