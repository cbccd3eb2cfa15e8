//! Tells the change streams of an environment that there may be something new.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use secretfs_wire::EnvironmentName;
use tokio::sync::watch;

/// A revision number per environment, which moves after each commit. A stream that has seen a
/// revision reads the store again when it moves, so however many changes come at once, none is
/// missed and none queues up.
#[derive(Default)]
pub(super) struct Changes {
    /// Never held across an await. Environments of which no node ever asked are not in it.
    revisions: Mutex<HashMap<EnvironmentName, watch::Sender<u64>>>,
}

impl Changes {
    /// To be called after a change is committed, never before.
    pub(super) fn announce(&self, environment: &EnvironmentName) {
        let revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(revision) = revisions.get(environment) {
            revision.send_modify(|revision| *revision += 1);
        }
    }

    pub(super) fn subscribe(&self, environment: &EnvironmentName) -> watch::Receiver<u64> {
        let mut revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        revisions.entry(environment.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }
}
