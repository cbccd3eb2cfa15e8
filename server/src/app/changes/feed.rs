use std::sync::Arc;

use secretfs_wire::EnvironmentName;
use tokio::sync::{Mutex, watch};

use super::snapshot::Snapshot;
use crate::store::{Store, StoreError};

/// One environment as its nodes are shown it.
///
/// Each commit moves a count. Whoever sees it move asks for the snapshot, and the first of them reads
/// the store for all: so however many changes come at once, none is missed, none queues up, and
/// thousands of streams cost one read.
pub(in crate::app) struct Feed {
    environment: EnvironmentName,
    announced: watch::Sender<u64>,
    /// The last snapshot, and how many announcements it has seen. Held while the store is read.
    last: Mutex<Option<(u64, Arc<Snapshot>)>>,
}

/// How far somebody has followed a feed.
pub(in crate::app) struct Place(watch::Receiver<u64>);

impl Feed {
    pub(super) fn new(environment: EnvironmentName) -> Self {
        Self { environment, announced: watch::Sender::new(0), last: Mutex::default() }
    }

    pub(super) fn announce(&self) {
        self.announced.send_modify(|count| *count += 1);
    }

    /// To be taken before the first look at a snapshot: a change in between is then found again.
    pub(in crate::app) fn place(&self) -> Place {
        Place(self.announced.subscribe())
    }

    /// What there is now, at least as new as the last announcement that the caller has seen.
    pub(in crate::app) async fn snapshot(&self, store: &dyn Store) -> Result<Arc<Snapshot>, StoreError> {
        let mut last = self.last.lock().await;
        // Before the store is read, since a commit comes before its announcement.
        let announced = *self.announced.borrow();
        if let Some((seen, snapshot)) = &*last
            && *seen == announced
        {
            return Ok(Arc::clone(snapshot));
        }
        let published = store.published(&self.environment).await?;
        let before = last.take().map(|(_, snapshot)| snapshot);
        let snapshot = Arc::new(Snapshot::new(published, before.as_deref()));
        *last = Some((announced, Arc::clone(&snapshot)));
        Ok(snapshot)
    }
}

impl Place {
    /// Waits for the next announcement.
    pub(in crate::app) async fn changed(&mut self) {
        // Only a feed that is gone has nothing more to say, and a follower keeps its feed.
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
