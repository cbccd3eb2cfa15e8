//! The audit log, line by line.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use secretfs_wire::api::AUDIT_CHAIN_HEADER;
use secretfs_wire::{ChainId, EnvironmentName};
use tokio::time::timeout;

use super::http::{lines, success};
use super::{ClientError, OperatorClient};

/// The longest line, in bytes: a record with long paths.
pub(crate) const AUDIT_LINE_MAX_BYTES: usize = 1 << 20;
/// The manager says every few seconds that it is there.
const SILENCE: Duration = Duration::from_secs(20);

/// What of the log is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditExtent {
    /// From this record on.
    pub(crate) from: Option<u64>,
    /// Or so many of the last ones.
    pub(crate) last: Option<u32>,
    /// Of this environment only.
    pub(crate) environment: Option<EnvironmentName>,
    /// Of this chain, and not of the one that is written.
    pub(crate) chain: Option<ChainId>,
    /// And what comes.
    pub(crate) follow: bool,
}

/// Lines, until there are no more or the stream breaks.
pub(crate) type AuditLines = BoxStream<'static, Result<String, ClientError>>;

/// A chain of the log, as it comes.
pub(crate) struct AuditStream {
    /// Which one.
    pub(crate) chain: ChainId,
    /// Its lines.
    pub(crate) lines: AuditLines,
}

impl OperatorClient {
    /// Reads the log.
    pub(crate) async fn audit(&self, extent: &AuditExtent) -> Result<AuditStream, ClientError> {
        let path = match &extent.environment {
            None => vec!["v1", "audit"],
            Some(environment) => vec!["v1", "environments", environment.as_str(), "audit"],
        };
        let mut query = vec![("follow", extent.follow.to_string())];
        query.extend(extent.from.map(|from| ("from", from.to_string())));
        query.extend(extent.last.map(|last| ("last", last.to_string())));
        query.extend(extent.chain.map(|chain| ("chain", chain.to_string())));
        let response = self.http.get_stream(&path, &query).await?;
        let chain = response.headers().get(AUDIT_CHAIN_HEADER).and_then(|id| id.to_str().ok()?.parse().ok());
        let unknown = || ClientError::Malformed { reason: "it does not say which chain it sends".to_owned() };
        let lines = unless_silent(lines(response, AUDIT_LINE_MAX_BYTES));
        Ok(AuditStream { chain: chain.ok_or_else(unknown)?, lines })
    }

    /// The newest checkpoint and its certificate, a line each.
    pub(crate) async fn audit_checkpoint(&self) -> Result<String, ClientError> {
        let request = self.http.request(Method::GET, &["v1", "audit", "checkpoint"]);
        Ok(success(request).await?.text().await?)
    }

    /// Has the log be signed with another key.
    pub(crate) async fn rotate_audit_key(&self) -> Result<(), ClientError> {
        success(self.http.request(Method::POST, &["v1", "audit", "key", "rotate"])).await.map(drop)
    }
}

/// Lines of a manager that is heard all the time.
fn unless_silent(
    lines: impl Stream<Item = Result<String, ClientError>> + Send + Unpin + 'static,
) -> AuditLines {
    let lines = futures::stream::unfold(lines, |mut lines| async {
        let line = match timeout(SILENCE, lines.next()).await {
            Ok(None) => return None,
            Ok(Some(line)) => line,
            Err(_) => Err(ClientError::Unreachable { reason: "the stream fell silent".to_owned() }),
        };
        Some((line, lines))
    });
    // An empty one says that the manager is there.
    lines.try_filter(|line| std::future::ready(!line.is_empty())).boxed()
}
