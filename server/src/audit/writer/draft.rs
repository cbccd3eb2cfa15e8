use std::collections::{BTreeMap, BTreeSet};

use secretfs_wire::Action;
use secretfs_wire::audit::{Actor, CertificateFingerprint, Event, Lost, Outcome, Record, SignedCheckpoint};

use super::Writer;
use super::commit::unwritable;
use super::reported::Reported;
use crate::app::now;
use crate::audit::Entry;
use crate::audit::error::AuditError;
use crate::audit::key::SigningKey;
use crate::store::{AuditKeyRecord, Head, LossSource, ReportId, StoredRecord};

/// What is about to be committed.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) records: Vec<StoredRecord>,
    pub(super) losses: BTreeMap<LossSource, u64>,
    pub(super) reported: Reported,
    pub(super) signed: Option<SignedCheckpoint>,
    /// The key that signs from then on, and what is kept of it.
    pub(super) key: Option<(SigningKey, AuditKeyRecord)>,
    pub(super) durable: bool,
    /// How many events that could not be written the first record tells of.
    pub(super) refused: u64,
}

impl Writer {
    /// What is written next: first, how much could not be.
    pub(super) async fn draft(&mut self) -> Result<Draft, AuditError> {
        self.find_out().await?;
        if self.refused == 0 {
            return Ok(Draft::default());
        }
        let mut event = Event::new(Action::AuditGap, Outcome::Failed, Actor::Manager);
        event.count = Some(self.refused);
        let records = vec![self.next(self.head, event, None)?];
        Ok(Draft { records, refused: self.refused, durable: true, ..Draft::default() })
    }

    pub(super) fn head_of(&self, draft: &Draft) -> Head {
        draft.records.last().map_or(self.head, head_at)
    }

    /// Puts events into records, all or none of them, but those that are recorded already.
    pub(super) async fn add(&self, draft: &mut Draft, entries: Vec<Entry>) -> Result<(), AuditError> {
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
                event.lost = Some(Lost { log: source.1, total });
                losses.insert(source, total);
            }
            let record = self.next(head, event, None)?;
            head = head_at(&record);
            records.push(record);
        }
        draft.reported.extend(reported);
        draft.records.extend(records);
        draft.losses.extend(losses);
        Ok(())
    }

    /// The record after `head`.
    pub(super) fn next(
        &self,
        head: Head,
        event: Event,
        key: Option<CertificateFingerprint>,
    ) -> Result<StoredRecord, AuditError> {
        let sequence = head.sequence + 1;
        let previous = Some(head.hash);
        let record = Record { chain: self.chain, sequence, time: now(), previous, event, key, follows: None };
        let written = record.write().map_err(|_| AuditError::Unfit)?;
        Ok(StoredRecord { sequence, written })
    }
}

fn head_at(record: &StoredRecord) -> Head {
    Head { sequence: record.sequence, hash: record.written.hash }
}
