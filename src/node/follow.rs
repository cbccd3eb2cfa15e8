//! Following the manager: the change stream, for as long as it is up, and patience while it is not.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use secretfs_wire::api::ErrorCode;
use secretfs_wire::stream::{Cursor, Follow, OutOfOrder, StreamMessage};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::patience::Patience;
use crate::client::{ClientError, NodeClient};

/// The manager says something every 5 s by default; a stream that is silent for longer is broken.
const SILENCE: Duration = Duration::from_secs(15);

/// What following tells the node.
pub(super) trait Follower: Send + Sync {
    /// A stream begins: what the manager is to be told.
    fn begin(&self) -> (Follow, Cursor);
    /// The stream is up and this came. An error gives the stream up.
    fn receive(&self, cursor: &mut Cursor, message: StreamMessage) -> Result<(), OutOfOrder>;
    /// The stream is down.
    fn disconnected(&self, reason: &str);
    /// The manager does not know this node, or not any more: what it was given is to be forgotten.
    fn shut_out(&self);
}

/// Follows until the task is dropped. `renewed` makes it open a new stream under the client that is
/// then current, before the old stream is given up.
pub(super) async fn follow(
    client: Arc<ArcSwap<NodeClient>>,
    renewed: Arc<Notify>,
    follower: Arc<dyn Follower>,
) {
    let mut patience = Patience::new();
    loop {
        let (error, was_up) = follow_once(&client, &renewed, follower.as_ref()).await;
        follower.disconnected(&error.to_string());
        if error.code() == Some(ErrorCode::Unauthenticated) {
            follower.shut_out();
        }
        tokio::time::sleep(patience.after(&error, was_up)).await;
    }
}

/// Follows one stream, and those that renewals put in its place, until it breaks. Tells why it
/// broke, and whether it was up.
async fn follow_once(
    client: &ArcSwap<NodeClient>,
    renewed: &Notify,
    follower: &dyn Follower,
) -> (ClientError, bool) {
    let (follow, mut cursor) = follower.begin();
    let mut stream = match client.load_full().follow(&follow).await {
        Ok(stream) => stream,
        Err(error) => return (error, false),
    };
    let mut was_up = false;
    loop {
        let message = tokio::select! {
            message = timeout(SILENCE, stream.next()) => message,
            () = renewed.notified() => {
                // The old stream goes on being the node's until the new one is there, and is not
                // heard meanwhile: the new one begins with what the node has now.
                let (follow, place) = follower.begin();
                if let Ok(new) = client.load_full().follow(&follow).await {
                    (stream, cursor) = (new, place);
                }
                continue;
            }
        };
        match message {
            Ok(Some(Ok(message))) => {
                was_up = true;
                if let Err(error) = follower.receive(&mut cursor, message) {
                    return (unreachable(&error.to_string()), was_up);
                }
            }
            Ok(Some(Err(error))) => return (error, was_up),
            Ok(None) => return (unreachable("the manager ended the change stream"), was_up),
            Err(_) => return (unreachable("the manager was silent for 15 s"), was_up),
        }
    }
}

fn unreachable(reason: &str) -> ClientError {
    ClientError::Unreachable { reason: reason.to_owned() }
}
