//! The audit log of this manager: what is done is on record before it is answered, and what cannot be
//! recorded is not done.
//!
//! One task writes. What waits while it writes is written next, all at once, so that many callers cost one
//! commit. A chain that is found broken, at the start or by the writer, is not gone on with: an honest
//! record after a forged one would only lend it credit.

mod error;
mod export;
mod folding;
mod key;
mod opening;
mod patrol;
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

use crate::ca::Authority;
use crate::error::chain as causes;
use crate::keys::RootKey;
use crate::store::{AuditLog, AuditMark, LossSource};

pub(crate) use error::{AuditError, OpenAuditError};
pub(crate) use export::{Export, Extent};
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
    /// `None` when there is nothing that can be gone on with.
    open: Option<Open>,
    status: Status,
    folding: Folding,
}

struct Open {
    chain: ChainId,
    log: Arc<dyn AuditLog>,
    queue: mpsc::Sender<Request>,
}

impl Audit {
    /// Opens a log, and begins one where there is none. One that cannot be gone on with is as well a log:
    /// it records nothing, and says why.
    pub(crate) async fn open(
        log: Result<Arc<dyn AuditLog>, OpenAuditError>,
        mark: &dyn AuditMark,
        authority: Arc<Authority>,
        root: Arc<RootKey>,
        settings: AuditSettings,
    ) -> Self {
        let opened = match log {
            Ok(log) => {
                let means = Means { log: &log, mark, authority: &authority, root: &root };
                means.open().await.map(|opened| (opened, log))
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok((opened, log)) => {
                let status = Status::new(opened.head.sequence);
                let (queue, requests) = mpsc::channel(QUEUE);
                let chain = opened.chain;
                let patrol_authority = authority.ca_bundle();
                let writer = Writer::new(Arc::clone(&log), opened, authority, root, settings, status.clone());
                tokio::spawn(writer.run(requests));
                let patrol = patrol::look(Arc::clone(&log), chain, patrol_authority, status.clone());
                tokio::spawn(patrol);
                Self { open: Some(Open { chain, log, queue }), status, folding: Folding::default() }
            }
            Err(error) => {
                let reason = causes(&error);
                tracing::error!(reason, "the audit log is broken; nothing is recorded, and so nothing done");
                Self { open: None, status: Status::broken(reason), folding: Folding::default() }
            }
        }
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
        match self.folding.take(event, tokio::time::Instant::now()) {
            events if events.is_empty() => Ok(()),
            events => self.record(events.into_iter().map(Entry::from).collect(), Durability::Process).await,
        }
    }

    /// Replaces the key that checkpoints are signed with.
    pub(crate) async fn rotate_key(&self) -> Result<(), AuditError> {
        self.ask(|done| Request::Rotate { done }).await
    }

    /// Records the last events, and signs for everything.
    pub(crate) async fn close(&self, last: Vec<Event>) -> Result<(), AuditError> {
        let folded = self.folding.drain();
        let entries = folded.into_iter().chain(last).map(Entry::from).collect();
        self.ask(|done| Request::Close { entries, done }).await
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), AuditError>>) -> Request,
    ) -> Result<(), AuditError> {
        let open = self.opened()?;
        let (done, answer) = oneshot::channel();
        open.queue.send(request(done)).await.map_err(|_| AuditError::Closed)?;
        answer.await.map_err(|_| AuditError::Closed)?
    }

    fn opened(&self) -> Result<&Open, AuditError> {
        match (&self.open, self.status.broken_reason()) {
            (Some(open), None) => Ok(open),
            (_, reason) => Err(AuditError::Broken(reason.unwrap_or_default())),
        }
    }

    /// How it does.
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// The chain that is written, and where it is kept. It can be read as well when it is broken.
    pub(crate) fn chain(&self) -> Result<(ChainId, &Arc<dyn AuditLog>), AuditError> {
        match &self.open {
            Some(open) => Ok((open.chain, &open.log)),
            None => Err(AuditError::Broken(self.status.broken_reason().unwrap_or_default())),
        }
    }

    /// Word of each commit.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.status.watch()
    }
}
