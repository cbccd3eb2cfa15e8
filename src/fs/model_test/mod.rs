//! The file system against a model of what it promises, over random histories in which workers are
//! killed.
//!
//! The model is a few maps and no cleverness: what the manifest says, what the cache must hold, and a
//! kernel that remembers everything it was ever told until a [`Change`] makes it forget. If anything
//! that this kernel still remembers is ever wrong, a program would see it for an hour.

mod kernel;
mod rotating_readers;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use secretfs_wire::manifest::{Content, Manifest, Target};
use secretfs_wire::{Ownership, VersionId};
use tokio::runtime::Runtime;

use self::kernel::Kernel;
use self::worker::{Memory, Worker};
use super::test_manifest::{manifest, target};
use super::test_source::TestSource;
use super::*;
use crate::audit::test_auditor::CALLER;
use crate::source::SourceError;

const SERVICES: [&str; 2] = ["web", "job"];
const TARGETS: [&str; 3] = ["a", "b", "c"];

/// A service and a target, by number.
type Place = (usize, usize);

#[derive(Debug, Clone)]
enum Step {
    /// A target appears, or shows another secret, whose version is numbered 1.
    Attach(Place),
    /// The next version.
    Rotate(Place),
    /// The secret is removed and made again: another version with the old one's number.
    Recreate(Place),
    Chown(Place, u32),
    Detach(Place),
    /// A service is taken from the node, with all its targets.
    Unassign(usize),
    Open(Place),
    Read {
        file: usize,
        offset: u64,
        size: u32,
    },
    Close(usize),
    Lookup(Place),
    List(usize),
    /// The cache loses everything.
    Evict,
    /// From now on the source fails, or does not.
    Fail(bool),
    /// The worker is killed and another takes over.
    Kill,
    /// The worker is killed when it has opened a file and has not said so.
    KillInOpen(Place),
    /// The worker is killed when it has closed a file and has not said so.
    KillInClose(usize),
    /// The worker is killed, and a service is taken away before the next one takes over.
    KillAndUnassign(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..SERVICES.len(), 0..TARGETS.len());
    prop_oneof![
        3 => place().prop_map(Step::Attach),
        3 => place().prop_map(Step::Rotate),
        1 => place().prop_map(Step::Recreate),
        1 => (place(), 0..3u32).prop_map(|(place, uid)| Step::Chown(place, uid)),
        2 => place().prop_map(Step::Detach),
        1 => (0..SERVICES.len()).prop_map(Step::Unassign),
        6 => place().prop_map(Step::Open),
        4 => (any::<usize>(), 0..60u64, 0..60u32)
            .prop_map(|(file, offset, size)| Step::Read { file, offset, size }),
        2 => any::<usize>().prop_map(Step::Close),
        1 => place().prop_map(Step::Lookup),
        1 => (0..SERVICES.len()).prop_map(Step::List),
        1 => Just(Step::Evict),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => Just(Step::Kill),
        1 => place().prop_map(Step::KillInOpen),
        1 => any::<usize>().prop_map(Step::KillInClose),
        1 => (0..SERVICES.len()).prop_map(Step::KillAndUnassign),
    ]
}

proptest! {
    #[test]
    fn any_history_is_as_the_model_says(steps in prop::collection::vec(step(), 1..80)) {
        run(&steps);
    }
}

/// Names for histories that the random ones rarely have in full.
#[test]
fn a_recreated_secret_with_an_old_number_is_another_content() {
    let place = (0, 0);
    let read = Step::Read { file: 0, offset: 0, size: 60 };
    run(&[Step::Attach(place), Step::Open(place), Step::Recreate(place), Step::Open(place), read]);
}

#[test]
fn a_target_that_comes_back_has_its_old_inode_and_no_old_attributes() {
    let place = (0, 0);
    run(&[Step::Attach(place), Step::Detach(place), Step::Attach(place), Step::Open(place)]);
}

#[test]
fn an_open_file_outlives_eviction_failure_and_removal() {
    let place = (1, 2);
    let read = Step::Read { file: 0, offset: 1, size: 3 };
    run(&[Step::Attach(place), Step::Open(place), Step::Evict, Step::Fail(true), Step::Detach(place), read]);
}

#[test]
fn an_open_file_outlives_the_worker_that_opened_it_and_its_removal() {
    let place = (1, 2);
    let read = Step::Read { file: 0, offset: 1, size: 30 };
    run(&[
        Step::Attach(place),
        Step::Attach(place),
        Step::Open(place),
        Step::Kill,
        Step::Detach(place),
        read,
    ]);
}

#[test]
fn opening_again_and_again_for_one_request_opens_one_file() {
    let place = (0, 1);
    run(&[
        Step::Attach(place),
        Step::KillInOpen(place),
        Step::Open(place),
        Step::KillInOpen(place),
        Step::KillInClose(1),
    ]);
}

#[test]
fn an_open_file_ends_with_its_service_also_while_no_worker_runs_and_stays_so() {
    let (here, there) = ((0, 0), (1, 0));
    let read = |file| Step::Read { file, offset: 0, size: 60 };
    let open = [Step::Attach(here), Step::Attach(there), Step::Open(here), Step::Open(there)];
    for end in [Step::Unassign(0), Step::KillAndUnassign(0)] {
        let after = [end, read(0), read(1), Step::Attach(here), read(0), Step::Kill, read(0), read(1)];
        run(&[&open[..], &after].concat());
    }
}

fn run(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        world.take(step);
        world.check();
    }
    world.close_all();
}

struct World {
    runtime: Runtime,
    source: Arc<TestSource>,
    memory: Memory,
    worker: Worker,
    // The model.
    assigned: BTreeSet<usize>,
    shown: BTreeMap<Place, Target>,
    cached: BTreeSet<(Place, VersionId)>,
    open: Vec<OpenFile>,
    inodes: BTreeMap<Place, Inode>,
    kernel: Kernel,
    failing: bool,
    asked: usize,
    versions: u64,
    requests: u64,
}

struct OpenFile {
    inode: Inode,
    handle: Handle,
    place: Place,
    version: VersionId,
    revoked: bool,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let source = TestSource::new();
        let memory = Memory::new();
        let worker = Worker::prepare(&memory, &source, runtime.handle(), &Arc::default());
        worker.take_over();
        Self {
            runtime,
            source,
            memory,
            worker,
            assigned: BTreeSet::new(),
            shown: BTreeMap::new(),
            cached: BTreeSet::new(),
            open: Vec::new(),
            inodes: BTreeMap::new(),
            kernel: Kernel::default(),
            failing: false,
            asked: 0,
            versions: 0,
            requests: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Attach(place) => self.show(*place, |_| 1),
            Step::Rotate(place) => self.show(*place, |old| old + 1),
            Step::Recreate(place) => self.show(*place, |old| old.max(1)),
            Step::Chown(place, uid) => {
                if let Some(target) = self.shown.get_mut(place) {
                    target.ownership = Ownership { uid: *uid, ..target.ownership };
                    self.publish();
                }
            }
            Step::Detach(place) => {
                self.shown.remove(place);
                self.publish();
            }
            Step::Unassign(service) => {
                self.unassign(*service);
                self.publish();
            }
            Step::Open(place) => {
                let request = self.request();
                self.open(*place, request);
            }
            Step::Read { file, offset, size } => self.read(*file, *offset, *size),
            Step::Close(file) => {
                self.close(*file);
            }
            Step::Lookup(place) => self.lookup(*place),
            Step::List(service) => self.list(*service),
            Step::Evict => {
                self.worker.cache.retain(&Arc::default());
                self.worker.cache.retain(&self.manifest());
                self.cached.clear();
            }
            Step::Fail(failing) => self.failing = *failing,
            Step::Kill => self.kill(|_| ()),
            Step::KillAndUnassign(service) => self.kill(|world| world.unassign(*service)),
            Step::KillInOpen(place) => {
                let request = self.request();
                let before = self.open.len();
                self.open(*place, request);
                self.open.truncate(before);
                self.kill(|_| ());
                self.open(*place, RequestId { repeated: true, ..request });
            }
            Step::KillInClose(file) => {
                if let Some(OpenFile { inode, handle, .. }) = self.close(*file) {
                    self.kill(|_| ());
                    self.worker.fs.release(inode, handle);
                }
            }
        }
    }

    fn request(&mut self) -> RequestId {
        self.requests += 2;
        RequestId { number: self.requests, repeated: false }
    }

    fn close(&mut self, file: usize) -> Option<OpenFile> {
        if self.open.is_empty() {
            return None;
        }
        let closed = self.open.swap_remove(file % self.open.len());
        self.worker.fs.release(closed.inode, closed.handle);
        Some(closed)
    }

    /// A service is taken from the node, in the model.
    fn unassign(&mut self, service: usize) {
        self.assigned.remove(&service);
        self.shown.retain(|(of, _), _| *of != service);
        for file in self.open.iter_mut().filter(|file| file.place.0 == service) {
            file.revoked = true;
        }
    }

    /// Nothing of the worker is dropped. What it had is read by the next one from the memory alone,
    /// which is told what the kernel must forget of a change that came meanwhile.
    fn kill(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let next = Worker::prepare(&self.memory, &self.source, self.runtime.handle(), &self.manifest());
        meanwhile(self);
        self.kernel.apply(&next.fs.update(&self.manifest()));
        next.take_over();
        std::mem::forget(std::mem::replace(&mut self.worker, next));
        self.kernel.forget_attributes();
        self.forget_what_is_not_shown();
        // What only an open file held is in the cache again.
        for OpenFile { place, version, .. } in &self.open {
            if self.shown.get(place).is_some_and(|target| target.version_id == *version) {
                self.cached.insert((*place, *version));
            }
        }
    }

    /// Another version at a place, with a number made from the old one's.
    fn show(&mut self, place: Place, number: impl Fn(u64) -> u64) {
        self.versions += 1;
        self.assigned.insert(place.0);
        let old = self.shown.get(&place).and_then(Target::attached).map_or(0, |attached| attached.version);
        let ownership = self.shown.get(&place).map(|target| target.ownership).unwrap_or_default();
        let id = VersionId::from_u64(self.versions).unwrap();
        let mut new = Target { ownership, ..target(self.versions, value(id).len() as u32) };
        if let Content::Secret(attached) = &mut new.content {
            attached.version = number(old);
        }
        self.shown.insert(place, new);
        self.publish();
    }

    fn publish(&mut self) {
        for target in self.shown.values() {
            self.prepare_answer(target.version_id);
        }
        let changes = self.worker.fs.update(&self.manifest());
        self.kernel.apply(&changes);
        self.runtime.block_on(idle());
        let outdated: Vec<_> = self.cached.iter().filter(|cached| !self.is_shown(cached)).copied().collect();
        for (place, version) in outdated {
            self.cached.remove(&(place, version));
            // What was kept is fetched ahead in its new version.
            if let Some(target) = self.shown.get(&place) {
                self.asked += 1;
                if !self.failing {
                    self.cached.insert((place, target.version_id));
                }
            }
        }
    }

    fn is_shown(&self, (place, version): &(Place, VersionId)) -> bool {
        self.shown.get(place).is_some_and(|target| target.version_id == *version)
    }

    fn prepare_answer(&self, version: VersionId) {
        let value = value(version);
        let answer = if self.failing { Err(SourceError::Refused) } else { Ok(value.as_slice()) };
        self.source.put(version, answer);
    }

    fn forget_what_is_not_shown(&mut self) {
        let shown = &self.shown;
        self.cached.retain(|(place, version)| shown.get(place).map(|t| t.version_id) == Some(*version));
    }

    fn manifest(&self) -> Arc<Manifest> {
        let rows = self.shown.iter();
        let rows = rows.map(|((s, t), target)| (SERVICES[*s], TARGETS[*t], target.clone()));
        let mut manifest = manifest(rows);
        for service in &self.assigned {
            manifest.services.entry(SERVICES[*service].parse().expect("a name")).or_default();
        }
        Arc::new(manifest)
    }

    fn inode(&self, (service, target): Place) -> Option<Inode> {
        let service = self.worker.fs.lookup(Inode::ROOT, SERVICES[service]).ok()?.inode;
        Some(self.worker.fs.lookup(service, TARGETS[target]).ok()?.inode)
    }

    fn open(&mut self, place: Place, request: RequestId) {
        // A kernel that still knows a removed file asks for it by its number.
        let Some(inode) = self.inodes.get(&place).copied() else { return };
        let opened = self.try_open(inode, place, request);
        let Some(target) = self.shown.get(&place) else {
            assert_eq!(opened, Err(FsError::NotFound));
            return;
        };
        let key = (place, target.version_id);
        if !self.cached.contains(&key) {
            self.asked += 1;
            if self.failing {
                assert_eq!(opened, Err(FsError::Denied(SourceError::Refused)));
                return;
            }
            self.cached.insert(key);
        }
        let handle = opened.expect("it is granted");
        assert!(self.open.iter().all(|other| other.handle != handle), "two have one handle");
        self.open.push(OpenFile { inode, handle, place, version: target.version_id, revoked: false });
    }

    fn try_open(&self, inode: Inode, place: Place, request: RequestId) -> Result<Handle, FsError> {
        if let Some(target) = self.shown.get(&place) {
            self.prepare_answer(target.version_id);
        }
        match self.worker.fs.open(inode, Access::Read, request, CALLER)? {
            Opening::Ready(handle) => Ok(handle),
            Opening::Wait(handle) => self.runtime.block_on(handle),
        }
    }

    fn read(&self, file: usize, offset: u64, size: u32) {
        if self.open.is_empty() {
            return;
        }
        let OpenFile { inode, handle, version, revoked, .. } = self.open[file % self.open.len()];
        let slice = match self.worker.fs.read(inode, handle, offset, size) {
            Err(error) => return assert_eq!((error, revoked), (FsError::Revoked, true)),
            Ok(slice) => slice,
        };
        assert!(!revoked, "its service was taken away");
        let expected: Vec<u8> =
            value(version).iter().skip(offset as usize).take(size as usize).copied().collect();
        assert_eq!(slice.expose_secret(), expected);
    }

    fn lookup(&self, place: Place) {
        let found = self.inode(place).map(|inode| self.worker.fs.attributes(inode).expect("it was found"));
        let expected = self.shown.get(&place);
        assert_eq!(
            found.map(|a| (a.size, a.uid)),
            expected.map(|t| (t.size().unwrap_or(0).into(), t.ownership.uid))
        );
    }

    fn list(&self, service: usize) {
        let shown = self.shown.keys().filter(|(of, _)| *of == service);
        let expected: BTreeSet<&str> = shown.map(|(_, target)| TARGETS[*target]).collect();
        let mut listed = BTreeSet::new();
        if let Ok(directory) = self.worker.fs.lookup(Inode::ROOT, SERVICES[service]) {
            let each = |_, place: u64, _, name: &str| {
                assert!(place <= 2 || listed.insert(name.to_owned()), "{name} is listed twice");
                Full::No
            };
            self.worker.fs.list(directory.inode, 0, each).expect("a directory");
        }
        assert_eq!(listed.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    }

    /// What must hold after every step.
    fn check(&mut self) {
        self.kernel.check(&self.worker.fs);
        self.kernel.learn(&self.worker.fs);
        for place in self.shown.keys() {
            let inode = self.inode(*place).expect("what the manifest shows is there");
            assert_eq!(*self.inodes.entry(*place).or_insert(inode), inode, "a number has changed");
        }
        let mut old = BTreeMap::new();
        for OpenFile { inode, handle, place, version, revoked } in &self.open {
            let is_current =
                !revoked && self.shown.get(place).is_some_and(|target| target.version_id == *version);
            assert_eq!(self.worker.fs.poll(*inode, *handle, None) == Readiness::Current, is_current);
            if !is_current && !revoked {
                *old.entry(*version).or_default() += 1;
            }
        }
        assert_eq!(self.worker.fs.held(), old, "old versions in use");
        assert_eq!(self.worker.fs.open_files(), self.open.len(), "open files");
        let held = self.open.iter().filter(|file| !file.revoked);
        let versions: BTreeSet<_> = held.map(|file| (file.place, file.version)).collect();
        assert_eq!(self.worker.fs.pinned(), versions.len(), "pinned versions");
        assert_eq!(self.source.asked().len(), self.asked, "fetches");
        assert_eq!(self.worker.cache.status().entries, self.cached.len(), "cached values");
    }

    fn close_all(&mut self) {
        for file in 0..self.open.len() {
            self.read(file, 0, u32::MAX);
        }
        while self.close(0).is_some() {}
        assert_eq!((self.worker.fs.pinned(), self.worker.fs.open_files()), (0, 0));
        assert_eq!(self.worker.arena.used(), self.cached.len(), "values that nobody may read");
    }
}

/// Until no task has anything left to do: the runtime has one thread, and nothing waits for long.
async fn idle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Each version has its own bytes; lengths are few, so that a rotation often keeps the size.
fn value(version: VersionId) -> Vec<u8> {
    let number = version.as_u64();
    (0..1 + number % 3 * 20).map(|i| (number * 31 + i) as u8).collect()
}
