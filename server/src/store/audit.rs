use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::audit::{
    Actor, AuditCertificate, CertificateFingerprint, Event, EventId, RecordHash, SignedCheckpoint,
    WrittenRecord,
};
use secretfs_wire::{ChainId, EnvironmentName, NodeId, OpenLogId};

use super::StoreError;

/// A chain that is kept, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredChain {
    pub(crate) id: ChainId,
    /// It came from a backup and is not gone on with here.
    pub(crate) ended: bool,
    pub(crate) head: Option<Head>,
}

/// The last record of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) hash: RecordHash,
}

/// A record in its place. When somebody has changed the database it may say another number of itself, have
/// another hash, or be none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    pub(crate) sequence: u64,
    pub(crate) written: WrittenRecord,
}

/// A checkpoint in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredCheckpoint {
    pub(crate) sequence: u64,
    /// Or what stands there that is none.
    pub(crate) signed: Result<SignedCheckpoint, String>,
}

/// An audit key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditKeyRecord {
    pub(crate) certificate: AuditCertificate,
    pub(crate) made: Timestamp,
    /// The private key, as long as it signs.
    pub(crate) sealed: Option<Vec<u8>>,
}

/// Whose losses are counted.
pub(crate) type LossSource = (NodeId, OpenLogId);

/// How many events are looked at that were told under one id. An honest node has one, or two.
pub(crate) const MOST_OF_ONE_ID: u32 = 16;

/// What an event is known by that a node reported: the numbers of its log are that node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReportId {
    pub(crate) node: NodeId,
    pub(crate) event: EventId,
}

impl ReportId {
    /// That of an event, if a node reported it.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        match (&event.actor, event.id) {
            (Actor::Node { id, .. }, Some(event)) => Some(Self { node: *id, event }),
            _ => None,
        }
    }
}

/// What is added to a chain at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditBatch {
    /// The record that these go on from; `None` begins a chain.
    pub(crate) after: Option<Head>,
    pub(crate) records: Vec<StoredRecord>,
    pub(crate) checkpoint: Option<SignedCheckpoint>,
    /// A key that signs from now on; the private keys of all others of the chain are removed.
    pub(crate) key: Option<AuditKeyRecord>,
    /// Whether it has to survive a power cut. It survives the end of the process in any case.
    pub(crate) durable: bool,
}

/// Why nothing was added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// The chain in the database is not as it was left: somebody else has written it.
    #[error("the chain in the database ends with record {found}, and not with {expected} as it was left")]
    Moved {
        /// The last record's number as it was left, and as it is.
        expected: u64,
        found: u64,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where audit records are kept. Nothing is ever changed or removed, but the private keys that have
/// signed for the last time.
#[async_trait]
pub(crate) trait AuditLog: Send + Sync {
    /// All chains, in the order in which they began.
    async fn chains(&self) -> Result<Vec<StoredChain>, StoreError>;

    /// Adds a batch to a chain, all of it or nothing.
    async fn append(&self, chain: ChainId, batch: AuditBatch) -> Result<(), AppendError>;

    /// What is recorded under these ids already, of each the first few events.
    async fn recorded(&self, ids: &BTreeSet<ReportId>) -> Result<BTreeMap<ReportId, Vec<Event>>, StoreError>;

    /// The records of a chain from this number on, in order; of one environment only if one is named.
    async fn records(
        &self,
        chain: ChainId,
        from: u64,
        environment: Option<&EnvironmentName>,
        limit: u32,
    ) -> Result<Vec<StoredRecord>, StoreError>;

    /// The number of the last so many records of a chain.
    async fn tail(
        &self,
        chain: ChainId,
        environment: Option<&EnvironmentName>,
        count: u32,
    ) -> Result<u64, StoreError>;

    /// The checkpoints of a chain about records from this number on, in order.
    async fn checkpoints(
        &self,
        chain: ChainId,
        from: u64,
        limit: u32,
    ) -> Result<Vec<StoredCheckpoint>, StoreError>;

    /// The last checkpoint of a chain.
    async fn last_checkpoint(&self, chain: ChainId) -> Result<Option<SignedCheckpoint>, StoreError>;

    /// The keys of a chain, the newest first.
    async fn audit_keys(
        &self,
        chain: ChainId,
    ) -> Result<Vec<(CertificateFingerprint, AuditKeyRecord)>, StoreError>;

    /// The largest total that is recorded; 0 where none is.
    async fn losses(&self, of: LossSource) -> Result<u64, StoreError>;
}

/// What the store remembers of the audit log, so that one that is gone or another's is noticed.
#[async_trait]
pub(crate) trait AuditMark: Send + Sync {
    /// The chain that this manager began last.
    async fn audit_chain(&self) -> Result<Option<ChainId>, StoreError>;

    /// Remembers it.
    async fn set_audit_chain(&self, chain: ChainId) -> Result<(), StoreError>;

    /// Forgets it: the next log is a new one.
    async fn forget_audit_chain(&self) -> Result<(), StoreError>;
}
