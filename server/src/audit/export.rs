use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use secretfs_wire::{ChainId, EnvironmentName};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::reading::Reader;
use crate::store::{AuditLog, StoreError};

/// What of a chain is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    /// From this record on.
    pub(crate) from: u64,
    /// So many at most.
    pub(crate) limit: Option<u64>,
    /// Of this environment only, which cannot be verified: no certificates and no checkpoints.
    pub(crate) environment: Option<EnvironmentName>,
    /// And whatever comes, until the caller has enough.
    pub(crate) follow: bool,
}

/// A chain on its way out, line by line: certificates, then records with checkpoints after them.
pub(crate) struct Export {
    log: Arc<dyn AuditLog>,
    chain: ChainId,
    extent: Extent,
    commits: watch::Receiver<u64>,
    heartbeat: Duration,
    stopping: CancellationToken,
    /// Once it has begun.
    reader: Option<Reader>,
    left: u64,
}

impl Export {
    pub(crate) fn new(
        log: Arc<dyn AuditLog>,
        chain: ChainId,
        extent: Extent,
        commits: watch::Receiver<u64>,
        heartbeat: Duration,
        stopping: CancellationToken,
    ) -> Self {
        let left = extent.limit.unwrap_or(u64::MAX);
        Self { log, chain, extent, commits, heartbeat, stopping, reader: None, left }
    }

    /// The lines, some at a time. A failure of the database ends it early, which a caller that verifies
    /// notices as an end before the last checkpoint.
    pub(crate) fn lines(self) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
        stream::try_unfold(self, |mut export| async {
            let text = export.some().await.inspect_err(|error| {
                tracing::error!(%error, "an export of the audit log ends early");
            })?;
            Ok(text.map(|text| (Bytes::from(text), export)))
        })
    }

    async fn some(&mut self) -> Result<Option<String>, StoreError> {
        loop {
            self.commits.mark_unchanged();
            let text = self.page().await?;
            if !text.is_empty() {
                return Ok(Some(text));
            }
            if !self.extent.follow || self.left == 0 {
                return Ok(None);
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return Ok(None),
                changed = self.commits.changed() => if changed.is_err() { return Ok(None) },
                () = sleep(self.heartbeat) => return Ok(Some("\n".to_owned())),
            }
        }
    }

    /// The next records, and what belongs among them.
    async fn page(&mut self) -> Result<String, StoreError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => {
                let begun = Reader::begin(Arc::clone(&self.log), self.chain, self.extent.from).await?;
                let begun = match self.extent.environment.clone() {
                    None => begun,
                    Some(environment) => begun.within(environment),
                };
                self.reader.insert(if self.extent.follow { begun.on() } else { begun })
            }
        };
        let mut text = String::new();
        for item in reader.page(self.left).await? {
            self.left -= u64::from(item.is_record());
            item.write(&mut text);
        }
        Ok(text)
    }
}
