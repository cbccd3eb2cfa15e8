use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use secretfs_wire::audit::{CertificateFingerprint, Event, SignedCheckpoint};
use secretfs_wire::{ChainId, EnvironmentName};

use crate::store::{
    AppendError, AuditBatch, AuditKeyRecord, AuditLog, LossSource, ReportId, SqliteAudit, StoreError,
    StoredChain, StoredRecord,
};

/// A log whose disk can be full.
pub(crate) struct FaultyLog {
    log: SqliteAudit,
    /// How many more batches of records there is room for.
    room: Mutex<Option<u64>>,
}

impl FaultyLog {
    pub(crate) fn new(log: SqliteAudit) -> Self {
        Self { log, room: Mutex::default() }
    }

    /// Whether nothing can be written from now on.
    pub(crate) fn fail(&self, fails: bool) {
        *self.room.lock().expect("no panic") = fails.then_some(0);
    }

    /// Nothing can be written after so many batches of records.
    pub(crate) fn fail_after(&self, batches: u64) {
        *self.room.lock().expect("no panic") = Some(batches);
    }
}

#[async_trait]
impl AuditLog for FaultyLog {
    async fn append(&self, chain: ChainId, batch: AuditBatch) -> Result<(), AppendError> {
        let is_full = match self.room.lock().expect("no panic").as_mut() {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= u64::from(!batch.records.is_empty());
                false
            }
        };
        if is_full {
            return Err(StoreError::Full("planted".into()).into());
        }
        self.log.append(chain, batch).await
    }

    async fn chains(&self) -> Result<Vec<StoredChain>, StoreError> {
        self.log.chains().await
    }

    async fn recorded(&self, ids: &BTreeSet<ReportId>) -> Result<BTreeMap<ReportId, Vec<Event>>, StoreError> {
        self.log.recorded(ids).await
    }

    async fn records(
        &self,
        chain: ChainId,
        from: u64,
        environment: Option<&EnvironmentName>,
        limit: u32,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        self.log.records(chain, from, environment, limit).await
    }

    async fn tail(
        &self,
        chain: ChainId,
        environment: Option<&EnvironmentName>,
        count: u32,
    ) -> Result<u64, StoreError> {
        self.log.tail(chain, environment, count).await
    }

    async fn checkpoints(
        &self,
        chain: ChainId,
        from: u64,
        limit: u32,
    ) -> Result<Vec<SignedCheckpoint>, StoreError> {
        self.log.checkpoints(chain, from, limit).await
    }

    async fn last_checkpoint(&self, chain: ChainId) -> Result<Option<SignedCheckpoint>, StoreError> {
        self.log.last_checkpoint(chain).await
    }

    async fn audit_keys(
        &self,
        chain: ChainId,
    ) -> Result<Vec<(CertificateFingerprint, AuditKeyRecord)>, StoreError> {
        self.log.audit_keys(chain).await
    }

    async fn losses(&self, of: LossSource) -> Result<u64, StoreError> {
        self.log.losses(of).await
    }
}
