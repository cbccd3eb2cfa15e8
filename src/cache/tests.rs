use std::sync::Arc;

use futures::FutureExt;
use secretfs_wire::VersionId;
use secretfs_wire::manifest::{Manifest, Target};
use tokio::runtime::Handle;

use super::{Key, Value, ValueCache};
use crate::fs::test_manifest::{manifest, target};
use crate::fs::test_memory::arena;
use crate::fs::test_source::TestSource;
use crate::source::{SourceError, ValueRequest};

const CAPACITY: usize = 100;

fn cache(source: &Arc<TestSource>) -> Arc<ValueCache> {
    ValueCache::new(source.clone(), CAPACITY, arena(1000), Handle::current())
}

fn read(value: &Value) -> Vec<u8> {
    value.copy(0..value.len()).expose_secret().to_vec()
}

fn version(id: u64) -> VersionId {
    VersionId::from_u64(id).expect("an id")
}

/// The target `t{id}` with version `id`.
fn request(id: u64, size: u32) -> ValueRequest {
    ValueRequest {
        service: "web".parse().expect("a name"),
        target: format!("t{id}").parse().expect("a name"),
        details: target(id, size),
    }
}

/// A manifest that grants these, and answers for them.
fn grant(source: &TestSource, sizes: &[(u64, u32)]) -> Arc<Manifest> {
    for (id, size) in sizes {
        source.put(version(*id), Ok(&vec![*id as u8; *size as usize]));
    }
    let names: Vec<_> = sizes.iter().map(|(id, size)| (format!("t{id}"), target(*id, *size))).collect();
    Arc::new(manifest(names.iter().map(|(name, target)| ("web", name.as_str(), target.clone()))))
}

#[tokio::test]
async fn a_value_is_fetched_once() {
    let source = TestSource::new();
    let cache = cache(&source);
    cache.retain(&grant(&source, &[(1, 10)]));
    assert!(cache.get_ready(&request(1, 10)).is_none());
    assert_eq!(read(&cache.get(request(1, 10)).await.expect("a value")), [1; 10]);
    assert!(cache.get_ready(&request(1, 10)).is_some());
    assert!(cache.get(request(1, 10)).await.is_ok());
    assert_eq!(source.asked().len(), 1);
    let status = cache.status();
    assert_eq!((status.hits, status.misses, status.bytes, status.entries), (2, 1, 10, 1));
    assert_eq!(status.last_failure, None);
}

#[tokio::test]
async fn many_who_wait_share_one_flight() {
    let source = TestSource::new();
    let cache = cache(&source);
    cache.retain(&grant(&source, &[(1, 10)]));
    source.shut_gate();
    let mut waiting: Vec<_> = (0..10).map(|_| cache.get(request(1, 10)).boxed()).collect();
    for waiter in &mut waiting {
        assert!(waiter.now_or_never().is_none());
    }
    source.open_gate();
    for outcome in futures::future::join_all(waiting).await {
        assert!(outcome.is_ok());
    }
    assert_eq!(source.asked().len(), 1);
}

#[tokio::test]
async fn a_flight_lands_when_all_who_waited_have_gone() {
    let source = TestSource::new();
    let cache = cache(&source);
    cache.retain(&grant(&source, &[(1, 10)]));
    source.shut_gate();
    assert!(cache.get(request(1, 10)).now_or_never().is_none());
    source.open_gate();
    // Joins the flight, or finds what it brought.
    assert!(cache.get(request(1, 10)).await.is_ok());
    assert_eq!(source.asked().len(), 1);
}

#[tokio::test]
async fn failures_are_told_and_not_kept() {
    let source = TestSource::new();
    let cache = cache(&source);
    let granted = grant(&source, &[(1, 10)]);
    cache.retain(&granted);
    source.put(version(1), Err(SourceError::Refused));
    assert_eq!(cache.get(request(1, 10)).await.expect_err("refused"), SourceError::Refused);
    assert_eq!(cache.status().last_failure.expect("a failure").error, SourceError::Refused);
    grant(&source, &[(1, 10)]);
    assert!(cache.get(request(1, 10)).await.is_ok());
    assert_eq!(source.asked().len(), 2);
}

#[tokio::test]
async fn a_value_of_another_size_is_refused() {
    let source = TestSource::new();
    let cache = cache(&source);
    cache.retain(&grant(&source, &[(1, 10)]));
    for wrong in [9, 11] {
        let error = cache.get(request(1, wrong)).await.expect_err("another size");
        assert!(matches!(&error, SourceError::Inconsistent(_)), "{error}");
    }
    assert_eq!(cache.status().entries, 0);
}

#[tokio::test]
async fn the_least_recently_used_makes_room() {
    let source = TestSource::new();
    let cache = cache(&source);
    cache.retain(&grant(&source, &[(1, 40), (2, 40), (3, 40)]));
    cache.get(request(1, 40)).await.expect("a value");
    cache.get(request(2, 40)).await.expect("a value");
    assert!(cache.get_ready(&request(1, 40)).is_some());
    cache.get(request(3, 40)).await.expect("a value");
    assert!(cache.get_ready(&request(1, 40)).is_some(), "just used");
    assert!(cache.get_ready(&request(2, 40)).is_none(), "longest not used");
    assert_eq!((cache.status().bytes, cache.status().entries), (80, 2));
}

#[tokio::test]
async fn what_is_larger_than_the_cache_is_served_and_not_kept() {
    let source = TestSource::new();
    let cache = cache(&source);
    cache.retain(&grant(&source, &[(1, 40), (2, 101)]));
    cache.get(request(1, 40)).await.expect("a value");
    assert_eq!(cache.get(request(2, 101)).await.expect("a value").len(), 101);
    assert!(cache.get_ready(&request(2, 101)).is_none());
    assert!(cache.get_ready(&request(1, 40)).is_some(), "it makes no room for what is not kept");
}

#[tokio::test]
async fn what_is_not_granted_any_more_is_wiped() {
    let source = TestSource::new();
    let cache = cache(&source);
    cache.retain(&grant(&source, &[(1, 10), (2, 20)]));
    let value = cache.get(request(1, 10)).await.expect("a value");
    let watch = Arc::downgrade(&value);
    drop(value);
    cache.get(request(2, 20)).await.expect("a value");
    cache.retain(&grant(&source, &[(2, 20)]));
    assert!(watch.upgrade().is_none(), "somebody still holds the cleartext");
    assert_eq!((cache.status().bytes, cache.status().entries), (20, 1));
}

#[tokio::test]
async fn what_was_kept_is_fetched_ahead_in_its_new_version_and_nothing_else_is() {
    let source = TestSource::new();
    let cache = cache(&source);
    let named = |details: [Target; 2]| {
        let [used, unused] = details;
        Arc::new(manifest([("web", "used", used), ("web", "unused", unused)]))
    };
    let ask = |details| ValueRequest {
        service: "web".parse().expect("a name"),
        target: "used".parse().expect("a name"),
        details,
    };
    for id in 1..=4 {
        source.put(version(id), Ok(&[id as u8; 10]));
    }
    cache.retain(&named([target(1, 10), target(2, 10)]));
    cache.get(ask(target(1, 10))).await.expect("a value");
    cache.retain(&named([target(3, 10), target(4, 10)]));
    source.wait_for_asked(2).await;
    assert_eq!(source.asked()[1], ask(target(3, 10)));
    // Joins the flight, or finds what it brought: either way nobody asks once more.
    assert_eq!(read(&cache.get(ask(target(3, 10))).await.expect("a value")), [3; 10]);
    cache.retain(&named([target(3, 10), target(4, 10)]));
    assert!(cache.get_ready(&ask(target(3, 10))).is_some());
    assert_eq!(source.asked().len(), 2);
}

#[tokio::test]
async fn what_is_revoked_on_its_way_is_not_kept() {
    let source = TestSource::new();
    let cache = cache(&source);
    cache.retain(&grant(&source, &[(1, 10)]));
    source.shut_gate();
    let mut waiting = cache.get(request(1, 10)).boxed();
    assert!((&mut waiting).now_or_never().is_none());
    cache.retain(&grant(&source, &[]));
    source.open_gate();
    let value = waiting.await.expect("who asked while it was granted is answered");
    assert_eq!(cache.status().entries, 0);
    let watch = Arc::downgrade(&value);
    drop(value);
    assert!(watch.upgrade().is_none(), "somebody still holds the cleartext");
}

#[tokio::test]
async fn what_no_open_file_holds_makes_room() {
    const SIZE: u32 = 1 << 20;
    let source = TestSource::new();
    // Six such values have the place that is meant for names.
    let cache = ValueCache::new(source.clone(), usize::MAX, arena(0), Handle::current());
    let sizes: Vec<_> = (1..=8).map(|id| (id, SIZE)).collect();
    cache.retain(&grant(&source, &sizes));
    let held = cache.get(request(1, SIZE)).await.expect("a value");
    for id in 2..=7 {
        cache.get(request(id, SIZE)).await.expect("a value");
    }
    assert_eq!(cache.status().entries, 6);
    assert!(cache.get_ready(&request(2, SIZE)).is_none(), "longest not used and not held");
    assert_eq!(cache.get_ready(&request(1, SIZE)).expect("held").entry(), held.entry());
    let all: Vec<_> = (1..=7).filter_map(|id| cache.get_ready(&request(id, SIZE))).collect();
    assert_eq!(cache.get(request(8, SIZE)).await.expect_err("all are held"), SourceError::NoRoom);
    assert_eq!((cache.status().entries, cache.status().last_failure.is_some()), (6, true));
    drop(all);
    assert!(cache.get(request(8, SIZE)).await.is_ok());
}

#[tokio::test]
async fn of_what_a_former_worker_left_only_what_is_granted_is_kept() {
    let source = TestSource::new();
    let arena = arena(1000);
    let sizes = [(1, 10), (2, 10), (3, 10)];
    let former = ValueCache::new(source.clone(), CAPACITY, arena.clone(), Handle::current());
    former.retain(&grant(&source, &sizes));
    let mut values = Vec::new();
    for (id, size) in sizes {
        let value = former.get(request(id, size)).await.expect("a value");
        values.push((Key::of(&request(id, size)), value));
    }
    drop(former);
    let cache = ValueCache::new(source.clone(), CAPACITY, arena.clone(), Handle::current());
    // The third is not as long as the manifest says.
    cache.retain(&grant(&source, &[(1, 10), (3, 11)]));
    cache.adopt(values);
    assert!(cache.get_ready(&request(1, 10)).is_some());
    assert_eq!((cache.status().entries, cache.status().bytes, arena.used()), (1, 10, 1));
    assert_eq!(source.asked().len(), 3);
}

#[test]
fn no_runtime_needs_to_be_entered() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let source = TestSource::new();
    let cache = ValueCache::new(source.clone(), CAPACITY, arena(1000), runtime.handle().clone());
    cache.retain(&grant(&source, &[(1, 10)]));
    assert!(cache.get_ready(&request(1, 10)).is_none());
    source.shut_gate();
    assert!(cache.get(request(1, 10)).now_or_never().is_none(), "the flight has taken off");
    source.open_gate();
    assert!(runtime.block_on(cache.get(request(1, 10))).is_ok());
    assert_eq!(source.asked().len(), 1);
}
