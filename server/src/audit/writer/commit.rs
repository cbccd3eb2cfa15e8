use std::collections::BTreeMap;

use secretfs_wire::audit::SignedCheckpoint;
use tokio::time::Instant;

use super::Writer;
use super::draft::Draft;
use crate::audit::error::AuditError;
use crate::audit::key::SigningKey;
use crate::store::{AppendError, AuditBatch, Head, LossSource, StoreError};

/// What is so once a draft is committed.
pub(super) struct Committed {
    head: Head,
    records: usize,
    signed: Option<SignedCheckpoint>,
    key: Option<SigningKey>,
    losses: BTreeMap<LossSource, u64>,
    refused: u64,
}

impl Writer {
    pub(super) async fn commit(&mut self, draft: Draft) -> Result<(), AuditError> {
        if let Some(reason) = self.status.broken_reason() {
            return Err(AuditError::Broken(reason));
        }
        if draft.records.is_empty() && draft.signed.is_none() {
            return Ok(());
        }
        let (head, records) = (self.head_of(&draft), draft.records.len());
        let Draft { losses, signed, key, durable, refused, .. } = draft;
        let (key, kept) = key.unzip();
        let batch = AuditBatch {
            after: Some(self.head),
            records: draft.records,
            checkpoint: signed.clone(),
            key: kept,
            durable,
        };
        let committed = Committed { head, records, signed, key, losses, refused };
        match self.log.append(self.chain, batch).await {
            Ok(()) => {
                self.adopt(committed);
                self.mended();
                Ok(())
            }
            Err(AppendError::Store(error)) => {
                // It may be there all the same: what failed may have been to say so. A checkpoint alone
                // can be written again.
                self.uncertain = Some(committed).filter(|committed| committed.records > 0);
                Err(unwritable(&error))
            }
            Err(moved @ AppendError::Moved { .. }) => {
                let reason = moved.to_string();
                self.status.set_broken(reason.clone());
                Err(AuditError::Broken(reason))
            }
        }
    }

    /// After a failure: whether what was to be committed then is there.
    pub(super) async fn find_out(&mut self) -> Result<(), AuditError> {
        let Some(uncertain) = &self.uncertain else { return Ok(()) };
        let chains = self.log.chains().await.map_err(|error| unwritable(&error))?;
        let head = chains.iter().find(|chain| chain.id == self.chain).and_then(|chain| chain.head);
        let is_there = head == Some(uncertain.head);
        if let Some(committed) = self.uncertain.take().filter(|_| is_there) {
            self.adopt(committed);
        }
        Ok(())
    }

    fn adopt(&mut self, committed: Committed) {
        let Committed { head, records, signed, key, losses, refused } = committed;
        self.head = head;
        for (source, total) in losses {
            self.losses.put(source, total);
        }
        self.refused -= refused;
        self.status.committed(u64::try_from(records).unwrap_or_default(), head.sequence);
        if let Some(key) = key {
            tracing::info!(key = %key.fingerprint(), "the audit log has another key");
            self.key = key;
        }
        if let Some(SignedCheckpoint { checkpoint, .. }) = signed {
            (self.signed, self.signed_at) = (checkpoint.sequence, Instant::now());
            self.status.signed(checkpoint.time);
            self.marking.signed(checkpoint);
        }
    }
}

pub(super) fn unwritable(error: &StoreError) -> AuditError {
    tracing::debug!(cause = crate::error::chain(error), "the audit log is not written");
    AuditError::Unwritable(error.to_string())
}
