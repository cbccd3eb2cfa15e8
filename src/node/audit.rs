//! Brings records of opens to the manager: at least once, in batches, for as long as it takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use secretfs_wire::api::{ErrorCode, OpenReport, REPORT_MAX_OPENS};
use tokio::time::timeout;

use super::patience::Patience;
use crate::audit::{Audit, Batch};
use crate::client::{ClientError, NodeClient};

/// How long a record waits for others that travel with it. Looking for news costs next to nothing; being
/// told of each open would cost each open.
const LOOK: Duration = Duration::from_millis(100);
/// While somebody waits, the manager is tried again at most so often.
const HURRIED: Duration = Duration::from_millis(100);

/// How reporting goes, for `node status`.
#[derive(Debug, Default)]
pub(super) struct Reporting {
    /// Why the last report did not arrive. A std mutex: held for a look.
    reason: Mutex<Option<String>>,
}

impl Reporting {
    /// Why records do not arrive, if they do not.
    pub(super) fn reason(&self) -> Option<String> {
        self.lock().clone()
    }

    fn set(&self, error: Option<&ClientError>) {
        let new = error.map(ToString::to_string);
        let mut reason = self.lock();
        if let Some(reason_of_new) = &new
            && *reason != new
        {
            tracing::warn!(reason = reason_of_new, "opens are not on record at the manager yet");
        }
        *reason = new;
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is told. Tests put their own in its place.
pub(super) trait OpensSink: Send + Sync {
    /// Tells of opens. Once it is `Ok`, they are on record.
    fn report(&self, report: Arc<OpenReport>) -> impl Future<Output = Result<(), ClientError>> + Send;
}

impl OpensSink for Arc<ArcSwap<NodeClient>> {
    async fn report(&self, report: Arc<OpenReport>) -> Result<(), ClientError> {
        self.load_full().report_opens(&report).await
    }
}

/// Reports for ever.
pub(super) async fn report_opens(audit: Arc<Audit>, reporting: Arc<Reporting>, manager: impl OpensSink) {
    let mut patience = Patience::new();
    // How many lost ones the manager knows of; nobody knows what a former worker has told.
    let mut lost = 0;
    let mut most = REPORT_MAX_OPENS;
    loop {
        let Some(batch) = audit.next(most, lost) else {
            wait_for_others(&audit).await;
            continue;
        };
        match manager.report(batch.report.clone()).await {
            Ok(()) => {
                lost = batch.report.lost.as_ref().map_or(lost, |lost| lost.total);
                most = REPORT_MAX_OPENS;
                let is_full = batch.opens().len() == most;
                audit.acknowledge(batch);
                reporting.set(None);
                // A manager that takes what it is told is not in trouble, however often it was before.
                patience = Patience::new();
                if !is_full {
                    wait_for_others(&audit).await;
                }
            }
            Err(error) if is_refused_for_good(&error) && !batch.opens().is_empty() => {
                most = split(&audit, &batch, &error);
            }
            Err(error) => {
                reporting.set(Some(&error));
                let wait = patience.after(&error, false);
                // Who waits for an answer is not kept from trying, and does not make it a storm.
                tokio::time::sleep(wait.min(HURRIED)).await;
                let _ = timeout(wait.saturating_sub(HURRIED), audit.hurry()).await;
            }
        }
    }
}

/// Until the next look, unless there is something that should not wait for it.
async fn wait_for_others(audit: &Audit) {
    // Whichever comes first.
    let _ = timeout(LOOK, audit.hurry()).await;
}

/// Whether the manager says that it will never take what it was told.
fn is_refused_for_good(error: &ClientError) -> bool {
    matches!(error.code(), Some(ErrorCode::Invalid | ErrorCode::TooLarge))
}

/// One record that the manager does not take must not keep the others from it: ever fewer are sent, down
/// to that one, which is given up. Tells how many to send next.
fn split(audit: &Audit, batch: &Batch, error: &ClientError) -> usize {
    if let [open] = batch.opens() {
        tracing::error!(?open, %error, "the manager does not take the record of an open; it counts as lost");
        audit.refused(batch);
        return 1;
    }
    (batch.opens().len() / 2).max(1)
}

#[cfg(test)]
mod tests;
