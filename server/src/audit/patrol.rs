use std::sync::Arc;

use secretfs_wire::ChainId;
use secretfs_wire::audit::{CaBundle, Damage, Fault, Summary, Verifier};
use tokio::time::{Instant, sleep};

use super::reading::Reader;
use super::status::Status;
use crate::store::{AuditLog, StoreError};

/// What can end a patrol.
enum Found {
    Fault(ChainId, Fault),
    Unreadable(StoreError),
}

impl From<StoreError> for Found {
    fn from(error: StoreError) -> Self {
        Self::Unreadable(error)
    }
}

/// Verifies all that is kept once, beside the work and for half of one processor at most: at the start only
/// what was not signed yet is, so that it does not take longer with every year.
pub(super) async fn look(log: Arc<dyn AuditLog>, own: ChainId, authority: CaBundle, status: Status) {
    match verify(&log, own, &authority).await {
        Ok(()) => tracing::debug!("the audit log is whole"),
        Err(Found::Fault(chain, fault)) if chain == own => status.set_broken(fault.to_string()),
        // Of an earlier chain: what is known of it, such as reported opens, is not recorded again in this one.
        Err(Found::Fault(chain, fault)) => status.set_broken(format!("in chain {chain}, {fault}")),
        Err(Found::Unreadable(error)) => tracing::error!(%error, "the audit log cannot be verified"),
    }
}

/// Verifies the chain that is written and then those before it, each up to where the next one took it up.
async fn verify(log: &Arc<dyn AuditLog>, own: ChainId, authority: &CaBundle) -> Result<(), Found> {
    let mut links = Vec::new();
    for chain in log.chains().await?.into_iter().rev().map(|chain| chain.id) {
        let mut verifier = Verifier::new(authority.clone());
        links.iter().for_each(|link| verifier.must_meet(link));
        let Summary { follows, signed, last, .. } = verify_chain(log, chain, verifier).await?;
        if chain != own && signed < last {
            // It was signed as a whole when the next one began.
            return Err(Found::Fault(chain, Fault { sequence: signed + 1, damage: Damage::Unsigned }));
        }
        links.extend(follows.into_iter().map(|link| link.checkpoint));
    }
    Ok(())
}

/// What comes meanwhile is the writer's own.
async fn verify_chain(
    log: &Arc<dyn AuditLog>,
    chain: ChainId,
    mut verifier: Verifier,
) -> Result<Summary, Found> {
    let found = |fault| Found::Fault(chain, fault);
    let mut reader = Reader::begin(Arc::clone(log), chain, 1).await?;
    let mut began = Instant::now();
    while let Some(items) = reader.some().await? {
        for item in items {
            item.verify(&mut verifier).map_err(found)?;
        }
        sleep(began.elapsed()).await;
        began = Instant::now();
    }
    verifier.finish().map_err(found)
}
