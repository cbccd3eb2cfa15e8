//! Real mounts in the kernel, in a directory of their own each. They need /dev/fuse and root.

mod audit;
mod consistency;
mod content;
mod lifecycle;
mod rotation;
mod waiting;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secretfs_wire::{NodeId, VersionId};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::mount_table::MountTable;
use super::{
    Audience, EventReceiver, Inotify, Journal, Mount, PreparedServer, Server, Stage, Superblock, Watched,
    event_queue,
};
use crate::audit::test_auditor::TestAuditor;
use crate::cache::ValueCache;
use crate::fs::test_manifest::{manifest, target, template};
use crate::fs::test_memory::{arena, freshness, handles};
use crate::fs::test_source::TestSource;
use crate::fs::{FileSystem, Freshness, InodeKey, Layout};

/// Longer than any test takes, for those that do not wait for it.
pub(crate) const NEVER: Duration = Duration::from_secs(600);

/// A mount of everything, its source and all between.
pub(crate) struct Rig {
    // First: unmounted before what serves it goes.
    pub(crate) mount: Mount,
    server: Server,
    journal: Journal,
    pub(crate) fs: Arc<FileSystem>,
    pub(crate) cache: Arc<ValueCache>,
    pub(crate) freshness: Arc<Freshness>,
    source: Arc<TestSource>,
    pub(crate) scratch: TempDir,
    pub(crate) runtime: Runtime,
    /// Where a notifier would find what it has to do, where it says what it does, and its mount.
    pub(crate) for_notifier: Option<(EventReceiver, Stage, OwnedFd)>,
}

/// Service, target, version and value.
pub(crate) type Row<'a> = (&'a str, &'a str, u64, &'a [u8]);

impl Rig {
    pub(crate) fn new(rows: &[Row<'_>]) -> Self {
        Self::with_deadline(NEVER, rows)
    }

    fn with_deadline(deadline: Duration, rows: &[Row<'_>]) -> Self {
        Self::with(deadline, Inotify::Off, rows)
    }

    /// With a queue of what watchers are to be told, and nobody who tells them.
    pub(crate) fn watched(inotify: Inotify, rows: &[Row<'_>]) -> Self {
        Self::with(NEVER, inotify, rows)
    }

    fn with(deadline: Duration, inotify: Inotify, rows: &[Row<'_>]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let source = TestSource::new();
        let cache = ValueCache::new(source.clone(), 1 << 20, arena(8 << 20), runtime.handle().clone());
        let freshness = Arc::new(freshness(NEVER));
        freshness.connected();
        let fs = FileSystem::new(
            cache.clone(),
            freshness.clone(),
            TestAuditor::new(),
            handles(),
            key(),
            Layout::AllServices,
            deadline,
        );
        let scratch = tempfile::tempdir().expect("a directory");
        let point = scratch.path().join("secrets");
        std::fs::create_dir(&point).expect("a directory");
        let superblock = match inotify {
            Inotify::Off => Superblock::ReadOnly,
            Inotify::Write | Inotify::Attrib => Superblock::Writable,
        };
        let mount = Mount::new(&point, Audience::Everyone, superblock).expect("a mount");
        let journal = Journal::private();
        let (watched, for_notifier) = match inotify {
            Inotify::Off => (None, None),
            Inotify::Write | Inotify::Attrib => {
                let (queue, receiver) = event_queue().expect("a queue");
                let memory = Stage::create().expect("memory");
                let stage = Stage::map(memory.as_fd()).expect("a stage");
                let watched = Watched { inotify, mount: 0, queue: Arc::new(queue) };
                let again = mount.again().expect("another mount");
                (Some((watched, stage.clone())), Some((receiver, stage, again)))
            }
        };
        let server = serve_with(&mount, &fs, journal.clone(), &runtime, watched);
        let rig =
            Self { mount, server, journal, fs, cache, freshness, source, scratch, runtime, for_notifier };
        rig.publish(rows);
        rig
    }

    /// Gives the node another manifest, and the source its values.
    pub(crate) fn publish(&self, rows: &[Row<'_>]) {
        for (_, _, version, value) in rows {
            self.source.put(VersionId::from_u64(*version).expect("an id"), Ok(value));
        }
        let targets = rows
            .iter()
            .map(|(service, name, version, value)| (*service, *name, target(*version, value.len() as u32)));
        self.server.apply(self.fs.update(&Arc::new(manifest(targets))), ());
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.mount.path().join(below)
    }

    fn read(&self, below: &str) -> Vec<u8> {
        std::fs::read(self.path(below)).expect(below)
    }

    fn wait_for_asked(&self, count: usize) {
        self.runtime.block_on(self.source.wait_for_asked(count));
    }
}

/// Serves a mount from this process.
pub(crate) fn serve(mount: &Mount, fs: &Arc<FileSystem>, runtime: &Runtime) -> Server {
    serve_with(mount, fs, Journal::private(), runtime, None)
}

fn serve_with(
    mount: &Mount,
    fs: &Arc<FileSystem>,
    journal: Journal,
    runtime: &Runtime,
    watched: Option<(Watched, Stage)>,
) -> Server {
    let agreement = mount.connection().agreement();
    let prepared = PreparedServer::new(agreement, fs.clone(), journal, runtime.handle(), watched);
    prepared.and_then(|prepared| prepared.serve(mount.connection())).expect("it is served")
}

fn key() -> InodeKey {
    InodeKey::for_node(NodeId::from_u64(1).expect("an id"))
}

fn is_mounted(path: &Path) -> bool {
    layers(path) > 0
}

/// How many mounts lie at a path, one on the other.
pub(crate) fn layers(path: &Path) -> usize {
    MountTable::read().expect("the mount table").layers(path).len()
}

/// Waits for what another thread or the kernel will do in a moment.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
