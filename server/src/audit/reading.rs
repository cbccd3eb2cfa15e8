use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use secretfs_wire::audit::{CertificateFingerprint, Fault, Line, SignedCheckpoint, Verifier};
use secretfs_wire::{ChainId, EnvironmentName};

use crate::store::{AuditLog, StoreError, StoredCheckpoint};

/// How many records are in memory at once.
const PAGE: u32 = 256;

/// What stands in the next place of a chain.
pub(super) enum Item {
    Line(Line),
    /// No line, and what there is in its place.
    Unreadable(String),
}

/// A chain as it is kept, line by line: certificates before the records that name them, and checkpoints after
/// those that they are about. Nothing is taken for granted of what is there: who reads it verifies it.
pub(super) struct Reader {
    log: Arc<dyn AuditLog>,
    chain: ChainId,
    /// Of this environment only: its records, and nothing else.
    environment: Option<EnvironmentName>,
    certificates: BTreeSet<CertificateFingerprint>,
    /// The next record, and the next one that a checkpoint may be about.
    next: u64,
    next_checkpoint: u64,
    /// The last record when this began, and the checkpoint that was the last one then.
    end: u64,
    newest: Option<SignedCheckpoint>,
}

impl Reader {
    /// Reads from a record on to where the chain ends now.
    pub(super) async fn begin(log: Arc<dyn AuditLog>, chain: ChainId, from: u64) -> Result<Self, StoreError> {
        // Before the end is read: what is signed then is there.
        let newest = match log.last_checkpoint(chain).await {
            // It comes up in its place.
            Err(StoreError::Corrupt { .. }) => None,
            newest => newest?,
        };
        let chains = log.chains().await?;
        let head = chains.iter().find(|kept| kept.id == chain).and_then(|kept| kept.head);
        Ok(Self {
            log,
            chain,
            environment: None,
            certificates: BTreeSet::new(),
            next: from.max(1),
            next_checkpoint: from.max(1),
            end: head.map_or(0, |head| head.sequence),
            newest,
        })
    }

    /// Reads the records of one environment alone.
    pub(super) fn within(self, environment: EnvironmentName) -> Self {
        Self { environment: Some(environment), newest: None, ..self }
    }

    /// Reads whatever comes, too.
    pub(super) fn on(self) -> Self {
        Self { end: u64::MAX, newest: None, ..self }
    }

    /// The next lines, with so many records at most; none when there are no more. The last one is a checkpoint
    /// about records that are not there, if there is such a one.
    pub(super) async fn page(&mut self, most: u64) -> Result<Vec<Item>, StoreError> {
        let limit = u32::try_from(most).unwrap_or(PAGE).min(PAGE);
        let environment = self.environment.as_ref();
        let mut records = match limit {
            0 => Vec::new(),
            _ => self.log.records(self.chain, self.next, environment, limit).await?,
        };
        records.retain(|record| record.sequence <= self.end);
        let last = records.last().map_or(self.next - 1, |record| record.sequence);
        let (mut items, mut checkpoints) = match environment {
            // After the records: the key that one of them names is there.
            None => (self.new_certificates().await?, self.due_checkpoints(last).await?),
            Some(_) => Default::default(),
        };
        for record in records {
            while let Some(due) = checkpoints.pop_front_if(|due| due.sequence < record.sequence) {
                items.push(due.into());
            }
            items.push(Item::Line(Line::Record(record.written)));
        }
        items.extend(checkpoints.into_iter().map(Item::from));
        self.next = last + 1;
        if items.is_empty() && most > 0 {
            let newest = self.newest.take().filter(|newest| newest.checkpoint.sequence > self.end);
            items.extend(newest.map(|newest| Item::Line(Line::Checkpoint(newest))));
        }
        Ok(items)
    }

    /// Some of all the lines that are left; `None` when there are no more.
    pub(super) async fn some(&mut self) -> Result<Option<Vec<Item>>, StoreError> {
        let items = self.page(u64::MAX).await?;
        Ok((!items.is_empty()).then_some(items))
    }

    /// The certificates that were not given yet.
    async fn new_certificates(&mut self) -> Result<Vec<Item>, StoreError> {
        let mut keys = self.log.audit_keys(self.chain).await?;
        keys.retain(|(name, _)| self.certificates.insert(*name));
        Ok(keys.into_iter().map(|(_, key)| Item::Line(Line::Certificate(key.certificate))).collect())
    }

    /// The checkpoints up to the one about record `last`.
    async fn due_checkpoints(&mut self, last: u64) -> Result<VecDeque<StoredCheckpoint>, StoreError> {
        let mut all = VecDeque::new();
        loop {
            let mut some = self.log.checkpoints(self.chain, self.next_checkpoint, PAGE).await?;
            some.retain(|due| due.sequence <= last);
            let is_full = some.len() == PAGE as usize;
            if let Some(due) = some.last() {
                self.next_checkpoint = due.sequence.saturating_add(1);
            }
            all.extend(some);
            if !is_full {
                return Ok(all);
            }
        }
    }
}

impl Item {
    /// Gives it to who verifies the chain.
    pub(super) fn verify(&self, verifier: &mut Verifier) -> Result<(), Fault> {
        match self {
            Self::Line(line) => verifier.take(line),
            Self::Unreadable(_) => Err(verifier.unreadable()),
        }
    }

    /// Writes it as a line of an export. What is none goes out as a JSON text, which is none there either.
    pub(super) fn write(&self, text: &mut String) {
        let line = match self {
            Self::Line(line) => line.to_text().map_err(|_| match line {
                Line::Record(record) => record.text.as_str(),
                Line::Certificate(_) | Line::Checkpoint(_) => "",
            }),
            Self::Unreadable(found) => Err(found.as_str()),
        };
        let _ = match line {
            Ok(line) => writeln!(text, "{line}"),
            Err(found) => writeln!(text, "{}", serde_json::Value::from(found)),
        };
    }

    pub(super) fn is_record(&self) -> bool {
        matches!(self, Self::Line(Line::Record(_)))
    }
}

impl From<StoredCheckpoint> for Item {
    fn from(stored: StoredCheckpoint) -> Self {
        match stored.signed {
            Ok(signed) => Self::Line(Line::Checkpoint(signed)),
            Err(found) => Self::Unreadable(found),
        }
    }
}
