//! What a node presents, and how its parts are joined: one manifest, one cache, any number of mounts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use secretfs_wire::manifest::{Manifest, RawManifest};
use secretfs_wire::stream::{Cursor, Follow, OutOfOrder, Received, Replica, StreamMessage};
use secretfs_wire::{ServiceName, VersionId};
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::expiry::{self, end_with_certificate};
use super::follow::{Follower, follow};
use super::identity::{About, NodeIdentity, certificate_end};
use super::preparing::{Arrival, Present, present};
use super::renewal::keep_certificate;
use super::source::ManagerSource;
use super::status::{self, MountStatus, NodeStatus, Shown, Trouble};
use super::usage::{Usage, report_usage};
use crate::cache::{Arena, LeftBehind, ValueCache};
use crate::client::{ClientError, ManagerClock, NodeClient};
use crate::fs::{Change, FileSystem, Freshness, InodeKey, Layout};
use crate::fuse::{Connection, EventSender, Inotify, PreparedServer, Server, Stage, Watched};
use crate::handover::{Activation, Ledger, MountToServe, Outbox, Sequence, ServeConfig};

/// Why a worker cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// The node's credentials cannot be used.
    #[error("the node's credentials cannot be used")]
    Credentials(#[source] ClientError),
    /// A session with the kernel could not be prepared.
    #[error("a mount cannot be served")]
    Serve(#[source] std::io::Error),
}

/// What a worker is given to present.
pub(crate) struct Parts {
    /// Who the node is.
    pub(crate) identity: NodeIdentity,
    /// How values are served.
    pub(crate) config: ServeConfig,
    /// What is mounted.
    pub(crate) mounts: Vec<MountToServe>,
    /// What former workers have left beside values.
    pub(crate) ledger: Ledger,
    /// Where values are, a former worker's too.
    pub(crate) arena: Arc<Arena>,
    /// The way to the notifier, if there is one.
    pub(crate) notifier: Option<ToNotifier>,
    /// The way to the holder.
    pub(crate) outbox: Outbox,
}

/// The way to the notifier, and back from it.
#[derive(Debug, Clone)]
pub(crate) struct ToNotifier {
    /// Where it shows what it does.
    pub(crate) stage: Stage,
    /// Where it is told what to do.
    pub(crate) queue: Arc<EventSender>,
}

/// A node that is ready to be presented: all is built, nothing is served, nothing is changed.
pub(crate) struct Prepared {
    shared: Shared,
    mounts: Vec<PreparedMount>,
    credentials_ca: String,
    certificate: String,
    client: Arc<ArcSwap<NodeClient>>,
    source: Arc<ManagerSource>,
    received: Sequence,
    replica: Replica,
    manifest: Option<Arc<Manifest>>,
    shown: Shown,
}

struct PreparedMount {
    path: std::path::PathBuf,
    service: Option<ServiceName>,
    inotify: Inotify,
    file_system: Arc<FileSystem>,
    server: PreparedServer,
    /// What manifests have changed since the kernel was last told, each with its place.
    unannounced: Vec<(Sequence, Vec<Change>)>,
}

/// What the parts of a node have in common.
struct Shared {
    about: About,
    arena: Arc<Arena>,
    cache: Arc<ValueCache>,
    freshness: Arc<Freshness>,
    outbox: Outbox,
    clock: Arc<ManagerClock>,
    deadline: Duration,
}

/// A node that presents its secrets.
pub(crate) struct Node {
    shared: Shared,
    mounts: Vec<Mounted>,
    activation: Activation,
    /// What `node status` shows beside the rest. Never held across an await.
    shown: Mutex<Shown>,
    /// What there is to report of use.
    pub(super) usage: Usage,
    last: Mutex<Last>,
    /// The last manifest that came, for whoever shows it.
    arrivals: watch::Sender<Option<Arrival>>,
    /// How long a manifest may wait for its templates.
    patience: Duration,
}

/// The last manifest that came. Locked while the next one is taken in.
struct Last {
    sequence: Sequence,
    replica: Replica,
}

struct Mounted {
    path: std::path::PathBuf,
    service: Option<ServiceName>,
    inotify: Inotify,
    file_system: Arc<FileSystem>,
    server: Server,
}

impl Prepared {
    /// Builds everything. Tasks will run on `runtime`.
    ///
    /// # Errors
    /// When the credentials are none, or the system has no thread left.
    pub(crate) fn new(parts: Parts, runtime: &Handle) -> Result<Self, PrepareError> {
        let Parts { identity, config, mounts, ledger, arena, notifier, outbox } = parts;
        let NodeIdentity { about, credentials, envelope_key } = identity;
        // A call ends a little before the read that waits for it, so that the reader's error comes
        // with the call's reason.
        let timeout = config.deadline.mul_f64(0.9);
        let client = NodeClient::new(about.manager.clone(), &credentials, timeout)
            .map_err(PrepareError::Credentials)?;
        let (clock, client) = (client.clock(), Arc::new(ArcSwap::from_pointee(client)));
        let (environment, name) = (about.environment.clone(), about.name.clone());
        let source = Arc::new(ManagerSource::new(environment, name, envelope_key, client.clone()));
        let cache = ValueCache::new(source.clone(), config.cache_bytes, arena.clone(), runtime.clone());
        let freshness = Arc::new(Freshness::over(ledger.outage(), config.max_stale));
        let mut prepared = Vec::new();
        for (place, mount) in mounts.into_iter().enumerate() {
            let layout = mount.service.clone().map_or(Layout::AllServices, Layout::OneService);
            let file_system = FileSystem::new(
                cache.clone(),
                freshness.clone(),
                ledger.handles(place),
                InodeKey::for_node(about.id),
                layout,
                config.deadline,
            );
            let journal = ledger.journal(place);
            let MountToServe { path, service, agreement, inotify } = mount;
            // Also without events of its own: what the notifier does for a former worker is answered.
            let watched = notifier
                .clone()
                .map(|ToNotifier { stage, queue }| (Watched { inotify, mount: place, queue }, stage));
            let server = PreparedServer::new(agreement, file_system.clone(), journal, runtime, watched)
                .map_err(PrepareError::Serve)?;
            let unannounced = Vec::new();
            prepared.push(PreparedMount { path, service, inotify, file_system, server, unannounced });
        }
        Ok(Self {
            shared: Shared { about, arena, cache, freshness, outbox, clock, deadline: config.deadline },
            mounts: prepared,
            credentials_ca: credentials.ca,
            certificate: credentials.certificate,
            client,
            source,
            received: Sequence::default(),
            replica: Replica::default(),
            manifest: None,
            shown: Shown::default(),
        })
    }

    /// Learns of a manifest that the active worker got.
    pub(crate) fn learn(&mut self, sequence: Sequence, manifest: RawManifest) {
        self.replica = Replica::new(manifest.clone());
        let (manifest, rejected) = Manifest::check(manifest);
        let manifest = Arc::new(manifest);
        self.shown.set(sequence, &manifest, &rejected);
        self.manifest = Some(manifest.clone());
        for mount in &mut self.mounts {
            mount.unannounced.push((sequence, mount.file_system.update(&manifest)));
        }
        self.received = sequence;
    }

    /// Learns that the active worker has told the kernel of all up to a manifest.
    pub(crate) fn announced(&mut self, sequence: Sequence) {
        for mount in &mut self.mounts {
            mount.unannounced.retain(|(of, _)| *of > sequence);
        }
    }

    /// Serves from now on, where the last worker ended.
    ///
    /// # Errors
    /// When a connection is none, or the system has no thread left.
    pub(crate) fn activate(
        self,
        connections: &[Connection],
        activation: Activation,
    ) -> Result<Active, PrepareError> {
        let Self { shared, mut mounts, received, replica, manifest, shown, .. } = self;
        shared.freshness.begin();
        let certificate_expires = certificate_end(&self.certificate);
        // Known before anything is served.
        let has_ended = expiry::left(Timestamp::now(), certificate_expires).is_zero();
        shared.freshness.set_certificate_ended(has_ended);
        let left_behind = LeftBehind::in_arena(&shared.arena);
        for mount in &mut mounts {
            let mut changes = mount.file_system.adopt(|entry, version| left_behind.find(entry, version));
            if has_ended {
                changes.extend(mount.file_system.revoke_all());
            }
            mount.unannounced.push((received, changes));
        }
        if has_ended {
            shared.cache.clear();
        }
        // After the open files: what neither they nor the manifest hold is wiped here.
        shared.cache.adopt(left_behind.into_values());

        let usage = Usage::new();
        let announcement = shared.outbox.announcement(received);
        let told = (announcement, manifest.map(|manifest| usage.announcement(&manifest)));
        let mut serving = Vec::new();
        for (mount, connection) in mounts.into_iter().zip(connections) {
            let PreparedMount { path, service, inotify, file_system, server, unannounced } = mount;
            let server = server.serve(connection).map_err(PrepareError::Serve)?;
            let changes = unannounced.into_iter().flat_map(|(_, changes)| changes).collect();
            server.apply(changes, told.clone());
            serving.push(Mounted { path, service, inotify, file_system, server });
        }
        let shown = Shown { certificate_expires, ..shown };
        let node = Arc::new(Node {
            // Half of what a read may take: one that waits for the manifest then has the rest.
            patience: shared.deadline / 2,
            shared,
            mounts: serving,
            activation,
            shown: Mutex::new(shown),
            usage,
            last: Mutex::new(Last { sequence: received, replica }),
            arrivals: watch::Sender::new(None),
        });
        Ok(Active { node, client: self.client, source: self.source, ca: self.credentials_ca })
    }
}

/// A node that serves and does not yet follow the manager.
pub(crate) struct Active {
    node: Arc<Node>,
    client: Arc<ArcSwap<NodeClient>>,
    source: Arc<ManagerSource>,
    ca: String,
}

impl Active {
    /// Follows the manager, renews the certificate and answers `node status`, for ever.
    pub(crate) async fn run(self, listener: UnixListener) {
        let Self { node, client, source, ca } = self;
        let renewed = Arc::new(Notify::new());
        let session = async {
            // The first cold read then finds its session open. If this fails, the read says why.
            let _ = source.prepare().await;
            std::future::pending::<()>().await;
        };
        tokio::join!(
            follow(client.clone(), renewed.clone(), node.clone()),
            report_usage(node.clone(), client.clone()),
            present(node.as_ref(), &node.shared.cache, node.patience, node.arrivals.subscribe()),
            keep_certificate(node.clone(), client, ca, renewed),
            end_with_certificate(node.clone()),
            status::serve(listener, || node.status()),
            session,
        );
    }
}

impl Follower for Node {
    fn begin(&self) -> (Follow, Cursor) {
        self.last().replica.begin()
    }

    fn receive(&self, cursor: &mut Cursor, message: StreamMessage) -> Result<(), OutOfOrder> {
        let mut last = self.last();
        let received = last.replica.receive(cursor, message)?;
        let mut shown = self.shown();
        shown.up = true;
        if received == Received::Changed {
            drop(shown);
            self.take_in(&mut last);
        } else if shown.sequence == last.sequence {
            // Otherwise the last one still waits, and it is current when it is shown.
            self.is_current(&mut shown);
        }
        Ok(())
    }

    fn disconnected(&self, reason: &str) {
        self.usage.disconnected();
        let mut shown = self.shown();
        shown.up = false;
        self.shared.freshness.disconnected();
        if shown.reason.as_deref() != Some(reason) {
            tracing::warn!(reason, "not connected to the manager");
            shown.reason = Some(reason.to_owned());
        }
    }

    fn shut_out(&self) {
        // A manager that still hears of this node says the same of a certificate that has ended.
        if self.shared.freshness.is_certificate_ended() {
            return;
        }
        let mut last = self.last();
        if last.replica.clear() == Received::Changed {
            tracing::warn!("the manager shuts this node out; every value is wiped");
            self.take_in(&mut last);
        }
    }
}

impl Present for Node {
    fn show(&self, arrival: Arrival) {
        let Arrival { sequence, manifest, rejected } = arrival;
        let announcement = self.shared.outbox.announcement(sequence);
        let told = (announcement, self.usage.announcement(&manifest));
        for Mounted { file_system, server, .. } in &self.mounts {
            server.apply(file_system.update(&manifest), told.clone());
        }
        for entry in rejected.iter() {
            tracing::warn!(entry = entry.entry, reason = entry.reason, "left out of the manifest");
        }
        let mut shown = self.shown();
        shown.set(sequence, &manifest, &rejected);
        tracing::info!(shown.services, shown.targets, "manifest");
        // The stream may have ended while the manifest waited.
        if shown.up {
            self.is_current(&mut shown);
        }
    }
}

impl Node {
    /// Takes the last manifest in, to be shown at once or when its templates are rendered.
    fn take_in(&self, last: &mut Last) {
        let raw = last.replica.manifest();
        last.sequence = Sequence(last.sequence.0 + 1);
        // First to whoever comes after us: then nobody shows anything older once we have shown this.
        self.shared.outbox.manifest(last.sequence, &raw);
        let (manifest, rejected) = Manifest::check(raw);
        let manifest = Arc::new(manifest);
        self.arrivals.send_replace(Some(Arrival {
            sequence: last.sequence,
            manifest,
            rejected: rejected.into(),
        }));
    }

    /// What is shown is what the manager has.
    fn is_current(&self, shown: &mut Shown) {
        shown.reason = None;
        self.shared.freshness.connected();
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        // As for `shown`.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wipes every value when the certificate has ended, and serves again when it has not. Names and
    /// attributes stay.
    pub(super) fn set_certificate_ended(&self, ended: bool) {
        // Before anything is wiped: an open that is under way looks at it when it has its value.
        if !self.shared.freshness.set_certificate_ended(ended) {
            return;
        }
        if !ended {
            tracing::info!("the certificate is renewed after all; values are served again");
            // The cache keeps again what the manifest grants.
            self.take_in(&mut self.last());
            return;
        }
        tracing::warn!("the certificate has ended and is not renewed; every value is wiped");
        self.shared.cache.clear();
        for Mounted { file_system, server, .. } in &self.mounts {
            server.apply(file_system.revoke_all(), ());
        }
    }

    pub(super) fn shown(&self) -> MutexGuard<'_, Shown> {
        // Nothing in here is left half done by a panic, and a panic ends the process anyway.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the change stream is up.
    pub(super) fn is_connected(&self) -> bool {
        self.shared.freshness.stale_since().is_none()
    }

    /// In how many open files each version is that is no longer current, over all mounts.
    pub(super) fn held_versions(&self) -> BTreeMap<VersionId, u64> {
        let mut held = BTreeMap::new();
        for (version, handles) in self.mounts.iter().flat_map(|mounted| mounted.file_system.held()) {
            *held.entry(version).or_default() += handles;
        }
        held
    }

    /// The way to the holder.
    pub(super) fn outbox(&self) -> &Outbox {
        &self.shared.outbox
    }

    fn status(&self) -> NodeStatus {
        let shown = self.shown();
        let Shared { about, cache, freshness, clock, .. } = &self.shared;
        let cache = cache.status();
        let trouble = self.mounts.iter().find_map(|mounted| mounted.file_system.trouble());
        NodeStatus {
            version: crate::VERSION.to_owned(),
            pid: std::process::id(),
            predecessors: self.activation.predecessors,
            name: about.name.clone(),
            id: about.id,
            environment: about.environment.clone(),
            manager: about.manager.as_str().trim_end_matches('/').to_owned(),
            connected: self.is_connected(),
            stale_since: freshness.stale_since(),
            max_stale_seconds: freshness.max_stale().as_secs(),
            reason: shown.reason.clone(),
            clock_ahead_seconds: clock.host_ahead().map(|ahead| ahead.as_secs()),
            certificate_expires: shown.certificate_expires,
            mounts: self
                .mounts
                .iter()
                .map(|mounted| MountStatus {
                    path: mounted.path.clone(),
                    service: mounted.service.clone(),
                    served: mounted.server.is_serving(),
                    inotify: mounted.inotify,
                    open_files: mounted.file_system.open_files(),
                    polled: mounted.file_system.polled(),
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
