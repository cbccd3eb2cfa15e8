use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use async_trait::async_trait;
use secretfs_wire::audit::{CertificateFingerprint, Event, SignedCheckpoint};
use secretfs_wire::{ChainId, EnvironmentName};

use crate::store::{
    AppendError, AuditBatch, AuditKeyRecord, AuditLog, LossSource, ReportId, SqliteAudit, StoreError,
    StoredChain, StoredCheckpoint, StoredRecord,
};

/// A log whose disk can be full, and which can fail in worse ways.
pub(crate) struct FaultyLog {
    log: SqliteAudit,
    /// How many more batches of records there is room for.
    room: Mutex<Option<u64>>,
    /// Checkpoints that come without records are not written.
    fails_checkpoints: AtomicBool,
    /// The next batch is written, and said not to be.
    denies: AtomicBool,
}

impl FaultyLog {
    pub(crate) fn new(log: SqliteAudit) -> Self {
        Self { log, room: Mutex::default(), fails_checkpoints: false.into(), denies: false.into() }
    }

    /// Whether nothing can be written from now on.
    pub(crate) fn fail(&self, fails: bool) {
        *self.room.lock().expect("no panic") = fails.then_some(0);
    }

    /// Nothing can be written after so many batches of records.
    pub(crate) fn fail_after(&self, batches: u64) {
        *self.room.lock().expect("no panic") = Some(batches);
    }

    /// Whether no checkpoint can be written from now on, though records can.
    pub(crate) fn fail_checkpoints(&self, fails: bool) {
        self.fails_checkpoints.store(fails, Relaxed);
    }

    /// The next batch is committed, and reported as failed.
    pub(crate) fn deny_next(&self) {
        self.denies.store(true, Relaxed);
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
        let full = || Err(StoreError::Full("planted".into()).into());
        if is_full || batch.records.is_empty() && self.fails_checkpoints.load(Relaxed) {
            return full();
        }
        self.log.append(chain, batch).await?;
        if self.denies.swap(false, Relaxed) { full() } else { Ok(()) }
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
    ) -> Result<Vec<StoredCheckpoint>, StoreError> {
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
