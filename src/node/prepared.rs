//! A node before its turn: all is built, so that it serves at once where the last worker ended.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use secretfs_wire::ServiceName;
use secretfs_wire::envelope::EnvelopeError;
use secretfs_wire::manifest::{Manifest, RawManifest};
use secretfs_wire::stream::Replica;
use tokio::runtime::Handle;

use super::expiry;
use super::identity::NodeIdentity;
use super::presence::{Active, Last, Mounted, Node, Shared};
use super::source::ManagerSource;
use super::status::Shown;
use super::usage::Usage;
use crate::audit::{Audit, Auditor};
use crate::cache::{Arena, LeftBehind, ValueCache};
use crate::client::{ClientError, NodeClient, certificate_end};
use crate::fs::{Change, FileSystem, Freshness, InodeKey, Layout};
use crate::fuse::{Connection, EventSender, Inotify, PreparedServer, Stage, Watched};
use crate::handover::{Activation, Ledger, MountToServe, Outbox, Sequence, ServeConfig};

/// Why a worker cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// The node's credentials cannot be used.
    #[error("the node's credentials cannot be used")]
    Credentials(#[source] ClientError),
    /// The node's envelope key cannot be used.
    #[error("the node's envelope key cannot be used")]
    EnvelopeKey(#[source] EnvelopeError),
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
    /// Where opens are recorded.
    pub(crate) audit: Arc<Audit>,
    /// The way to the holder.
    pub(crate) outbox: Outbox,
}

fn auditor(audit: &Arc<Audit>, config: &ServeConfig, mount: usize) -> Arc<dyn Auditor> {
    #[cfg(feature = "unaudited")]
    if config.unaudited {
        tracing::warn!("opens are not recorded: this build and its setting are for measuring only");
        return Arc::new(crate::audit::Unaudited);
    }
    let _ = config;
    audit.of_mount(mount)
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

impl Prepared {
    /// Builds everything. Tasks will run on `runtime`.
    ///
    /// # Errors
    /// When the credentials are none, or the system has no thread left.
    pub(crate) fn new(parts: Parts, runtime: &Handle) -> Result<Self, PrepareError> {
        let Parts { identity, config, mounts, ledger, arena, notifier, audit, outbox } = parts;
        let NodeIdentity { about, credentials, envelope_key } = identity;
        // A call ends a little before the read that waits for it, so that the reader's error comes
        // with the call's reason.
        let timeout = config.deadline.mul_f64(0.9);
        let client = NodeClient::new(about.manager.clone(), &credentials, timeout, ledger.instance())
            .map_err(PrepareError::Credentials)?;
        let fingerprint = envelope_key.public_key().map_err(PrepareError::EnvelopeKey)?.fingerprint();
        let (clock, client) = (client.clock(), Arc::new(ArcSwap::from_pointee(client)));
        let (environment, name) = (about.environment.clone(), about.name.clone());
        let source =
            Arc::new(ManagerSource::new(environment, name, envelope_key, client.clone(), config.deadline));
        let cache = ValueCache::new(source.clone(), config.cache_bytes, arena.clone(), runtime.clone());
        let freshness = Arc::new(Freshness::over(ledger.outage(), config.max_stale));
        let mut prepared = Vec::new();
        for (place, mount) in mounts.into_iter().enumerate() {
            let layout = mount.service.clone().map_or(Layout::AllServices, Layout::OneService);
            let file_system = FileSystem::new(
                cache.clone(),
                freshness.clone(),
                auditor(&audit, &config, place),
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
            shared: Shared {
                about,
                fingerprint,
                arena,
                cache,
                freshness,
                audit,
                outbox,
                clock,
                deadline: config.deadline,
            },
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
        shared.audit.begin().map_err(PrepareError::Serve)?;
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
        let last = Last { sequence: received, replica };
        let node = Arc::new(Node::new(shared, serving, activation, shown, usage, last));
        Ok(Active { node, client: self.client, source: self.source, ca: self.credentials_ca })
    }
}
