//! A host whose mount dies and comes back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use secretfs_wire::NodeId;
use tempfile::TempDir;

use super::super::report::{Failed, Repaired};
use super::super::{Record, Report, run};
use super::container::Container;
use crate::audit::test_auditor::TestAuditor;
use crate::fs::test_manifest::{manifest, target};
use crate::fs::test_memory::handles;
use crate::fs::{FileSystem, InodeKey, Layout};
use crate::fuse::device::Device;
use crate::fuse::mount_table::MountTable;
use crate::fuse::tests::{NEVER, Rig, eventually, serve};
use crate::fuse::{Audience, Mount, Server, Superblock};

/// A node's mount in a directory that propagates what is mounted in it, and its record.
pub(super) struct Host {
    // First: unmounted before what it is mounted in goes.
    mount: Option<(Mount, Server)>,
    pub(super) record: Record,
    pub(super) path: PathBuf,
    rig: Rig,
    shared: SharedDirectory,
    _alone: MutexGuard<'static, ()>,
}

/// One host at a time: device numbers that one gives back would be the next one's.
static ALONE: Mutex<()> = Mutex::new(());

struct SharedDirectory(TempDir);

impl SharedDirectory {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
        let directory = Self(directory);
        mount_change(directory.0.path(), MountPropagationFlags::SHARED).expect("shared");
        directory
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir(&path).expect("a directory");
        path.canonicalize().expect("a path")
    }
}

impl Drop for SharedDirectory {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).expect("still mounted");
    }
}

impl Host {
    /// Two services, `web` with `db` and `api`, and `job` with `db`.
    pub(super) fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let rig = Rig::new(&[
            ("web", "db", 1, b"hunter2"),
            ("web", "api", 2, b"token"),
            ("job", "db", 3, b"private"),
        ]);
        let shared = SharedDirectory::new();
        let path = shared.directory("secrets");
        let record = Record::load(&shared.0.path().join("mounts.json"));
        let mut host = Self { mount: None, record, path, rig, shared, _alone: alone };
        host.revive();
        host
    }

    /// The daemon starts: it mounts and notes the device.
    pub(super) fn revive(&mut self) {
        let fs = self.rig.fs.clone();
        self.mount = Some(self.mount_at(&self.path, &fs));
        self.record.add(&self.path, device(&self.path)).expect("noted");
    }

    /// The daemon dies, and the connection with it.
    pub(super) fn die(&mut self) {
        let mount = self.mount.take().expect("it is alive");
        self.kill(mount);
    }

    /// The daemon ends as it should.
    pub(super) fn stop(&mut self) {
        self.mount.take().expect("it is alive").0.unmount().expect("unmounted");
    }

    /// A mount at another path with the same names and values, but another node's inode numbers.
    pub(super) fn foreign(&self) -> ((Mount, Server), PathBuf) {
        let path = self.shared.directory("foreign");
        let key = InodeKey::for_node(NodeId::from_u64(2).expect("an id"));
        let (cache, freshness) = (self.rig.cache.clone(), self.rig.freshness.clone());
        let fs =
            FileSystem::new(cache, freshness, TestAuditor::new(), handles(), key, Layout::AllServices, NEVER);
        fs.update(&Arc::new(manifest([("web", "db", target(1, 7))])));
        (self.mount_at(&path, &fs), path)
    }

    /// An operator takes all of a service but `api` away.
    pub(super) fn leave_only_the_token(&self) {
        let changes = self.rig.fs.update(&Arc::new(manifest([("web", "api", target(2, 5))])));
        self.mount.as_ref().expect("it is alive").1.apply(changes, ());
        eventually("it is gone", || !self.path.join("job").exists() && !self.path.join("web/db").exists());
    }

    fn mount_at(&self, path: &Path, fs: &Arc<FileSystem>) -> (Mount, Server) {
        let mount = Mount::new(path, Audience::Everyone, Superblock::ReadOnly).expect("a mount");
        let server = serve(&mount, fs, &self.rig.runtime);
        (mount, server)
    }

    /// Ends the connection of a mount and leaves the mount, dead.
    pub(super) fn kill(&self, (mount, server): (Mount, Server)) {
        let handle = self.shared.directory("handle");
        mount_bind(mount.path(), &handle).expect("a bind");
        // By force: whoever still waits gets an error, in every bind. Only this one is unmounted.
        unmount(&handle, UnmountFlags::FORCE).expect("unmounted");
        fs::remove_dir(handle).expect("the directory");
        eventually("nobody asks any more", || !server.is_serving());
    }

    /// Repairs what is on record, in a thread that then has directories of its own.
    pub(super) fn repair(&self) -> Report {
        let alive = BTreeMap::from([(self.path.clone(), device(&self.path))]);
        let plan = self.record.plan(&alive);
        thread::spawn(move || run(plan)).join().expect("it ends")
    }
}

/// What is mounted at a path.
pub(super) fn device(path: &Path) -> Device {
    MountTable::read().expect("the mount table").top(path).expect("a mount").device
}

/// What a report says of a container: other tests have namespaces too.
pub(super) fn repaired<'a>(report: &'a Report, container: &Container) -> Vec<&'a str> {
    let of = |repaired: &&Repaired| repaired.pid == container.pid();
    report.repaired.iter().filter(of).map(|repaired| repaired.point.as_str()).collect()
}

pub(super) fn failed<'a>(report: &'a Report, container: &Container) -> Vec<(&'a str, &'a str)> {
    let of = |failed: &&Failed| failed.pid == Some(container.pid());
    report.failed.iter().filter(of).map(|failed| (failed.point.as_str(), failed.reason.as_str())).collect()
}
