use secretfs_wire::{EnvironmentName, KeyBackendKind, KeyReference, VersionId};

use super::{environment, local, name, secret, version};
use crate::keys::{Wrapped, WrappedKey};
use crate::store::{KeyUse, NewSecret, OutdatedKey, Rewrap, Store, StoreError};

fn vault(key: &str) -> KeyReference {
    KeyReference { backend: KeyBackendKind::Vault, name: name(key) }
}

fn wrapped(key: &KeyReference, version: u64, bytes: u8) -> WrappedKey {
    WrappedKey { key: key.clone(), wrapped: Wrapped { version, bytes: vec![bytes] } }
}

pub(super) async fn check(store: &dyn Store) {
    an_environment_has_its_keys_for_itself(store).await;
    data_keys_are_moved_one_by_one(store).await;
    nothing_is_wrapped_under_what_is_retired(store).await;
}

async fn uses(store: &dyn Store, environment: &EnvironmentName) -> Vec<(KeyReference, u64, u64)> {
    let uses = store.key_uses().await.expect("asked");
    let ours = uses.into_iter().filter(|used| used.environment == *environment);
    ours.map(|KeyUse { key, version, data_keys, .. }| (key, version, data_keys)).collect()
}

async fn keys(store: &dyn Store, environment: &EnvironmentName) -> Vec<(KeyReference, u64)> {
    let records = store.keys().await.expect("asked");
    let ours = records.into_iter().filter(|record| record.environment == *environment);
    ours.map(|record| (record.key, record.floor)).collect()
}

async fn an_environment_has_its_keys_for_itself(store: &dyn Store) {
    let (one, two) = (environment(store, "key-one").await, environment(store, "key-two").await);
    store.set_key(&one, &vault("key-one")).await.expect("another backend");
    assert_eq!(store.environment(&one).await.expect("it").key, vault("key-one"));
    assert_eq!(keys(store, &one).await, [(local("key-one"), 1), (vault("key-one"), 1)]);
    for theirs in [local("key-one"), vault("key-one")] {
        let taken = store.set_key(&two, &theirs).await;
        assert!(matches!(taken, Err(StoreError::Exists { .. })), "{theirs}: {taken:?}");
    }
    store.set_key(&one, &local("key-one")).await.expect("back again");
    store.set_key(&one, &local("key-one")).await.expect("nothing to do");
    let absent = store.set_key(&name("key-absent"), &vault("key-absent")).await;
    assert!(matches!(absent, Err(StoreError::Missing { .. })), "{absent:?}");

    store.forget_key(&local("key-one")).await.expect("asked");
    assert_eq!(keys(store, &one).await.len(), 2, "the one that it has is not forgotten");
    store.forget_key(&vault("key-one")).await.expect("forgotten");
    assert_eq!(keys(store, &one).await, [(local("key-one"), 1)]);
    store.set_key(&two, &vault("key-one")).await.expect_err("its name is an environment's");
    store.set_key(&one, &local("key-one-2027")).await.expect("another name");
    let former = store.set_key(&two, &local("key-one")).await;
    assert!(matches!(former, Err(StoreError::Exists { .. })), "{former:?}");
    store.remove_environment(&one).await.expect("removed");
    assert!(keys(store, &one).await.is_empty());
    store.set_key(&two, &local("key-one")).await.expect("nobody's any more");
}

async fn data_keys_are_moved_one_by_one(store: &dyn Store) {
    let (prod, other) = (environment(store, "moves").await, environment(store, "moves-other").await);
    let db = secret(store, &prod, "db").await;
    store.add_version(&prod, &db, version(&prod, 2, 2)).await.expect("rotated");
    secret(store, &prod, "api").await;
    secret(store, &other, "db").await;
    assert_eq!(uses(store, &prod).await, [(local("moves"), 1, 3)]);
    let to = vault("moves");
    store.set_key(&prod, &to).await.expect("set");

    let first = store.outdated_keys(&prod, &to, 1, None, 2).await.expect("asked");
    let rest = store.outdated_keys(&prod, &to, 1, Some(first[1].id), 2).await.expect("asked");
    let mut all: Vec<OutdatedKey> = first.into_iter().chain(rest).collect();
    assert_eq!(all.len(), 3);
    assert!(all.is_sorted_by_key(|outdated| outdated.id.as_u64()));
    assert_eq!(store.count_outdated_keys(&prod, &to, 1).await.expect("asked"), 3);
    let places: Vec<_> = all.iter().map(|outdated| (outdated.secret.as_str(), outdated.number)).collect();
    for place in [("api", 1), ("db", 1), ("db", 2)] {
        assert!(places.contains(&place), "{place:?} in {places:?}");
    }

    let revision = store.published(&prod).await.expect("asked").revision;
    let last = all.pop().expect("three");
    let rewrap = |outdated: &OutdatedKey, bytes| Rewrap {
        id: outdated.id,
        from: outdated.data_key.wrapped.bytes.clone(),
        to: wrapped(&to, 1, bytes),
    };
    let mut moves: Vec<_> = all.iter().map(|outdated| rewrap(outdated, 7)).collect();
    moves.push(Rewrap { from: vec![0], ..rewrap(&last, 8) });
    assert_eq!(store.rewrap(&moves).await.expect("moved"), 2, "the third is not what was read");
    assert_eq!(store.rewrap(&moves).await.expect("again"), 0);
    assert_eq!(store.count_outdated_keys(&prod, &to, 1).await.expect("asked"), 1);
    assert_eq!(uses(store, &prod).await, [(local("moves"), 1, 1), (vault("moves"), 1, 2)]);
    assert_eq!(uses(store, &other).await, [(local("moves-other"), 1, 1)]);
    assert_eq!(store.published(&prod).await.expect("asked").revision, revision, "no node sees of it");

    store.rewrap(&[rewrap(&last, 9)]).await.expect("moved");
    assert!(store.outdated_keys(&prod, &to, 1, None, 9).await.expect("asked").is_empty());
    assert_eq!(store.outdated_keys(&prod, &to, 2, None, 9).await.expect("asked").len(), 3);
    let current = store.current(&prod, &db).await.expect("the current version");
    assert_eq!(current.sealed.data_key.key, to);
    assert_eq!(current.sealed.ciphertext, 2_u64.to_be_bytes(), "the value is as it was");
}

async fn nothing_is_wrapped_under_what_is_retired(store: &dyn Store) {
    let prod = environment(store, "retired").await;
    let (key, db) = (local("retired"), secret(store, &prod, "db").await);
    let in_use = store.retire_key(&key, 2).await;
    assert!(matches!(in_use, Err(StoreError::KeyInUse { data_keys: 1, .. })), "{in_use:?}");
    store.retire_key(&key, 1).await.expect("nothing is below 1");

    let outdated = store.outdated_keys(&prod, &key, 2, None, 9).await.expect("asked").remove(0);
    let from = outdated.data_key.wrapped.bytes;
    let moved = [Rewrap { id: outdated.id, from, to: wrapped(&key, 2, 1) }];
    assert_eq!(store.rewrap(&moved).await.expect("moved"), 1);
    store.retire_key(&key, 2).await.expect("retired");
    store.retire_key(&key, 1).await.expect("it is not brought back");
    assert_eq!(keys(store, &prod).await, [(key.clone(), 2)]);

    let late = store.add_version(&prod, &db, version(&prod, 2, 2)).await;
    assert!(matches!(late, Err(StoreError::KeyRetired { version: 1, .. })), "{late:?}");
    let new = NewSecret { name: name("late"), labels: name(""), version: version(&prod, 1, 2) };
    let late = store.create_secret(&prod, new).await;
    assert!(matches!(late, Err(StoreError::KeyRetired { version: 1, .. })), "{late:?}");
    let back = [Rewrap { id: outdated.id, from: vec![1], to: wrapped(&key, 1, 2) }];
    assert!(matches!(store.rewrap(&back).await, Err(StoreError::KeyRetired { .. })));
    let foreign = [Rewrap { id: outdated.id, from: vec![1], to: wrapped(&vault("nobodys"), 1, 2) }];
    assert!(matches!(store.rewrap(&foreign).await, Err(StoreError::KeyRetired { .. })));
    assert_eq!(uses(store, &prod).await, [(key.clone(), 2, 1)]);
    let in_use = store.forget_key(&key).await;
    assert!(matches!(in_use, Err(StoreError::KeyInUse { .. })), "{in_use:?}");
    let unknown = VersionId::random();
    assert_eq!(store.rewrap(&[Rewrap { id: unknown, ..moved[0].clone() }]).await.expect("asked"), 0);
}
