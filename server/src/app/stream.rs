//! The change stream of one node: what differs from what it has at once, and again whenever it differs.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{self, Stream};
use jiff::Timestamp;
use secretfs_wire::stream::Follow;
use secretfs_wire::{Action, Labels};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::changes::{Feed, Place, View};
use super::instances::Speaker;
use super::presence::Present;
use super::{App, now};
use crate::authn::{Identity, NodeIdentity};
use crate::authz::Resource;
use crate::error::Error;
use crate::store::StoreError;

/// A node's place in the changes of its environment.
struct Follower {
    app: Arc<App>,
    node: NodeIdentity,
    labels: Labels,
    feed: Arc<Feed>,
    place: Place,
    present: Present,
    /// From where it follows, and word of other policies, which may not let it.
    address: IpAddr,
    policies: watch::Receiver<()>,
    /// Cancelled when the connection that it is on is to be left.
    leave: CancellationToken,
    /// The number of the next message.
    sequence: u64,
    /// What the node has been told, and the revision of that.
    told: Arc<View>,
    revision: u64,
    /// When the node's certificate ends, and with it the stream.
    until: Instant,
    /// Taken by the first message.
    first: Option<Arc<RawValue>>,
}

/// A [`StreamMessage`](secretfs_wire::stream::StreamMessage) whose change is written already.
#[derive(Serialize)]
struct Message<'a> {
    sequence: u64,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'a RawValue>,
}

impl App {
    /// Follows what a node may see, line by line, until its certificate ends, it is no longer served,
    /// policies forbid it, its connection is to be left, or the manager stops.
    pub(crate) async fn follow(
        self: &Arc<Self>,
        node: NodeIdentity,
        not_after: Timestamp,
        follow: &Follow,
        speaker: &Speaker,
    ) -> Result<impl Stream<Item = Bytes> + Send + use<>, Error> {
        // Both before anything is read: a change in between is found again, never missed.
        let feed = self.changes.feed(&node.environment);
        let (place, present) = (feed.place(), self.presence.enter(node.id, speaker));
        let mut policies = self.authorizer.changes();
        // They may have changed since this request was let in.
        policies.mark_changed();
        // If another daemon came while this one was on its way here, its stream was not there to be ended.
        if self.instances.is_replaced(node.id, speaker) {
            speaker.connection.leave.cancel();
        }
        let labels = self
            .store
            .node_labels(&node.environment, node.id)
            .await?
            .ok_or(Error::Unauthenticated("this node is no longer served"))?;
        let snapshot = feed.snapshot(self.store.as_ref()).await?;
        let told = snapshot.view(&node.name, &labels);
        let left = Duration::try_from(now().duration_until(not_after)).unwrap_or_default();
        let follower = Follower {
            app: Arc::clone(self),
            labels,
            feed,
            place,
            present,
            address: speaker.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            policies,
            leave: speaker.connection.leave.clone(),
            sequence: 0,
            first: Some(told.against(follow)),
            told,
            revision: snapshot.revision,
            until: Instant::now() + left,
            node,
        };
        Ok(stream::unfold(follower, |mut follower| async {
            let line = follower.next().await?;
            Some((line, follower))
        }))
    }
}

impl Follower {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(self.line(Some(&first)));
        }
        let heartbeat = Instant::now() + self.app.config.heartbeat_interval;
        loop {
            tokio::select! {
                // In this order: an end is an end, and a heartbeat says that there is no change.
                biased;
                () = self.app.stopping.cancelled() => return None,
                () = sleep_until(self.until) => return None,
                () = self.leave.cancelled() => return None,
                Ok(()) = self.policies.changed() => self.ask_again()?,
                () = self.present.touched() => self.labels = self.read_labels().await?,
                () = self.place.changed() => {}
                () = sleep_until(heartbeat) => return Some(self.line(None)),
            }
            if let Some(change) = self.look().await? {
                return Some(self.line(Some(&change)));
            }
        }
    }

    /// What has changed for this node. `None` outside ends the stream, and the node asks again.
    async fn look(&mut self) -> Option<Option<Arc<RawValue>>> {
        let snapshot = self.feed.snapshot(self.app.store.as_ref()).await;
        let snapshot = snapshot.map_err(|error| self.ends(&error)).ok()?;
        let view = snapshot.view(&self.node.name, &self.labels);
        let change = view.since(&self.told);
        (self.told, self.revision) = (view, snapshot.revision);
        Some(change)
    }

    /// The node's labels now. `None` ends the stream, and the node asks again and is told why.
    async fn read_labels(&self) -> Option<Labels> {
        let labels = self.app.store.node_labels(&self.node.environment, self.node.id).await;
        labels.map_err(|error| self.ends(&error)).ok()?
    }

    /// Puts the question anew that this stream was let in by. `None` ends the stream: the node asks again,
    /// and that is refused and on record.
    fn ask_again(&self) -> Option<()> {
        let identity = Identity::Node(self.node.clone());
        let (action, about) = (Action::NodeFollow, Resource::default());
        match self.app.authorizer.decide(&identity, action, &about, self.address) {
            Ok(decision) if decision.is_allowed() => Some(()),
            Ok(decision) => {
                let policies = decision.policies.join(" ");
                tracing::warn!(%identity, address = %self.address, policies, "a change stream ends: refused");
                None
            }
            Err(error) => {
                tracing::error!(%error, %identity, "a change stream ends");
                None
            }
        }
    }

    fn ends(&self, error: &StoreError) {
        let NodeIdentity { environment, name, .. } = &self.node;
        tracing::error!(%error, %environment, node = %name, "a change stream ends");
    }

    /// The next message and its line feed.
    #[allow(clippy::expect_used, reason = "a message is plain data, and memory does not refuse bytes")]
    fn line(&mut self, change: Option<&RawValue>) -> Bytes {
        let message = Message { sequence: self.sequence, revision: self.revision, change };
        self.sequence += 1;
        let mut line = BytesMut::new().writer();
        serde_json::to_writer(&mut line, &message).expect("a message serializes");
        let mut line = line.into_inner();
        line.put_u8(b'\n');
        line.freeze()
    }
}
