use secretfs_wire::audit::{CheckpointError, Fault, RecordError};

use super::key::AuditKeyError;
use super::mark::MarkError;
use crate::error::Cause;
use crate::store::{AppendError, StoreError};

/// Why something is not on record. What should have been recorded must not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuditError {
    /// The chain is broken. Nothing is recorded until somebody has looked at it and restarted.
    #[error("the audit log is broken: {0}")]
    Broken(String),
    /// The log cannot be written now.
    #[error("the audit log cannot be written: {0}")]
    Unwritable(String),
    /// What happened cannot be put into a record.
    #[error("this cannot be recorded")]
    Unfit,
    /// The manager is about to end.
    #[error("the audit log is closed")]
    Closed,
}

/// Why a log cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenAuditError {
    #[error("{0} is missing")]
    Missing(String),
    #[error("its database cannot be opened")]
    Database(#[source] Cause),
    #[error("it is not the log of this manager")]
    Foreign,
    #[error(
        "nothing says how far it was signed: {} is missing, or of another log",
        crate::data_dir::AUDIT_MARK
    )]
    Unmarked,
    #[error("it was signed up to record {0}, and what signed that is gone")]
    Unsigned(u64),
    #[error("it is not known how far it was signed")]
    Mark(#[from] MarkError),
    #[error("it cannot be read")]
    Read(#[source] StoreError),
    #[error("it cannot be begun")]
    Begin(#[source] AppendError),
    #[error("{0}")]
    Fault(Fault),
    #[error("its key cannot be used")]
    Key(#[source] AuditKeyError),
    #[error("its first record cannot be made")]
    Record(#[source] RecordError),
    #[error("a checkpoint cannot be signed")]
    Sign(#[source] CheckpointError),
}

impl From<StoreError> for OpenAuditError {
    fn from(error: StoreError) -> Self {
        Self::Read(error)
    }
}

impl From<AppendError> for OpenAuditError {
    fn from(error: AppendError) -> Self {
        Self::Begin(error)
    }
}

impl From<AuditKeyError> for OpenAuditError {
    fn from(error: AuditKeyError) -> Self {
        Self::Key(error)
    }
}
