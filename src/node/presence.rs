//! What a node presents, and how its parts are joined: one manifest, one cache, any number of mounts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use secretfs_wire::manifest::Manifest;
use secretfs_wire::stream::{Cursor, Follow, OutOfOrder, Received, Replica, StreamMessage};
use secretfs_wire::{KeyFingerprint, ServiceName, VersionId};
use tokio::net::UnixListener;
use tokio::sync::{Notify, watch};

use super::audit::{Reporting, report_opens};
use super::expiry::end_with_certificate;
use super::follow::{Follower, follow};
use super::identity::About;
use super::preparing::{Arrival, Present, present};
use super::renewal::keep_certificate;
use super::source::ManagerSource;
use super::status::{self, AuditStatus, MountStatus, NodeStatus, Shown, Trouble};
use super::usage::{Usage, report_usage};
use crate::audit::Audit;
use crate::cache::{Arena, ValueCache};
use crate::client::{ManagerClock, NodeClient};
use crate::fs::{FileSystem, Freshness};
use crate::fuse::{Inotify, Server};
use crate::handover::{Activation, Outbox, Sequence};

/// What the parts of a node have in common.
pub(super) struct Shared {
    pub(super) about: About,
    pub(super) fingerprint: KeyFingerprint,
    pub(super) arena: Arc<Arena>,
    pub(super) cache: Arc<ValueCache>,
    pub(super) freshness: Arc<Freshness>,
    pub(super) audit: Arc<Audit>,
    pub(super) outbox: Outbox,
    pub(super) clock: Arc<ManagerClock>,
    pub(super) deadline: Duration,
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
    /// How opens are reported.
    reporting: Arc<Reporting>,
    last: Mutex<Last>,
    /// The last manifest that came, for whoever shows it.
    arrivals: watch::Sender<Option<Arrival>>,
    /// How long a manifest may wait for its templates.
    patience: Duration,
}

/// The last manifest that came. Locked while the next one is taken in.
pub(super) struct Last {
    pub(super) sequence: Sequence,
    pub(super) replica: Replica,
}

/// A mount that is served.
pub(super) struct Mounted {
    pub(super) path: std::path::PathBuf,
    pub(super) service: Option<ServiceName>,
    pub(super) inotify: Inotify,
    pub(super) file_system: Arc<FileSystem>,
    pub(super) server: Server,
}

/// A node that serves and does not yet follow the manager.
pub(crate) struct Active {
    pub(super) node: Arc<Node>,
    pub(super) client: Arc<ArcSwap<NodeClient>>,
    pub(super) source: Arc<ManagerSource>,
    pub(super) ca: String,
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
            report_opens(node.shared.audit.clone(), node.reporting.clone(), client.clone()),
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
    pub(super) fn new(
        shared: Shared,
        mounts: Vec<Mounted>,
        activation: Activation,
        shown: Shown,
        usage: Usage,
        last: Last,
    ) -> Self {
        Self {
            // Half of what a read may take: one that waits for the manifest then has the rest.
            patience: shared.deadline / 2,
            shared,
            mounts,
            activation,
            shown: Mutex::new(shown),
            usage,
            reporting: Arc::default(),
            last: Mutex::new(last),
            arrivals: watch::Sender::new(None),
        }
    }

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
            fingerprint: Some(self.shared.fingerprint),
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
            audit: AuditStatus::new(self.shared.audit.backlog(), self.reporting.reason()),
            trouble: trouble
                .map(|trouble| Trouble { since: trouble.since, reason: trouble.error.to_string() }),
        }
    }
}
