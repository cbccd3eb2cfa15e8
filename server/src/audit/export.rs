use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use secretfs_wire::audit::{Line, SignedCheckpoint};
use secretfs_wire::{ChainId, EnvironmentName};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::store::{AuditLog, StoreError, StoredRecord};

/// How many records are in memory at once.
const PAGE: u32 = 256;

/// What of a chain is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    /// From this record on.
    pub(crate) from: u64,
    /// So many at most.
    pub(crate) limit: Option<u64>,
    /// Of this environment only, which cannot be verified: no certificates and no checkpoints.
    pub(crate) environment: Option<EnvironmentName>,
    /// And whatever comes, until the caller has enough.
    pub(crate) follow: bool,
}

/// A chain on its way out, line by line: certificates, then records with checkpoints after them.
pub(crate) struct Export {
    log: Arc<dyn AuditLog>,
    chain: ChainId,
    extent: Extent,
    commits: watch::Receiver<u64>,
    heartbeat: Duration,
    stopping: CancellationToken,
    state: State,
}

struct State {
    begun: bool,
    /// The next record, and the next one that a checkpoint may be about.
    next: u64,
    next_checkpoint: u64,
    left: u64,
    /// How far the chain was when this began, and the checkpoint that was the last one then.
    end: u64,
    newest: Option<SignedCheckpoint>,
    over: bool,
}

impl Export {
    pub(crate) fn new(
        log: Arc<dyn AuditLog>,
        chain: ChainId,
        extent: Extent,
        commits: watch::Receiver<u64>,
        heartbeat: Duration,
        stopping: CancellationToken,
    ) -> Self {
        let state = State {
            begun: false,
            next: extent.from.max(1),
            next_checkpoint: extent.from.max(1),
            left: extent.limit.unwrap_or(u64::MAX),
            end: 0,
            newest: None,
            over: false,
        };
        Self { log, chain, extent, commits, heartbeat, stopping, state }
    }

    /// The lines, some at a time. A failure of the database ends it early, which a caller that verifies
    /// notices as an end before the last checkpoint.
    pub(crate) fn lines(self) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
        stream::try_unfold(self, |mut export| async {
            let text = export.some().await.inspect_err(|error| {
                tracing::error!(%error, "an export of the audit log ends early");
            })?;
            Ok(text.map(|text| (Bytes::from(text), export)))
        })
    }

    async fn some(&mut self) -> Result<Option<String>, StoreError> {
        if !self.state.begun {
            self.state.begun = true;
            return self.begin().await.map(Some);
        }
        loop {
            if self.state.over {
                return Ok(None);
            }
            self.commits.mark_unchanged();
            let text = self.page().await?;
            if !text.is_empty() {
                return Ok(Some(text));
            }
            if !self.extent.follow || self.state.left == 0 {
                self.state.over = true;
                return Ok(self.last().filter(|text| !text.is_empty()));
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return Ok(None),
                changed = self.commits.changed() => if changed.is_err() { return Ok(None) },
                () = sleep(self.heartbeat) => return Ok(Some("\n".to_owned())),
            }
        }
    }

    /// The certificates, and where this ends.
    async fn begin(&mut self) -> Result<String, StoreError> {
        let is_whole = self.extent.environment.is_none();
        if is_whole {
            // Before the end is read: what is signed then is there.
            self.state.newest = self.log.last_checkpoint(self.chain).await?;
        }
        let chains = self.log.chains().await?;
        let head = chains.iter().find(|chain| chain.id == self.chain).and_then(|chain| chain.head);
        self.state.end = head.map_or(0, |head| head.sequence);
        let mut text = String::new();
        if is_whole {
            // After it: the last record may name a key that is new.
            for (_, key) in self.log.audit_keys(self.chain).await? {
                push(&mut text, &Line::Certificate(key.certificate));
            }
        }
        Ok(text)
    }

    /// The next records, and the checkpoints among them.
    async fn page(&mut self) -> Result<String, StoreError> {
        let state = &mut self.state;
        let limit = u32::try_from(state.left).unwrap_or(u32::MAX).min(PAGE);
        let environment = self.extent.environment.as_ref();
        let mut records = match limit {
            0 => Vec::new(),
            _ => self.log.records(self.chain, state.next, environment, limit).await?,
        };
        if !self.extent.follow {
            records.retain(|record| record.sequence <= state.end);
        }
        let last = records.last().map_or(state.next - 1, |record| record.sequence);
        let mut checkpoints = VecDeque::new();
        if environment.is_none() {
            loop {
                let some = self.log.checkpoints(self.chain, state.next_checkpoint, PAGE).await?;
                let due: Vec<_> =
                    some.into_iter().filter(|signed| signed.checkpoint.sequence <= last).collect();
                let full = due.len() == PAGE as usize;
                if let Some(signed) = due.last() {
                    state.next_checkpoint = signed.checkpoint.sequence.saturating_add(1);
                }
                checkpoints.extend(due);
                if !full {
                    break;
                }
            }
        }
        let mut text = String::new();
        for StoredRecord { sequence, written } in records {
            while let Some(signed) = checkpoints.pop_front_if(|signed| signed.checkpoint.sequence < sequence)
            {
                push(&mut text, &Line::Checkpoint(signed));
            }
            push(&mut text, &Line::Record(written));
            (state.next, state.left) = (sequence + 1, state.left - 1);
        }
        for signed in checkpoints {
            push(&mut text, &Line::Checkpoint(signed));
        }
        Ok(text)
    }

    /// A checkpoint about records that are not there.
    fn last(&mut self) -> Option<String> {
        let newest = self.state.newest.take()?;
        let is_missing = newest.checkpoint.sequence > self.state.end && self.state.left > 0;
        is_missing.then(|| {
            let mut text = String::new();
            push(&mut text, &Line::Checkpoint(newest));
            text
        })
    }
}

/// A record that is no JSON any more goes out as it is: whoever verifies finds it.
fn push(text: &mut String, line: &Line) {
    let _ = match (line.to_text(), line) {
        (Ok(line), _) => writeln!(text, "{line}"),
        (Err(_), Line::Record(record)) => {
            writeln!(text, "{{\"hash\":\"{}\",\"record\":{}}}", record.hash, record.text.replace('\n', " "))
        }
        (Err(_), _) => Ok(()),
    };
}
