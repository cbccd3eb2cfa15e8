use tokio::sync::oneshot;

use super::error::AuditError;
use super::{Durability, Entry};

/// Who waits for the commit.
pub(super) type Done = oneshot::Sender<Result<(), AuditError>>;

/// What the writer is asked for.
pub(super) enum Request {
    Record { entries: Vec<Entry>, durability: Durability, done: Done },
    Rotate { done: Done },
    Close { entries: Vec<Entry>, done: Done },
}

impl Request {
    /// How many records that makes at most.
    pub(super) fn events(&self) -> usize {
        match self {
            Self::Record { entries, .. } | Self::Close { entries, .. } => entries.len(),
            Self::Rotate { .. } => 1,
        }
    }
}
