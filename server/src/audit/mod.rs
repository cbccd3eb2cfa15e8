//! The audit log of this manager: what is done is on record before it is answered, and what cannot be
//! recorded is not done.
//!
//! One task writes. What waits while it writes is written next, all at once, so that many callers cost one
//! commit. A chain that is found broken, at the start or by the writer, is not gone on with: an honest
//! record after a forged one would only lend it credit.

mod aside;
mod error;
mod export;
mod folding;
mod key;
mod mark;
mod opening;
mod patrol;
mod reading;
mod request;
mod status;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use secretfs_wire::ChainId;
use secretfs_wire::audit::Event;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::ca::Authority;
use crate::error::chain as causes;
use crate::keys::RootKey;
use crate::store::{AuditLog, AuditMark, LossSource};

pub(crate) use error::{AuditError, OpenAuditError};
pub(crate) use export::{Export, Extent};
pub(crate) use mark::SignedMark;
pub(crate) use status::Status;

use folding::Folding;
use opening::Means;
use request::Request;
use writer::Writer;

/// How many calls may wait to be recorded. More wait for a place here.
const QUEUE: usize = 4096;

/// How long what was recorded has to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It survives the end of the process. A power cut may take the last second.
    Process,
    /// It survives a power cut.
    Power,
}

/// Something to be recorded.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) event: Event,
    /// Of losses: whose they are and how many there were in all; recorded is by how much that rises.
    pub(crate) loss: Option<(LossSource, u64)>,
}

impl From<Event> for Entry {
    fn from(event: Event) -> Self {
        Self { event, loss: None }
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AuditSettings {
    /// How long records may be without a checkpoint.
    pub(crate) checkpoint_interval: Duration,
    /// How long a key signs.
    pub(crate) key_lifetime: Duration,
}

/// The audit log.
pub(crate) struct Audit {
    /// What can be read of it; `None` when there is nothing.
    kept: Option<Kept>,
    /// The writer's; `None` when nothing can be gone on with.
    queue: Option<mpsc::Sender<Request>>,
    status: Status,
    folding: Folding,
}

struct Kept {
    chain: ChainId,
    log: Arc<dyn AuditLog>,
}

impl Audit {
    /// Opens a log, and begins one where there is none. One that cannot be gone on with is as well a log:
    /// it records nothing, says why, and can be looked at.
    pub(crate) async fn open(
        log: Result<Arc<dyn AuditLog>, OpenAuditError>,
        mark: &dyn AuditMark,
        signed: Arc<SignedMark>,
        authority: Arc<Authority>,
        root: Arc<RootKey>,
        settings: AuditSettings,
    ) -> Self {
        let log = match log {
            Ok(log) => log,
            Err(error) => return Self::broken(None, &error),
        };
        let means = Means { log: &log, mark, signed: signed.as_ref(), authority: &authority, root: &root };
        let opened = match means.open().await {
            Ok(opened) => opened,
            Err(error) => {
                let chains = log.chains().await.unwrap_or_default();
                let kept = chains.last().map(|chain| Kept { chain: chain.id, log });
                return Self::broken(kept, &error);
            }
        };
        let status = Status::new(opened.head.sequence);
        let (queue, requests) = mpsc::channel(QUEUE);
        let kept = Kept { chain: opened.chain, log: Arc::clone(&log) };
        tokio::spawn(patrol::look(Arc::clone(&log), kept.chain, authority.ca_bundle(), status.clone()));
        let writer = Writer::new(log, opened, signed, authority, root, settings, status.clone());
        tokio::spawn(writer.run(requests));
        Self { kept: Some(kept), queue: Some(queue), status, folding: Folding::default() }
    }

    fn broken(kept: Option<Kept>, error: &OpenAuditError) -> Self {
        let status = Status::broken(causes(error));
        Self { kept, queue: None, status, folding: Folding::default() }
    }

    /// Records events, in their order and all or none of them. Returns when they are committed.
    ///
    /// # Errors
    /// When they are not on record. Then what they say must not happen, or not be answered.
    pub(crate) async fn record(&self, entries: Vec<Entry>, durability: Durability) -> Result<(), AuditError> {
        self.ask(|done| Request::Record { entries, durability, done }).await
    }

    /// Records that somebody unknown was refused. What is the same again and again within some seconds
    /// becomes one record with a count, so that nobody fills the disk.
    pub(crate) async fn record_refused(&self, event: Event) -> Result<(), AuditError> {
        self.record_folded(self.folding.take(event, Instant::now())).await
    }

    /// Records how often those were refused who have not been for some seconds.
    pub(crate) async fn record_counted(&self) -> Result<(), AuditError> {
        self.record_folded(self.folding.over(Instant::now())).await
    }

    /// What cannot be recorded now is counted on.
    async fn record_folded(&self, events: Vec<Event>) -> Result<(), AuditError> {
        if events.is_empty() {
            return Ok(());
        }
        let entries = events.iter().cloned().map(Entry::from).collect();
        let recorded = self.record(entries, Durability::Process).await;
        if recorded.is_err() {
            self.folding.put_back(events, Instant::now());
        }
        recorded
    }

    /// Replaces the key that checkpoints are signed with.
    pub(crate) async fn rotate_key(&self) -> Result<(), AuditError> {
        self.ask(|done| Request::Rotate { done }).await
    }

    /// Records the last events, and signs for everything. Returns when that is on the disk.
    pub(crate) async fn close(&self, last: Vec<Event>) -> Result<(), AuditError> {
        let folded = self.folding.drain();
        let entries = folded.into_iter().chain(last).map(Entry::from).collect();
        self.ask(|done| Request::Close { entries, done }).await
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), AuditError>>) -> Request,
    ) -> Result<(), AuditError> {
        let queue = match (&self.queue, self.status.broken_reason()) {
            (Some(queue), None) => queue,
            (_, reason) => return Err(AuditError::Broken(reason.unwrap_or_default())),
        };
        let (done, answer) = oneshot::channel();
        queue.send(request(done)).await.map_err(|_| AuditError::Closed)?;
        answer.await.map_err(|_| AuditError::Closed)?
    }

    /// How it does.
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// The chain that is written, and where it is kept. It can be read as well when it is broken.
    pub(crate) fn chain(&self) -> Result<(ChainId, &Arc<dyn AuditLog>), AuditError> {
        match &self.kept {
            Some(Kept { chain, log }) => Ok((*chain, log)),
            None => Err(AuditError::Broken(self.status.broken_reason().unwrap_or_default())),
        }
    }

    /// Word of each commit.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.status.watch()
    }
}
