//! What every key backend must do, wherever its keys are.

use secretfs_wire::KeyName;

use super::{Context, Key, KeyBackend, KeyError, Wrapped};

fn context(place: &str) -> Context {
    Context::new([place.as_bytes()])
}

async fn wrap(backend: &dyn KeyBackend, name: &KeyName, place: &str, key: &Key) -> Wrapped {
    let wrapped = backend.wrap(name, &[(&context(place), key)]).await.expect("wrapped");
    wrapped.into_iter().next().expect("as many as were given")
}

async fn unwrap(
    backend: &dyn KeyBackend,
    name: &KeyName,
    place: &str,
    wrapped: &Wrapped,
) -> Result<Key, KeyError> {
    let mut answers = backend.unwrap(name, &[(&context(place), wrapped)]).await?;
    answers.pop().expect("as many as were given")
}

/// Runs the suite on keys `conformance-1` and `conformance-2`, which it may make if they are not there.
pub(super) async fn check(backend: &dyn KeyBackend) {
    let one: KeyName = "conformance-1".parse().expect("a name");
    let two: KeyName = "conformance-2".parse().expect("a name");
    backend.health().await.expect("it can serve");
    for name in [&one, &two, &one] {
        backend.ensure(name).await.expect("a key, also when there is one");
    }
    wrapping(backend, &one, &two).await;
    batches(backend, &one).await;
    versions(backend, &one).await;
    absent(backend).await;
    two_at_once(backend, &one).await;
}

async fn wrapping(backend: &dyn KeyBackend, one: &KeyName, two: &KeyName) {
    let key = Key::generate().expect("a key");
    let wrapped = wrap(backend, one, "here", &key).await;
    assert_eq!(wrapped.version, 1);
    assert!(!wrapped.bytes.windows(8).any(|part| key.expose_secret().starts_with(part)), "not in clear");
    assert_ne!(wrap(backend, one, "here", &key).await, wrapped, "never twice the same");
    let unwrapped = unwrap(backend, one, "here", &wrapped).await.expect("unwrapped");
    assert_eq!(unwrapped.expose_secret(), key.expose_secret());

    let elsewhere = unwrap(backend, one, "there", &wrapped).await.expect_err("another context");
    assert!(matches!(elsewhere, KeyError::Refused), "{elsewhere:?}");
    let other = unwrap(backend, two, "here", &wrapped).await.expect_err("another key");
    assert!(matches!(other, KeyError::Refused), "{other:?}");
    for position in [0, wrapped.bytes.len() / 2, wrapped.bytes.len() - 1] {
        let mut damaged = wrapped.clone();
        // Of a text it leaves a text.
        damaged.bytes[position] ^= 1;
        let error = unwrap(backend, one, "here", &damaged).await.expect_err("a damaged one");
        assert!(matches!(error, KeyError::Refused), "{position}: {error:?}");
    }
    for length in [0, 1, 12, wrapped.bytes.len() - 1] {
        let cut = Wrapped { version: 1, bytes: wrapped.bytes[..length].to_vec() };
        let error = unwrap(backend, one, "here", &cut).await.expect_err("one that was cut");
        assert!(matches!(error, KeyError::Refused), "{length}: {error:?}");
    }
}

async fn batches(backend: &dyn KeyBackend, name: &KeyName) {
    assert!(backend.wrap(name, &[]).await.expect("nothing to do").is_empty());
    assert!(backend.unwrap(name, &[]).await.expect("nothing to do").is_empty());
    let keys: Vec<_> = (0..50).map(|_| Key::generate().expect("a key")).collect();
    let places: Vec<_> = (0..50).map(|number| context(&format!("place {number}"))).collect();
    let questions: Vec<_> = places.iter().zip(&keys).collect();
    let wrapped = backend.wrap(name, &questions).await.expect("wrapped");
    assert_eq!(wrapped.len(), keys.len());
    // One of them stands in another's place.
    let questions: Vec<_> =
        (0..50).map(|number| (&places[if number == 17 { 18 } else { number }], &wrapped[number])).collect();
    let answers = backend.unwrap(name, &questions).await.expect("answers");
    assert_eq!(answers.len(), keys.len());
    for (number, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(key) => assert_eq!(key.expose_secret(), keys[number].expose_secret(), "{number}"),
            Err(KeyError::Refused) => assert_eq!(number, 17),
            Err(error) => panic!("{number}: {error:?}"),
        }
    }
}

async fn versions(backend: &dyn KeyBackend, name: &KeyName) {
    let key = Key::generate().expect("a key");
    let old = wrap(backend, name, "here", &key).await;
    let described = backend.describe(name).await.expect("described");
    assert_eq!(described.newest, 1);
    assert_eq!(described.versions.last().map(|version| version.version), Some(1));
    assert_eq!(backend.rotate(name).await.expect("rotated"), 2);
    assert_eq!(backend.describe(name).await.expect("described").newest, 2);
    let new = wrap(backend, name, "here", &key).await;
    assert_eq!((old.version, new.version), (1, 2));
    for wrapped in [&old, &new] {
        let unwrapped = unwrap(backend, name, "here", wrapped).await.expect("both unwrap");
        assert_eq!(unwrapped.expose_secret(), key.expose_secret());
    }
    // Whoever relabels it does not get another version's key to open it.
    let relabelled = Wrapped { version: 2, ..old.clone() };
    let error = unwrap(backend, name, "here", &relabelled).await.expect_err("relabelled");
    assert!(matches!(error, KeyError::Refused), "{error:?}");

    for _ in 0..2 {
        backend.retire(name, 2).await.expect("retired, also when it was before");
    }
    let error = unwrap(backend, name, "here", &old).await.expect_err("retired");
    assert!(matches!(error, KeyError::Missing(_)), "{error:?}");
    unwrap(backend, name, "here", &new).await.expect("the new one stays");
    assert_eq!(backend.rotate(name).await.expect("rotated"), 3, "numbers are never used again");
}

async fn absent(backend: &dyn KeyBackend) {
    let absent: KeyName = "conformance-absent".parse().expect("a name");
    let wrapped = Wrapped { version: 1, bytes: vec![0; 60] };
    assert!(unwrap(backend, &absent, "here", &wrapped).await.is_err());
    let rotated = backend.rotate(&absent).await;
    assert!(rotated.is_err(), "a key is never made by accident: {rotated:?}");
}

async fn two_at_once(backend: &dyn KeyBackend, name: &KeyName) {
    let keys: Vec<_> = (0..16).map(|_| Key::generate().expect("a key")).collect();
    futures::future::join_all(keys.iter().map(async |key| {
        let wrapped = wrap(backend, name, "here", key).await;
        let unwrapped = unwrap(backend, name, "here", &wrapped).await.expect("unwrapped");
        assert_eq!(unwrapped.expose_secret(), key.expose_secret());
    }))
    .await;
}
