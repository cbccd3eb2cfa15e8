//! What each environment has for its nodes, and word to their streams when that changes.

mod feed;
mod snapshot;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use secretfs_wire::EnvironmentName;

pub(super) use feed::{Feed, Place};
pub(super) use snapshot::View;

/// The feeds of all environments that a node has asked for.
#[derive(Default)]
pub(super) struct Changes {
    /// Never held across an await.
    feeds: Mutex<HashMap<EnvironmentName, Arc<Feed>>>,
}

impl Changes {
    /// To be called after a change is committed, never before.
    pub(super) fn announce(&self, environment: &EnvironmentName) {
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(environment) {
            feed.announce();
        }
    }

    pub(super) fn feed(&self, environment: &EnvironmentName) -> Arc<Feed> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let feed = feeds.entry(environment.clone()).or_insert_with(|| Feed::new(environment.clone()).into());
        Arc::clone(feed)
    }
}
