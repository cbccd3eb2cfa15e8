//! The daemon's parts, and how they are joined: one manifest, one cache, any number of mounts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use backon::{ExponentialBuilder, Retryable as _};
use jiff::Timestamp;
use secretfs_wire::ServiceName;
use secretfs_wire::manifest::{Manifest, RawManifest};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::follow::{Follower, follow};
use super::identity::{About, NodeIdentity, StateDirectory, certificate_end};
use super::renewal::{renew, wait_before_renewal};
use super::source::ManagerSource;
use super::status::{MountStatus, NodeStatus, RejectedEntry, StatusSocket, Trouble};
use super::{Config, MountConfig};
use crate::cache::ValueCache;
use crate::client::{ClientError, NodeClient};
use crate::fs::{FileSystem, Freshness, InodeKey, Layout};
use crate::fuse::{Mount, MountError};

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The status socket is another daemon's, or cannot be made.
    #[error("cannot listen at {path}: another node daemon may be running")]
    Socket {
        /// The socket.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The node's credentials cannot be used.
    #[error("the node's credentials cannot be used")]
    Credentials(#[source] ClientError),
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// A running node daemon. Dropping it unmounts too, but does not wait.
pub(crate) struct Daemon {
    node: Arc<Node>,
    tasks: JoinSet<()>,
}

/// What the daemon's tasks share.
struct Node {
    about: About,
    mounts: Vec<Mounted>,
    cache: Arc<ValueCache>,
    freshness: Arc<Freshness>,
    /// What `node status` shows beside the rest. Never held across an await.
    shown: Mutex<Shown>,
    /// Whether there has been a manifest.
    begun: watch::Sender<bool>,
}

struct Mounted {
    service: Option<ServiceName>,
    file_system: Arc<FileSystem>,
    mount: Mount,
}

#[derive(Default)]
struct Shown {
    reason: Option<String>,
    certificate_expires: Option<Timestamp>,
    services: usize,
    targets: usize,
    rejected: Vec<RejectedEntry>,
}

impl Daemon {
    /// Mounts what is configured and begins to follow the manager. A renewed certificate is kept in
    /// `state`, if there is one.
    ///
    /// # Errors
    /// When the status socket or a mount point is in use, or cannot be used.
    pub(crate) async fn start(
        identity: NodeIdentity,
        state: Option<StateDirectory>,
        config: Config,
    ) -> Result<Self, StartError> {
        let NodeIdentity { about, credentials, envelope_key } = identity;
        let socket = StatusSocket::bind(&config.socket)
            .await
            .map_err(|source| StartError::Socket { path: config.socket.clone(), source })?;
        // A call ends a little before the read that waits for it, so that the reader's error comes
        // with the call's reason.
        let timeout = config.deadline.mul_f64(0.9);
        let client =
            NodeClient::new(about.manager.clone(), &credentials, timeout).map_err(StartError::Credentials)?;
        let client = Arc::new(ArcSwap::from_pointee(client));
        let source = Arc::new(ManagerSource::new(
            about.environment.clone(),
            about.name.clone(),
            envelope_key,
            client.clone(),
        ));
        let cache = Arc::new(ValueCache::new(source.clone(), config.cache_bytes, Handle::current()));
        let freshness = Arc::new(Freshness::new(config.max_stale));
        let mounts = mount_all(&about, &config, &cache, &freshness)?;

        let node = Arc::new(Node {
            about,
            mounts,
            cache,
            freshness,
            shown: Mutex::new(Shown {
                certificate_expires: certificate_end(&credentials.certificate),
                ..Shown::default()
            }),
            begun: watch::Sender::new(false),
        });
        let renewed = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(client.clone(), renewed.clone(), node.clone()));
        tasks.spawn(keep_certificate(node.clone(), state, client, credentials.ca, renewed));
        tasks.spawn({
            let mut begun = node.begun.subscribe();
            async move {
                // The first cold read then finds its session open. If this fails, the read says why.
                if begun.wait_for(|begun| *begun).await.is_ok() {
                    let _ = source.prepare().await;
                }
            }
        });
        tasks.spawn({
            let node = node.clone();
            async move { socket.serve(|| node.status()).await }
        });
        Ok(Self { node, tasks })
    }

    /// Waits until the node has a manifest.
    pub(crate) async fn first_manifest(&self) {
        // Fails only when the sender is gone, which `self` holds.
        let _ = self.node.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Unmounts, also with files open, and ends.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
        // No task is left to hold it.
        let Some(node) = Arc::into_inner(self.node) else { return };
        let unmounted = tokio::task::spawn_blocking(move || {
            for Mounted { mount, .. } in node.mounts {
                let path = mount.path().to_owned();
                if let Err(error) = mount.unmount() {
                    tracing::warn!(mount = %path.display(), %error, "cannot unmount");
                }
            }
        });
        if unmounted.await.is_err() {
            tracing::warn!("unmounting did not end");
        }
    }
}

fn mount_all(
    about: &About,
    config: &Config,
    cache: &Arc<ValueCache>,
    freshness: &Arc<Freshness>,
) -> Result<Vec<Mounted>, StartError> {
    let mut mounts = Vec::new();
    for MountConfig { path, service } in &config.mounts {
        let layout = service.clone().map_or(Layout::AllServices, Layout::OneService);
        let (cache, freshness) = (cache.clone(), freshness.clone());
        let key = InodeKey::for_node(about.id);
        let file_system = FileSystem::new(cache, freshness, key, layout, config.deadline);
        let mount = Mount::new(path, file_system.clone(), config.audience, &Handle::current())?;
        mounts.push(Mounted { service: service.clone(), file_system, mount });
    }
    Ok(mounts)
}

impl Follower for Node {
    fn manifest(&self, manifest: RawManifest) {
        let (manifest, rejected) = Manifest::check(manifest);
        for entry in &rejected {
            tracing::warn!(entry = entry.entry, reason = entry.reason, "left out of the manifest");
        }
        let (services, targets) = self.install(manifest);
        {
            let mut shown = self.shown();
            shown.reason = None;
            shown.rejected = rejected
                .into_iter()
                .map(|rejected| RejectedEntry { entry: rejected.entry, reason: rejected.reason })
                .collect();
        }
        tracing::info!(services, targets, "manifest");
        self.freshness.connected();
        self.begun.send_replace(true);
    }

    fn disconnected(&self, reason: &str) {
        self.freshness.disconnected();
        let mut shown = self.shown();
        if shown.reason.as_deref() != Some(reason) {
            tracing::warn!(reason, "not connected to the manager");
            shown.reason = Some(reason.to_owned());
        }
    }

    fn shut_out(&self) {
        if self.shown().targets > 0 {
            tracing::warn!("the manager shuts this node out; every value is wiped");
        }
        self.install(Manifest::default());
    }
}

impl Node {
    /// Makes a manifest the one that is served. Tells how many services and targets it has.
    fn install(&self, manifest: Manifest) -> (usize, usize) {
        let manifest = Arc::new(manifest);
        for Mounted { file_system, mount, .. } in &self.mounts {
            mount.apply(file_system.update(&manifest));
        }
        let targets = manifest.services.values().map(|targets| targets.len()).sum();
        let mut shown = self.shown();
        (shown.services, shown.targets) = (manifest.services.len(), targets);
        (shown.services, shown.targets)
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        // Nothing in here is left half done by a panic, and a panic ends the process anyway.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> NodeStatus {
        let shown = self.shown();
        let cache = self.cache.status();
        let trouble = self.mounts.iter().find_map(|mounted| mounted.file_system.trouble());
        NodeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.about.name.clone(),
            id: self.about.id,
            environment: self.about.environment.clone(),
            manager: self.about.manager.as_str().trim_end_matches('/').to_owned(),
            connected: self.freshness.stale_since().is_none(),
            stale_since: self.freshness.stale_since(),
            reason: shown.reason.clone(),
            certificate_expires: shown.certificate_expires,
            mounts: self
                .mounts
                .iter()
                .map(|mounted| MountStatus {
                    path: mounted.mount.path().to_owned(),
                    service: mounted.service.clone(),
                    served: mounted.mount.is_served(),
                    polled: mounted.mount.polled(),
                })
                .collect(),
            services: shown.services,
            targets: shown.targets,
            rejected: shown.rejected.clone(),
            cached_values: cache.entries,
            cached_bytes: cache.bytes,
            pinned_versions: self.mounts.iter().map(|mounted| mounted.file_system.pinned()).sum(),
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            trouble: trouble
                .map(|trouble| Trouble { since: trouble.since, reason: trouble.error.to_string() }),
        }
    }
}

/// Renews the certificate again and again, each time under the one before.
async fn keep_certificate(
    node: Arc<Node>,
    state: Option<StateDirectory>,
    client: Arc<ArcSwap<NodeClient>>,
    ca: String,
    renewed: Arc<Notify>,
) {
    loop {
        let Some(end) = node.shown().certificate_expires else { return };
        tokio::time::sleep(wait_before_renewal(Timestamp::now(), end)).await;
        let patience = ExponentialBuilder::default()
            .with_min_delay(Duration::from_secs(1))
            .with_max_delay(Duration::from_secs(60))
            .with_jitter()
            .without_max_times();
        let attempt = || async { renew(&client.load_full(), &ca).await };
        let credentials = attempt
            .retry(patience)
            .notify(|error, _| {
                let reason = error.to_string();
                tracing::warn!(reason, ends = %end, "certificate not renewed yet");
            })
            .await;
        let Ok(credentials) = credentials else { return };
        match client.load().with_credentials(&credentials) {
            Ok(new) => client.store(Arc::new(new)),
            Err(error) => {
                tracing::error!(%error, "the renewed certificate cannot be used");
                continue;
            }
        }
        if let Some(state) = &state
            && let Err(error) = state.save_certificate(&credentials.certificate, &credentials.key)
        {
            tracing::error!(%error, "the renewed certificate is in use but not kept");
        }
        let end = certificate_end(&credentials.certificate);
        node.shown().certificate_expires = end;
        tracing::info!(ends = ?end, "certificate renewed");
        renewed.notify_one();
    }
}
