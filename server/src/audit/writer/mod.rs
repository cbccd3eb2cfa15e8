mod commit;
mod draft;
mod reported;
mod signing;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use secretfs_wire::ChainId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::error::AuditError;
use super::key::SigningKey;
use super::mark::{Marking, SignedMark};
use super::opening::Opened;
use super::request::{Done, Request};
use super::status::Status;
use super::{AuditSettings, Durability};
use crate::ca::Authority;
use crate::keys::RootKey;
use crate::store::{AuditLog, Head, LossSource};

use commit::Committed;
use draft::Draft;

/// How many events are committed together at most.
const BATCH: usize = 1000;
/// Of how many logs of nodes the losses are kept in memory; those of others are read.
const MOST_SOURCES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// How soon a log that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The one task that writes a chain.
pub(super) struct Writer {
    log: Arc<dyn AuditLog>,
    chain: ChainId,
    /// The last record as this has left it.
    head: Head,
    key: SigningKey,
    /// Up to where checkpoints go, and when the last one was signed.
    signed: u64,
    signed_at: Instant,
    marking: Marking,
    authority: Arc<Authority>,
    root: Arc<RootKey>,
    settings: AuditSettings,
    status: Status,
    /// Totals of losses that were written lately.
    losses: LruCache<LossSource, u64>,
    /// When it has to be tried again, since it could not be written.
    again: Option<Instant>,
    /// How many events were refused since then.
    refused: u64,
    /// What is so if a commit was made of which that is not known.
    uncertain: Option<Committed>,
}

impl Writer {
    pub(super) fn new(
        log: Arc<dyn AuditLog>,
        opened: Opened,
        mark: Arc<SignedMark>,
        authority: Arc<Authority>,
        root: Arc<RootKey>,
        settings: AuditSettings,
        status: Status,
    ) -> Self {
        let Opened { chain, head, key, signed } = opened;
        status.signed(signed.checkpoint.time);
        Self {
            log,
            chain,
            head,
            key,
            signed: signed.checkpoint.sequence,
            signed_at: Instant::now(),
            marking: Marking::begin(mark),
            authority,
            root,
            settings,
            status,
            losses: LruCache::new(MOST_SOURCES),
            again: None,
            refused: 0,
            uncertain: None,
        }
    }

    /// Writes until it is closed, or nobody is left who could ask.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut closing = None;
        while closing.is_none() {
            tokio::select! {
                biased;
                () = due(self.due()) => self.look_after().await,
                request = requests.recv() => {
                    let Some(request) = request else { break };
                    let mut waiting = vec![request];
                    while waiting.iter().map(Request::events).sum::<usize>() < BATCH
                        && let Ok(request) = requests.try_recv()
                    {
                        waiting.push(request);
                    }
                    closing = self.serve(waiting).await;
                }
            }
        }
        let signed = self.checkpoint().await;
        self.marking.end().await;
        for done in closing.into_iter().flatten() {
            let _ = done.send(signed.clone());
        }
    }

    /// When there is something to do that nobody asks for.
    fn due(&self) -> Option<Instant> {
        let checkpoint =
            (self.signed < self.head.sequence).then(|| self.signed_at + self.settings.checkpoint_interval);
        match self.again {
            Some(again) => Some(again),
            None if self.status.is_broken() => None,
            None => checkpoint,
        }
    }

    async fn look_after(&mut self) {
        if self.again.is_some() {
            self.mend().await;
        } else if let Err(error) = self.checkpoint().await {
            self.fail(&error);
        } else if self.is_key_old()
            && let Err(error) = self.rotate().await
        {
            tracing::error!(%error, "the audit log goes on with its old key");
            self.fail(&error);
        }
    }

    /// Serves what waits. When that was the end, those who wait for all to be signed.
    async fn serve(&mut self, waiting: Vec<Request>) -> Option<Vec<Done>> {
        let mut draft = match self.draft().await {
            Ok(draft) => draft,
            Err(error) => return self.refuse(waiting, &error),
        };
        let (mut answers, mut closing) = (Vec::new(), None);
        for request in waiting {
            let (entries, durability, done, answers) = match request {
                Request::Record { entries, durability, done } => (entries, durability, done, &mut answers),
                Request::Close { entries, done } => {
                    (entries, Durability::Power, done, closing.get_or_insert_default())
                }
                Request::Rotate { done } => {
                    let _ = self.finish(std::mem::take(&mut draft), std::mem::take(&mut answers)).await;
                    let rotated = self.rotate().await;
                    let _ = rotated.as_ref().inspect_err(|error| self.fail(error));
                    let _ = done.send(rotated);
                    continue;
                }
            };
            match self.add(&mut draft, entries).await {
                Ok(()) => {
                    draft.durable |= durability == Durability::Power;
                    answers.push(done);
                }
                Err(error) => drop(done.send(Err(error))),
            }
        }
        if let Err(error) = self.finish(draft, answers).await {
            for done in closing.iter_mut().flat_map(|closing| closing.drain(..)) {
                let _ = done.send(Err(error.clone()));
            }
        }
        closing
    }

    /// Refuses what waits.
    fn refuse(&mut self, waiting: Vec<Request>, error: &AuditError) -> Option<Vec<Done>> {
        let events = waiting.iter().map(Request::events).sum::<usize>();
        self.count_refused(u64::try_from(events).unwrap_or(u64::MAX));
        self.fail(error);
        let is_over = waiting.iter().any(|request| matches!(request, Request::Close { .. }));
        for request in waiting {
            let (Request::Record { done, .. } | Request::Close { done, .. } | Request::Rotate { done }) =
                request;
            let _ = done.send(Err(error.clone()));
        }
        is_over.then(Vec::new)
    }

    fn count_refused(&mut self, events: u64) {
        self.refused = self.refused.saturating_add(events);
        self.status.count_refused(events);
    }

    /// Commits, and tells all who wait how that went.
    async fn finish(&mut self, draft: Draft, answers: Vec<Done>) -> Result<(), AuditError> {
        let told = usize::from(draft.refused > 0);
        let events = u64::try_from(draft.records.len() - told).unwrap_or(u64::MAX);
        let committed = self.commit(draft).await;
        if let Err(error) = &committed {
            self.count_refused(events);
            self.fail(error);
        }
        for done in answers {
            let _ = done.send(committed.clone());
        }
        committed
    }

    fn fail(&mut self, error: &AuditError) {
        if let AuditError::Unwritable(reason) = error {
            if self.again.is_none() {
                tracing::error!(
                    reason,
                    "the audit log cannot be written; what has to be recorded is refused"
                );
            }
            self.status.set_unwritable(Some(reason.clone()));
            self.again = Some(Instant::now() + AGAIN);
        } else {
            self.again = None;
        }
    }

    /// Tries whether it can be written again, by a record of how much could not be, or else by a checkpoint.
    async fn mend(&mut self) {
        let tried = match self.draft().await {
            Ok(draft) if draft.records.is_empty() => self.checkpoint().await,
            Ok(draft) => self.commit(draft).await,
            Err(error) => Err(error),
        };
        match tried {
            Ok(()) => self.mended(),
            Err(error) => self.fail(&error),
        }
    }

    /// Nothing fails any more.
    fn mended(&mut self) {
        if self.again.take().is_some() {
            self.status.set_unwritable(None);
            tracing::info!("the audit log is written again");
        }
    }
}

/// Until then; for ever if there is no such time.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
