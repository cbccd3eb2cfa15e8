mod reported;
mod signing;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use secretfs_wire::audit::{Actor, CertificateFingerprint, Event, Outcome, Record, SignedCheckpoint};
use secretfs_wire::{Action, ChainId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::reported::Reported;
use super::error::AuditError;
use super::key::SigningKey;
use super::opening::Opened;
use super::request::{Done, Request};
use super::status::Status;
use super::{AuditSettings, Durability, Entry};
use crate::app::now;
use crate::ca::Authority;
use crate::keys::RootKey;
use crate::store::{
    AppendError, AuditBatch, AuditKeyRecord, AuditLog, Head, LossSource, NewRecord, ReportId, StoreError,
};

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
    /// How a commit would have ended of which it is not known whether it was made.
    uncertain: Option<Head>,
}

/// Records that are about to be committed.
#[derive(Default)]
struct Draft {
    records: Vec<NewRecord>,
    losses: BTreeMap<LossSource, u64>,
    reported: Reported,
    durable: bool,
    /// How many events that could not be written the first record tells of.
    refused: u64,
}

impl Writer {
    pub(super) fn new(
        log: Arc<dyn AuditLog>,
        opened: Opened,
        authority: Arc<Authority>,
        root: Arc<RootKey>,
        settings: AuditSettings,
        status: Status,
    ) -> Self {
        let Opened { chain, head, key, signed } = opened;
        if let Some(signed) = &signed {
            status.signed(signed.checkpoint.time);
        }
        Self {
            log,
            chain,
            head,
            key,
            signed: signed.map_or(0, |signed| signed.checkpoint.sequence),
            signed_at: Instant::now(),
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
        loop {
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
                    if self.serve(waiting).await {
                        break;
                    }
                }
            }
        }
        let _ = self.checkpoint().await;
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
        } else if self.is_key_old() {
            let _ = self.rotate().await;
        }
    }

    /// Serves what waits, and says whether that was the end.
    async fn serve(&mut self, waiting: Vec<Request>) -> bool {
        let mut draft = match self.draft().await {
            Ok(draft) => draft,
            Err(error) => return self.refuse(waiting, &error),
        };
        let (mut answers, mut is_over) = (Vec::new(), false);
        for request in waiting {
            let (entries, durability, done) = match request {
                Request::Record { entries, durability, done } => (entries, durability, done),
                Request::Close { entries, done } => {
                    is_over = true;
                    (entries, Durability::Power, done)
                }
                Request::Rotate { done } => {
                    self.finish(std::mem::take(&mut draft), std::mem::take(&mut answers)).await;
                    let _ = done.send(self.rotate().await);
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
        self.finish(draft, answers).await;
        is_over
    }

    /// Refuses what waits, and says whether that was the end.
    fn refuse(&mut self, waiting: Vec<Request>, error: &AuditError) -> bool {
        let events = waiting.iter().map(Request::events).sum::<usize>();
        self.count_refused(u64::try_from(events).unwrap_or(u64::MAX));
        self.fail(error);
        let is_over = waiting.iter().any(|request| matches!(request, Request::Close { .. }));
        for request in waiting {
            let (Request::Record { done, .. } | Request::Close { done, .. } | Request::Rotate { done }) =
                request;
            let _ = done.send(Err(error.clone()));
        }
        is_over
    }

    fn count_refused(&mut self, events: u64) {
        self.refused = self.refused.saturating_add(events);
        self.status.refused(events);
    }

    /// What is written next: first, how much could not be.
    async fn draft(&mut self) -> Result<Draft, AuditError> {
        self.find_out().await?;
        if self.refused == 0 {
            return Ok(Draft::default());
        }
        let mut event = Event::new(Action::AuditGap, Outcome::Failed, Actor::Manager);
        event.count = Some(self.refused);
        let records = vec![self.next(self.head, event, None)?];
        Ok(Draft { records, refused: self.refused, durable: true, ..Draft::default() })
    }

    fn head_of(&self, draft: &Draft) -> Head {
        draft
            .records
            .last()
            .map_or(self.head, |record| Head { sequence: record.sequence, hash: record.written.hash })
    }

    /// Puts events into records, all or none of them, but those that are recorded already.
    async fn add(&self, draft: &mut Draft, entries: Vec<Entry>) -> Result<(), AuditError> {
        let ids: BTreeSet<_> = entries.iter().filter_map(|entry| ReportId::of(&entry.event)).collect();
        let recorded = self.log.recorded(&ids).await.map_err(|error| unwritable(&error))?;
        let mut reported = Reported::of(&ids, recorded, &draft.reported);
        let mut head = self.head_of(draft);
        let (mut records, mut losses) = (Vec::new(), BTreeMap::new());
        for Entry { mut event, loss } in entries {
            if !reported.admit(&mut event) {
                continue;
            }
            if let Some((source, total)) = loss {
                let told = losses.get(&source).or_else(|| draft.losses.get(&source));
                let told = match told.or_else(|| self.losses.peek(&source)) {
                    Some(told) => *told,
                    None => self.log.losses(source).await.map_err(|error| unwritable(&error))?,
                };
                if total <= told {
                    continue;
                }
                event.count = Some(total - told);
                losses.insert(source, total);
            }
            let record = self.next(head, event, None)?;
            head = Head { sequence: record.sequence, hash: record.written.hash };
            records.push(record);
        }
        draft.reported.extend(reported);
        draft.records.extend(records);
        draft.losses.extend(losses);
        Ok(())
    }

    /// The record after `head`.
    fn next(
        &self,
        head: Head,
        event: Event,
        key: Option<CertificateFingerprint>,
    ) -> Result<NewRecord, AuditError> {
        let sequence = head.sequence + 1;
        let (environment, id) = (event.environment.clone(), event.id);
        let record = Record {
            chain: self.chain,
            sequence,
            time: now(),
            previous: Some(head.hash),
            event,
            key,
            follows: None,
        };
        let written = record.write().map_err(|_| AuditError::Unfit)?;
        Ok(NewRecord { sequence, environment, event: id, written })
    }

    /// Commits, and tells all who wait how that went.
    async fn finish(&mut self, draft: Draft, answers: Vec<Done>) {
        if answers.is_empty() {
            return;
        }
        let told = usize::from(draft.refused > 0);
        let events = u64::try_from(draft.records.len() - told).unwrap_or(u64::MAX).max(1);
        let committed = self.commit(draft, None, None).await;
        if let Err(error) = &committed {
            self.count_refused(events);
            self.fail(error);
        }
        for done in answers {
            let _ = done.send(committed.clone());
        }
    }

    async fn commit(
        &mut self,
        draft: Draft,
        checkpoint: Option<SignedCheckpoint>,
        key: Option<AuditKeyRecord>,
    ) -> Result<(), AuditError> {
        if self.status.is_broken() {
            return Err(AuditError::Broken(self.status.broken_reason().unwrap_or_default()));
        }
        let (head, records) = (self.head_of(&draft), draft.records.len());
        let signed = checkpoint.as_ref().map(|signed| signed.checkpoint.time);
        if records == 0 && checkpoint.is_none() {
            return Ok(());
        }
        let batch = AuditBatch {
            after: Some(self.head),
            records: draft.records,
            checkpoint,
            key,
            losses: draft.losses.clone(),
            durable: draft.durable,
        };
        match self.log.append(self.chain, batch).await {
            Ok(()) => {}
            Err(AppendError::Store(error)) => {
                // It may be there all the same: what failed may have been to say so.
                self.uncertain = Some(head);
                return Err(unwritable(&error));
            }
            Err(moved @ AppendError::Moved { .. }) => return Err(self.end(moved.to_string())),
        }
        self.head = head;
        for (source, total) in draft.losses {
            self.losses.put(source, total);
        }
        self.refused -= draft.refused;
        self.status.committed(u64::try_from(records).unwrap_or_default(), head.sequence);
        if let Some(time) = signed {
            (self.signed, self.signed_at) = (head.sequence, Instant::now());
            self.status.signed(time);
        }
        if self.again.take().is_some() {
            self.status.set_unwritable(None);
            tracing::info!("the audit log is written again");
        }
        Ok(())
    }

    /// After a failure: whether what was to be committed then is there.
    async fn find_out(&mut self) -> Result<(), AuditError> {
        let Some(uncertain) = self.uncertain else { return Ok(()) };
        let chains = self.log.chains().await.map_err(|error| unwritable(&error))?;
        let head = chains.iter().find(|chain| chain.id == self.chain).and_then(|chain| chain.head);
        if head == Some(uncertain) {
            self.head = uncertain;
            // Totals and checkpoints that were in it are read, or made, anew.
            self.losses.clear();
        }
        self.uncertain = None;
        Ok(())
    }

    /// The chain is broken, until somebody has looked at it and restarts.
    fn end(&self, reason: String) -> AuditError {
        tracing::error!(reason, "the audit log is broken; nothing is recorded, and so nothing done");
        self.status.set_broken(reason.clone());
        AuditError::Broken(reason)
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

    /// Tries whether it can be written again, by a record of how much could not be.
    async fn mend(&mut self) {
        let tried = match self.draft().await {
            Ok(draft) => self.commit(draft, None, None).await,
            Err(error) => Err(error),
        };
        if let Err(error) = tried {
            self.fail(&error);
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

fn unwritable(error: &StoreError) -> AuditError {
    tracing::debug!(cause = crate::error::chain(error), "the audit log is not written");
    AuditError::Unwritable(error.to_string())
}
