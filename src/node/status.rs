//! `node status`: what the daemon knows of itself, over a Unix socket that only its user opens.
//!
//! There is no protocol: whoever connects is told the whole status as JSON, and the connection is
//! closed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use secretfs_wire::manifest::{Manifest, Rejected};
use secretfs_wire::{EnvironmentName, KeyFingerprint, NodeId, NodeName, ServiceName};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::audit::Backlog;
use crate::fuse::Inotify;
use crate::handover::Sequence;

/// How long one side may keep the other waiting.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How a node daemon does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    /// The version of the worker that answers.
    pub(crate) version: String,
    /// Its process id.
    pub(crate) pid: u32,
    /// How many workers there were before it.
    pub(crate) predecessors: u64,
    /// The node's name.
    pub(crate) name: NodeName,
    /// Its id.
    pub(crate) id: NodeId,
    /// Its environment.
    pub(crate) environment: EnvironmentName,
    /// The fingerprint of its envelope key; none from a worker that does not tell yet.
    #[serde(default)]
    pub(crate) fingerprint: Option<KeyFingerprint>,
    /// The manager's URL.
    pub(crate) manager: String,
    /// Whether the change stream is up. While it is, what is served is current.
    pub(crate) connected: bool,
    /// Since when it is down.
    pub(crate) stale_since: Option<Timestamp>,
    /// How many seconds values are served at most while it is; 0 from a worker that does not tell yet.
    #[serde(default)]
    pub(crate) max_stale_seconds: u64,
    /// Why the change stream is down.
    pub(crate) reason: Option<String>,
    /// How many seconds this host's clock is ahead of the manager's, if that is much.
    pub(crate) clock_ahead_seconds: Option<i64>,
    /// When the certificate ends, unless it is renewed.
    pub(crate) certificate_expires: Option<Timestamp>,
    /// What is mounted where.
    pub(crate) mounts: Vec<MountStatus>,
    /// How many services the node sees.
    pub(crate) services: usize,
    /// How many targets they have.
    pub(crate) targets: usize,
    /// Entries of the manifest that were left out, and why.
    pub(crate) rejected: Vec<RejectedEntry>,
    /// How many values are in memory.
    pub(crate) cached_values: usize,
    /// How many bytes they have.
    pub(crate) cached_bytes: usize,
    /// How many versions are held by open files.
    pub(crate) pinned_versions: usize,
    /// Opens that were answered from memory.
    pub(crate) cache_hits: u64,
    /// Opens that went to the manager.
    pub(crate) cache_misses: u64,
    /// Records of opens that are on their way to the manager.
    #[serde(default)]
    pub(crate) audit: AuditStatus,
    /// Why files cannot be opened, if some cannot.
    pub(crate) trouble: Option<Trouble>,
}

/// Records of opens.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct AuditStatus {
    /// How many the manager does not have yet.
    pub(crate) buffered: u64,
    /// For how many there was no room since the mounts were made.
    pub(crate) lost: u64,
    /// When the oldest one that the manager does not have was made.
    pub(crate) oldest_unsent: Option<Timestamp>,
    /// Why they do not arrive.
    pub(crate) reason: Option<String>,
}

impl AuditStatus {
    pub(super) fn new(backlog: Backlog, reason: Option<String>) -> Self {
        let Backlog { buffered, lost, oldest } = backlog;
        Self { buffered, lost, oldest_unsent: oldest, reason }
    }
}

/// One mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MountStatus {
    /// The mount point.
    pub(crate) path: PathBuf,
    /// The one service at its root, or all.
    pub(crate) service: Option<ServiceName>,
    /// Whether it is still mounted: somebody else may have unmounted it.
    pub(crate) served: bool,
    /// What a change looks like to those who watch the files.
    #[serde(default)]
    pub(crate) inotify: Inotify,
    /// How many files are open.
    pub(crate) open_files: usize,
    /// How many of them are polled for a change.
    pub(crate) polled: usize,
}

/// An entry of the manifest that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RejectedEntry {
    /// `service` or `service/target`.
    pub(crate) entry: String,
    /// What is wrong with it.
    pub(crate) reason: String,
}

/// Why files cannot be opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// Since when.
    pub(crate) since: Timestamp,
    /// Why.
    pub(crate) reason: String,
}

/// What a node tells of itself beside what its parts know.
#[derive(Default)]
pub(super) struct Shown {
    /// Which manifest is served.
    pub(super) sequence: Sequence,
    /// Whether the change stream is up, also while its first manifest is not shown yet.
    pub(super) up: bool,
    pub(super) reason: Option<String>,
    pub(super) certificate_expires: Option<Timestamp>,
    pub(super) services: usize,
    pub(super) targets: usize,
    pub(super) rejected: Vec<RejectedEntry>,
}

impl Shown {
    /// Another manifest is served.
    pub(super) fn set(&mut self, sequence: Sequence, manifest: &Manifest, rejected: &[Rejected]) {
        self.sequence = sequence;
        self.services = manifest.services.len();
        self.targets = manifest.targets().count();
        let entry = |Rejected { entry, reason }: &Rejected| RejectedEntry {
            entry: entry.clone(),
            reason: reason.clone(),
        };
        self.rejected = rejected.iter().map(entry).collect();
    }
}

/// Tells everybody who connects, one after the other, for ever.
pub(super) async fn serve(listener: UnixListener, status: impl Fn() -> NodeStatus) {
    loop {
        // A failed accept is the system out of descriptors; the next one may succeed.
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer = serde_json::to_vec(&status()).unwrap_or_default();
        // Who connects and does not read must not keep the next one waiting for ever.
        let _ = tokio::time::timeout(TIMEOUT, stream.write_all(&answer)).await;
    }
}

/// Asks the daemon at `path`.
pub(crate) async fn ask(path: &Path) -> io::Result<NodeStatus> {
    let answer = tokio::time::timeout(TIMEOUT, async {
        let mut answer = Vec::new();
        UnixStream::connect(path).await?.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    })
    .await
    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    serde_json::from_slice(&answer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> NodeStatus {
        NodeStatus {
            version: "0".to_owned(),
            pid: 1,
            predecessors: 0,
            name: "n".parse().unwrap(),
            id: NodeId::random(),
            environment: "e".parse().unwrap(),
            fingerprint: None,
            manager: "https://m".to_owned(),
            connected: true,
            stale_since: None,
            max_stale_seconds: 3600,
            reason: None,
            clock_ahead_seconds: None,
            certificate_expires: None,
            mounts: Vec::new(),
            services: 1,
            targets: 2,
            rejected: Vec::new(),
            cached_values: 0,
            cached_bytes: 0,
            pinned_versions: 0,
            cache_hits: 0,
            cache_misses: 0,
            audit: AuditStatus::default(),
            trouble: None,
        }
    }

    #[tokio::test]
    async fn whoever_connects_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::select! {
            () = serve(listener, status) => unreachable!("it serves for ever"),
            asked = ask(&path) => assert_eq!(asked.unwrap().targets, 2),
        }
    }
}
