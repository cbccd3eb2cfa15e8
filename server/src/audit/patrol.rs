use std::sync::Arc;

use secretfs_wire::ChainId;
use secretfs_wire::audit::{CaBundle, Fault, Line, Verifier};
use tokio::time::{Instant, sleep};

use super::status::Status;
use crate::store::{AuditLog, StoreError};

/// How many records are read at once.
const PAGE: u32 = 500;

/// What can end a patrol.
enum Found {
    Fault(Fault),
    Unreadable(StoreError),
}

impl From<Fault> for Found {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<StoreError> for Found {
    fn from(error: StoreError) -> Self {
        Self::Unreadable(error)
    }
}

/// Verifies a whole chain once, beside the work and for half of one processor at most: at the start only
/// what follows the last checkpoint is, so that it does not take longer with every year.
pub(super) async fn look(log: Arc<dyn AuditLog>, chain: ChainId, authority: CaBundle, status: Status) {
    match verify(log.as_ref(), chain, authority).await {
        Ok(()) => tracing::debug!(%chain, "the audit log is whole"),
        Err(Found::Fault(fault)) => {
            let reason = fault.to_string();
            tracing::error!(reason, "the audit log is broken; nothing is recorded, and so nothing done");
            status.set_broken(reason);
        }
        Err(Found::Unreadable(error)) => tracing::error!(%error, "the audit log cannot be verified"),
    }
}

async fn verify(log: &dyn AuditLog, chain: ChainId, authority: CaBundle) -> Result<(), Found> {
    let mut verifier = Verifier::new(authority);
    // What comes meanwhile is the writer's own. Before the keys: a record up to here may name each of them.
    let chains = log.chains().await?;
    let end = chains.iter().find(|kept| kept.id == chain).and_then(|kept| kept.head);
    let end = end.map_or(0, |head| head.sequence);
    for (_, key) in log.audit_keys(chain).await? {
        verifier.take(&Line::Certificate(key.certificate))?;
    }
    let (mut next, mut next_checkpoint) = (1, 1);
    loop {
        let began = Instant::now();
        let mut records = log.records(chain, next, None, PAGE).await?;
        records.retain(|record| record.sequence <= end);
        let Some(last) = records.last().map(|record| record.sequence) else { break };
        let mut checkpoints = log.checkpoints(chain, next_checkpoint, PAGE).await?.into_iter().peekable();
        for record in records {
            while let Some(signed) =
                checkpoints.next_if(|signed| signed.checkpoint.sequence < record.sequence)
            {
                next_checkpoint = signed.checkpoint.sequence + 1;
                verifier.take(&Line::Checkpoint(signed))?;
            }
            verifier.record(&record.written)?;
        }
        while let Some(signed) = checkpoints.next_if(|signed| signed.checkpoint.sequence == last) {
            next_checkpoint = signed.checkpoint.sequence + 1;
            verifier.take(&Line::Checkpoint(signed))?;
        }
        next = last + 1;
        sleep(began.elapsed()).await;
    }
    verifier.finish()?;
    Ok(())
}
