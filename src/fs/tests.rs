use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use secretfs_wire::manifest::Manifest;
use secretfs_wire::{NodeId, VersionId};
use tokio::runtime::Handle as Runtime;

use super::test_manifest::{manifest, target, template};
use super::test_memory::{arena, freshness, handles};
use super::test_source::TestSource;
use super::*;
use crate::audit::NotAudited;
use crate::audit::test_auditor::{CALLER, TestAuditor};
use crate::cache::ValueCache;
use crate::source::SourceError;

const NEVER: Duration = Duration::from_secs(600);

const REQUEST: RequestId = RequestId { number: 2, repeated: false };

struct Rig {
    fs: Arc<FileSystem>,
    source: Arc<TestSource>,
    cache: Arc<ValueCache>,
    auditor: Arc<TestAuditor>,
}

impl Rig {
    fn new(max_stale: Duration, deadline: Duration) -> Self {
        Self::audited(TestAuditor::new(), max_stale, deadline)
    }

    fn audited(auditor: Arc<TestAuditor>, max_stale: Duration, deadline: Duration) -> Self {
        let source = TestSource::new();
        let cache = ValueCache::new(source.clone(), 1 << 20, arena(8 << 20), Runtime::current());
        let freshness = Arc::new(freshness(max_stale));
        let key = InodeKey::for_node(NodeId::from_u64(1).expect("an id"));
        let layout = Layout::OneService("web".parse().expect("a name"));
        Self {
            fs: FileSystem::new(cache.clone(), freshness, auditor.clone(), handles(), key, layout, deadline),
            source,
            cache,
            auditor,
        }
    }

    /// A rig with one target, `db`.
    fn with(version: u64, value: &[u8]) -> Self {
        let rig = Self::new(NEVER, NEVER);
        rig.publish(version, value);
        rig
    }

    fn publish(&self, version: u64, value: &[u8]) {
        self.source.put(id(version), Ok(value));
        self.fs.update(&db(version, value.len()));
    }

    fn inode(&self) -> Inode {
        self.fs.lookup(Inode::ROOT, "db").expect("the target").inode
    }

    fn open(&self) -> Result<Opening, FsError> {
        self.fs.open(self.inode(), Access::Read, REQUEST, CALLER)
    }

    async fn opened(&self) -> Result<Handle, FsError> {
        match self.open()? {
            Opening::Ready(handle) => Ok(handle),
            Opening::Wait(handle) => handle.await,
        }
    }

    fn read(&self, handle: Handle) -> Vec<u8> {
        self.fs.read(self.inode(), handle, 0, 100).expect("a read").expose_secret().to_vec()
    }
}

fn db(version: u64, size: usize) -> Arc<Manifest> {
    Arc::new(manifest([("web", "db", target(version, size as u32))]))
}

fn id(version: u64) -> VersionId {
    VersionId::from_u64(version).expect("an id")
}

#[tokio::test]
async fn before_the_first_manifest_nothing_is_there() {
    let rig = Rig::new(NEVER, NEVER);
    assert_eq!(rig.fs.lookup(Inode::ROOT, "db").expect_err("nothing"), FsError::NotFound);
    assert_eq!(rig.fs.attributes(Inode::ROOT).expect("the root").kind, Kind::Directory);
}

#[tokio::test]
async fn only_reading_is_opened_and_only_files_are() {
    let rig = Rig::with(1, b"value");
    assert_eq!(rig.fs.open(rig.inode(), Access::Write, REQUEST, CALLER).err(), Some(FsError::ReadOnly));
    assert_eq!(rig.fs.open(Inode::ROOT, Access::Read, REQUEST, CALLER).err(), Some(FsError::IsADirectory));
    assert_eq!(
        rig.fs.open(Inode::from_u64(99), Access::Read, REQUEST, CALLER).err(),
        Some(FsError::NotFound)
    );
}

#[tokio::test]
async fn an_open_that_the_manager_is_ahead_of_waits_for_the_next_manifest() {
    let rig = Rig::with(1, b"old");
    rig.source.put(id(1), Err(SourceError::Superseded));
    let Ok(Opening::Wait(mut opening)) = rig.open() else { panic!("nothing is cached") };
    tokio::select! {
        biased;
        _ = &mut opening => panic!("there is nothing to open yet"),
        () = rig.source.wait_for_asked(1) => {}
    }
    rig.publish(2, b"newer");
    let handle = opening.await.expect("the new version");
    assert_eq!(rig.read(handle), b"newer");
    assert_eq!(rig.fs.handles.version(rig.inode(), handle), Some(id(2)));
    assert_eq!(rig.source.asked().len(), 2);
}

#[tokio::test]
async fn an_open_never_brings_what_was_revoked_while_it_waited() {
    let rig = Rig::with(1, b"value");
    rig.source.shut_gate();
    let Ok(Opening::Wait(mut opening)) = rig.open() else { panic!("nothing is cached") };
    assert!((&mut opening).now_or_never().is_none());
    rig.fs.update(&Arc::default());
    rig.source.open_gate();
    assert_eq!(opening.await, Err(FsError::NotFound));
    assert_eq!(rig.fs.pinned(), 0);
    assert_eq!(rig.fs.trouble(), None, "a revocation is no trouble");
}

#[tokio::test]
async fn an_open_brings_what_is_current_when_it_ends() {
    let rig = Rig::with(1, b"old");
    rig.source.shut_gate();
    let Ok(Opening::Wait(mut opening)) = rig.open() else { panic!("nothing is cached") };
    assert!((&mut opening).now_or_never().is_none());
    rig.publish(2, b"newer");
    rig.source.open_gate();
    let handle = opening.await.expect("the new version");
    assert_eq!(rig.read(handle), b"newer");
}

#[tokio::test]
async fn the_reason_why_opens_fail_is_kept_until_one_succeeds() {
    let rig = Rig::with(1, b"value");
    rig.source.put(id(1), Err(SourceError::Refused));
    assert_eq!(rig.opened().await, Err(FsError::Denied(SourceError::Refused)));
    let trouble = rig.fs.trouble().expect("a reason");
    assert_eq!((trouble.inode, trouble.error), (rig.inode(), FsError::Denied(SourceError::Refused)));
    rig.source.put(id(1), Ok(b"value"));
    rig.opened().await.expect("a handle");
    assert_eq!(rig.fs.trouble(), None);
}

#[tokio::test]
async fn no_open_outlasts_its_deadline() {
    let rig = Rig::new(NEVER, Duration::from_millis(20));
    rig.publish(1, b"value");
    rig.source.shut_gate();
    assert_eq!(rig.opened().await, Err(FsError::TimedOut));
    // Nor does one for which the manager keeps saying that there is something newer.
    rig.source.open_gate();
    rig.source.put(id(2), Err(SourceError::Superseded));
    rig.fs.update(&db(2, 5));
    assert_eq!(rig.opened().await, Err(FsError::TimedOut));
    assert_eq!(rig.fs.pinned(), 0);
}

#[tokio::test]
async fn after_max_stale_nothing_more_is_opened_and_open_files_stay() {
    let rig = Rig::new(Duration::ZERO, NEVER);
    rig.publish(1, b"value");
    rig.fs.freshness.connected();
    let handle = rig.opened().await.expect("a handle");
    rig.fs.freshness.disconnected();
    assert_eq!(rig.opened().await, Err(FsError::Stale));
    assert_eq!(rig.fs.trouble().expect("a reason").error, FsError::Stale);
    assert_eq!(rig.read(handle), b"value");
    rig.fs.freshness.connected();
    assert!(matches!(rig.open(), Ok(Opening::Ready(_))));
    assert_eq!(rig.fs.trouble(), None);
}

#[tokio::test]
async fn a_file_whose_value_was_lost_reads_while_its_version_is_cached() {
    let rig = Rig::with(1, b"value");
    let handle = rig.opened().await.expect("a handle");
    rig.fs.adopt(|_, _| None);
    assert_eq!((rig.fs.open_files(), rig.fs.pinned()), (1, 0));
    assert_eq!(rig.read(handle), b"value");
    rig.publish(2, b"newer");
    let lost = |handle| rig.fs.read(rig.inode(), handle, 0, 100).err();
    assert_eq!(lost(handle), Some(FsError::HandleLost));
    assert_eq!(lost(Handle::from_u64(0)), Some(FsError::HandleLost));
    assert_eq!(rig.fs.poll(rig.inode(), handle, None), Readiness::Changed);
    rig.fs.release(rig.inode(), handle);
    assert_eq!(rig.fs.open_files(), 0);
}

#[tokio::test]
async fn a_file_ends_with_its_service_and_not_with_its_target() {
    let rig = Rig::with(1, b"value");
    let (inode, handle) = (rig.inode(), rig.opened().await.expect("a handle"));
    let read = || rig.fs.read(inode, handle, 0, 100).map(|slice| slice.expose_secret().to_vec());
    let mut without_targets = Manifest::default();
    without_targets.services.entry("web".parse().expect("a name")).or_default();
    rig.fs.update(&Arc::new(without_targets));
    assert_eq!(read().as_deref(), Ok(b"value".as_slice()), "detached");
    assert_eq!(rig.fs.poll(inode, handle, Some(5)), Readiness::Changed);
    let changes = rig.fs.update(&Arc::default());
    assert_eq!(changes, [Change::Changed { inode }], "what is mapped goes too");
    assert_eq!((read(), rig.fs.pinned()), (Err(FsError::Revoked), 0));
    assert_eq!(rig.fs.poll(inode, handle, None), Readiness::Changed);
    assert_eq!(rig.fs.take_pollers(inode), [5]);
    // Assigned again, and even cached: it must be opened again.
    rig.publish(1, b"value");
    let again = rig.opened().await.expect("a handle");
    assert_eq!((rig.read(again), read()), (b"value".to_vec(), Err(FsError::Revoked)));
}

#[tokio::test]
async fn who_takes_over_without_a_manifest_revokes_nothing() {
    let rig = Rig::with(1, b"value");
    let (inode, handle) = (rig.inode(), rig.opened().await.expect("a handle"));
    let Some(Opened::Value(value)) = rig.fs.handles.opened(inode, handle) else { panic!("pinned") };
    rig.fs.tree.store(Arc::new(Tree::before_any()));
    assert_eq!(rig.fs.adopt(|_, _| Some(value.clone())), []);
    assert_eq!(rig.fs.read(inode, handle, 0, 9).expect("a read").expose_secret(), b"value");
    rig.fs.tree.store(Arc::new(Tree::new(&Manifest::default(), &rig.fs.layout, &rig.fs.key)));
    assert_eq!(rig.fs.adopt(|_, _| Some(value.clone())), [Change::Changed { inode }]);
    assert_eq!(rig.fs.read(inode, handle, 0, 9).err(), Some(FsError::Revoked));
}

#[tokio::test]
async fn without_a_certificate_names_stay_and_nothing_is_opened_or_read() {
    let rig = Rig::with(1, b"value");
    rig.fs.freshness.connected();
    let (inode, handle) = (rig.inode(), rig.opened().await.expect("a handle"));
    rig.source.put(id(2), Ok(b"newer"));
    rig.source.shut_gate();
    rig.fs.update(&db(2, 5));
    let Ok(Opening::Wait(mut opening)) = rig.open() else { panic!("nothing is cached") };
    assert!((&mut opening).now_or_never().is_none());
    rig.fs.freshness.set_certificate_ended(true);
    rig.cache.clear();
    assert_eq!(rig.fs.revoke_all(), [Change::Changed { inode }]);
    rig.source.open_gate();
    assert_eq!(opening.await, Err(FsError::CertificateEnded), "although its value came");
    assert_eq!(rig.fs.read(inode, handle, 0, 9).err(), Some(FsError::Revoked));
    assert_eq!(rig.opened().await, Err(FsError::CertificateEnded));
    assert_eq!(rig.fs.trouble().expect("a reason").error, FsError::CertificateEnded);
    assert_eq!((rig.fs.attributes(inode).expect("it is there").size, rig.fs.pinned()), (5, 0));
    assert_eq!(rig.cache.status().entries, 0);
    rig.fs.freshness.set_certificate_ended(false);
    let again = rig.opened().await.expect("a handle");
    assert_eq!((rig.read(again), rig.fs.trouble()), (b"newer".to_vec(), None));
}

#[tokio::test]
async fn who_waits_for_a_file_that_went_while_no_worker_ran_is_woken() {
    let rig = Rig::with(1, b"value");
    let (inode, handle) = (rig.inode(), rig.opened().await.expect("a handle"));
    assert_eq!(rig.fs.poll(inode, handle, Some(5)), Readiness::Current);
    assert_eq!(rig.fs.polled(), 1);
    // As another worker has it before its first manifest.
    rig.fs.tree.store(Arc::new(Tree::new(&Manifest::default(), &rig.fs.layout, &rig.fs.key)));
    rig.fs.adopt(|_, _| None);
    assert_eq!(rig.fs.update(&Arc::default()), [Change::Changed { inode }]);
    assert_eq!(rig.fs.take_pollers(inode), [5]);
    assert_eq!((rig.fs.polled(), rig.fs.update(&Arc::default())), (0, vec![]));
}

#[tokio::test]
async fn reads_stop_at_the_end_whatever_is_asked() {
    let rig = Rig::with(1, b"value");
    let handle = rig.opened().await.expect("a handle");
    let read = |offset, size| {
        rig.fs.read(rig.inode(), handle, offset, size).expect("a read").expose_secret().to_vec()
    };
    assert_eq!(read(0, 2), b"va");
    assert_eq!(read(3, u32::MAX), b"ue");
    assert_eq!(read(5, 1), b"");
    assert_eq!(read(u64::MAX, u32::MAX), b"");
    assert_eq!(read(0, 0), b"");
}

#[tokio::test]
async fn a_listing_has_the_dots_first_and_stops_when_it_is_full() {
    let rig = Rig::with(1, b"value");
    let list = |from, room: usize| {
        let mut listed = Vec::new();
        let each = |_, place, _, name: &str| {
            if listed.len() == room {
                return Full::Yes;
            }
            listed.push((place, name.to_owned()));
            Full::No
        };
        rig.fs.list(Inode::ROOT, from, each).expect("a listing");
        listed
    };
    let all = list(0, 10);
    assert_eq!(all.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), [".", "..", "db"]);
    let mut piecewise = Vec::new();
    while let Some(next) = list(piecewise.last().map_or(0, |(place, _)| *place), 1).pop() {
        piecewise.push(next);
    }
    assert_eq!(piecewise, all);
    assert_eq!(rig.fs.list(rig.inode(), 0, |_, _, _, _| Full::No).err(), Some(FsError::NotADirectory));
}

/// Nothing that can be printed shows a value.
#[tokio::test]
async fn no_error_and_no_value_shows_cleartext() {
    const CANARY: &[u8] = b"canary-7f3a";
    let rig = Rig::with(1, CANARY);
    let handle = rig.opened().await.expect("a handle");
    let slice = rig.fs.read(rig.inode(), handle, 0, 100).expect("a read");
    assert_eq!(slice.expose_secret(), CANARY);
    // A value that does not fit its manifest.
    rig.source.put(id(2), Ok(CANARY));
    rig.fs.update(&db(2, 3));
    let inconsistent = rig.opened().await.expect_err("another size");
    assert!(matches!(inconsistent, FsError::Inconsistent(_)));
    let lost = rig.fs.read(rig.inode(), Handle::from_u64(9), 0, 1).expect_err("no such handle");
    let shown = format!(
        "{slice:?} {handle:?} {inconsistent:?} {inconsistent} {lost:?} {:?} {:?} {:?} {:?}",
        rig.fs.handles,
        rig.fs.trouble(),
        rig.cache.status(),
        rig.source.asked(),
    );
    let bytes = format!("{CANARY:?}");
    assert!(!shown.contains("canary") && !shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}

#[tokio::test]
async fn the_size_of_a_template_is_known_from_its_first_open_on() {
    let rig = Rig::new(NEVER, NEVER);
    let key = target(1, 5);
    rig.source.put(id(1), Ok(b"value"));
    let conf = template("k={{ secrets.key }}", [("key", key.clone())]);
    let manifest = Arc::new(manifest([("web", "key", key), ("web", "db", conf)]));
    rig.fs.update(&manifest);
    let (inode, before) = (rig.inode(), rig.fs.lookup(Inode::ROOT, "db").expect("the template"));
    assert_eq!((before.size, before.settled), (0, false), "and the kernel must not remember it");
    assert!(rig.source.asked().is_empty(), "no stat asks the manager");

    let handle = rig.opened().await.expect("opened");
    let after = rig.fs.attributes(inode).expect("the template");
    assert_eq!((after.size, after.settled), (7, true));
    assert_eq!(rig.fs.lookup(Inode::ROOT, "db").expect("the template"), after);
    assert_eq!(rig.fs.read(inode, handle, 0, 100).expect("the value").expose_secret(), b"k=value");
    assert_eq!(rig.fs.xattr(inode, b"user.secretfs.version"), Err(FsError::NoAttribute));
    assert_eq!(rig.fs.poll(inode, handle, None), Readiness::Current);

    // Another version of its input is another version of it.
    let key = target(2, 6);
    rig.source.put(id(2), Ok(b"second"));
    let conf = template("k={{ secrets.key }}", [("key", key.clone())]);
    let changes =
        rig.fs.update(&Arc::new(test_manifest::manifest([("web", "key", key), ("web", "db", conf)])));
    assert!(changes.iter().any(|change| change.inode() == inode), "{changes:?}");
    assert_eq!(rig.fs.poll(inode, handle, None), Readiness::Changed);
    assert_eq!(rig.fs.read(inode, handle, 0, 100).expect("the old value").expose_secret(), b"k=value");
}

#[tokio::test]
async fn a_template_that_cannot_be_rendered_says_why() {
    let rig = Rig::new(NEVER, NEVER);
    let key = target(1, 7);
    rig.source.put(id(1), Ok(b"canary\xff"));
    let conf = template("{{ secrets.key }}", [("key", key.clone())]);
    rig.fs.update(&Arc::new(manifest([("web", "key", key), ("web", "db", conf)])));
    let error = rig.opened().await.expect_err("no text");
    assert_eq!(error.errno(), rustix::io::Errno::IO);
    let reason = rig.fs.trouble().expect("trouble").error.to_string();
    assert!(
        reason.contains("template web/db cannot be rendered: line 1: the value of key is not UTF-8"),
        "{reason}"
    );
    assert!(!format!("{error:?} {reason}").contains("canary"));

    // Rendered ahead of its next open, it is no trouble any more.
    let key = target(2, 5);
    rig.source.put(id(2), Ok(b"value"));
    let conf = template("{{ secrets.key }}", [("key", key.clone())]);
    let good = Arc::new(manifest([("web", "key", key), ("web", "db", conf)]));
    rig.cache.prepare(&good, NEVER).await;
    rig.fs.update(&good);
    assert_eq!(rig.fs.trouble(), None);
}

#[tokio::test]
async fn every_open_is_on_record_with_what_came_of_it() {
    let rig = Rig::with(1, b"value");
    rig.opened().await.expect("cold");
    rig.opened().await.expect("warm");
    rig.publish(2, b"other");
    rig.source.put(id(2), Err(SourceError::Refused));
    let denied = rig.opened().await.expect_err("nobody gives it");
    assert_eq!(rig.fs.open(rig.inode(), Access::Write, REQUEST, CALLER).err(), Some(FsError::ReadOnly));
    let seen = rig.auditor.seen();
    let ends: Vec<_> = seen.iter().map(|seen| (seen.version, seen.failure.clone())).collect();
    let failed = |error: FsError| Some(error.to_string());
    let expected =
        [(id(1), None), (id(1), None), (id(2), failed(denied)), (id(2), failed(FsError::ReadOnly))];
    assert_eq!(ends, expected);
    assert!(seen.iter().all(|seen| seen.caller == CALLER && seen.file == "web/db"));
}

#[tokio::test]
async fn an_open_that_must_be_on_record_waits_for_that_cached_or_not() {
    let (auditor, answer) = TestAuditor::answering();
    let rig = Rig::audited(auditor, NEVER, NEVER);
    rig.publish(1, b"value");
    for wanted in [Ok(()), Ok(()), Err(NotAudited::Unacknowledged)] {
        answer.send_replace(None);
        let Ok(Opening::Wait(mut opening)) = rig.open() else { panic!("it waits for its record") };
        let seen = rig.auditor.seen().len();
        assert!((&mut opening).now_or_never().is_none());
        rig.source.wait_for_asked(1).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert!((&mut opening).now_or_never().is_none());
        }
        assert_eq!(rig.auditor.seen().len(), seen.max(1));
        answer.send_replace(Some(wanted));
        match wanted {
            Ok(()) => assert_eq!(rig.read(opening.await.expect("it is opened")), b"value"),
            Err(error) => assert_eq!(opening.await, Err(FsError::NotAudited(error))),
        }
    }
    assert_eq!(rig.fs.open_files(), 2, "what is not on record is not open");
    assert_eq!(rig.fs.trouble().expect("trouble").error, FsError::NotAudited(NotAudited::Unacknowledged));
}
