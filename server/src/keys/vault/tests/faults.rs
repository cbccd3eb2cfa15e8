//! What goes wrong between the manager and Vault passes, or is said within the deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::backends::faulty_proxy::Fault;
use crate::keys::{Keyring, LocalKeys};
use secretfs_wire::{KeyBackendKind, KeyReference};

fn each_fault() -> [(Fault, &'static str); 8] {
    [
        (Fault::Sealed, "Vault is sealed"),
        (Fault::TooManyRequests { retry_after_seconds: 0 }, "rate limit quota is exhausted"),
        (Fault::Answer(412, "{}"), "has not caught up"),
        (Fault::Answer(473, "{}"), "a standby that does not serve (473)"),
        (Fault::Redirect("http://127.0.0.1:1/".to_owned()), "a standby that does not serve (307)"),
        (Fault::Answer(500, r#"{"errors":["disk full"]}"#), "disk full"),
        (Fault::Reset, "cannot reach Vault at http://127.0.0.1:"),
        (Fault::CutShort, "cannot reach Vault at http://127.0.0.1:"),
    ]
}

#[tokio::test]
async fn a_fault_that_passes_in_time_is_not_seen() {
    let Some((setup, keys)) = Setup::with_key() else { return };
    let slow = (Fault::Slow(Duration::from_secs(30)), "");
    for (fault, _) in each_fault().into_iter().chain([slow]) {
        setup.proxy.inject_next_at(
            "/encrypt/",
            2 - usize::from(matches!(fault, Fault::Slow(_))),
            fault.clone(),
        );
        let wrapped = wrap(&keys).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        setup.proxy.inject_next_at("/decrypt/", 1, fault.clone());
        unwrap(&keys, &wrapped).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
    }
}

#[tokio::test]
async fn a_fault_that_stays_is_said_within_the_deadline() {
    let Some((setup, keys)) = Setup::with_key() else { return };
    let wrapped = wrap(&keys).await.expect("wrapped");
    let slow = (Fault::Slow(Duration::from_secs(30)), "no answer in time");
    let quota = (Fault::TooManyRequests { retry_after_seconds: 60 }, "left alone for 60 s");
    let faults = each_fault().into_iter().chain([slow, quota]);
    let timeout = Duration::from_millis(600);
    let login = VaultLogin::File(setup.directory.path().join("token"));
    let keys = VaultKeys::open(&VaultConfig { timeout, ..setup.config(login) }).expect("a backend");
    for (fault, text) in faults {
        let before = setup.proxy.count("/decrypt/");
        setup.proxy.inject(fault.clone());
        let begin = Instant::now();
        let error = unwrap(&keys, &wrapped).await.expect_err(text);
        // Some of it is for busy processors.
        assert!(begin.elapsed() < timeout * 3, "{fault:?} took {:?}", begin.elapsed());
        assert!(error.is_transient() && error.to_string().contains(text), "{fault:?}: {error}");
        let attempts = setup.proxy.count("/decrypt/") - before;
        let expected =
            if matches!(fault, Fault::TooManyRequests { retry_after_seconds: 60 }) { 1..=1 } else { 2..=20 };
        assert!(expected.contains(&attempts), "{fault:?}: {attempts} attempts");
        setup.proxy.heal();
        unwrap(&keys, &wrapped).await.expect("well again");
    }
}

#[tokio::test]
async fn what_vault_asks_to_wait_is_waited() {
    let Some((setup, keys)) = Setup::with_key() else { return };
    wrap(&keys).await.expect("wrapped");
    setup.proxy.inject_next(1, Fault::TooManyRequests { retry_after_seconds: 1 });
    let begin = Instant::now();
    wrap(&keys).await.expect("wrapped");
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_vault_that_is_sealed_or_gone_is_said_to_be() {
    let Some((setup, keys)) = Setup::with_key() else { return };
    let wrapped = wrap(&keys).await.expect("wrapped");
    keys.health().await.expect("well");
    setup.server.seal();
    let error = unwrap(&keys, &wrapped).await.expect_err("sealed");
    assert!(error.is_transient() && error.to_string().contains("Vault is sealed"), "{error}");
    assert!(keys.health().await.expect_err("sealed").to_string().contains("Vault is sealed"));
    setup.server.unseal();
    unwrap(&keys, &wrapped).await.expect("as before");
    keys.health().await.expect("well");

    // It need not be there when the manager starts.
    let login = VaultLogin::File(setup.directory.path().join("token"));
    let url = "http://127.0.0.1:1".parse().expect("a URL");
    let timeout = Duration::from_millis(300);
    let keys = VaultKeys::open(&VaultConfig { url, timeout, ..setup.config(login) }).expect("a backend");
    let error = keys.wrap(&prod(), &[(&context(), &Key::generate().expect("a key"))]).await;
    let error = error.expect_err("nobody is there").to_string();
    assert!(
        error.contains("cannot reach Vault at http://127.0.0.1:1: ") && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_key_is_rotated_once_whatever_is_lost() {
    let Some(setup) = Setup::new() else { return };
    let keys = setup.root_keys();
    keys.ensure(&prod()).await.expect("made");
    setup.proxy.inject_next_at("/rotate", 1, Fault::LostAnswer);
    let error = keys.rotate(&prod()).await.expect_err("lost");
    assert!(error.is_transient() && error.to_string().contains("may have done it"), "{error}");
    assert_eq!(keys.describe(&prod()).await.expect("described").newest, 2);
    assert_eq!(setup.proxy.count("/rotate"), 1);
    // What Vault has not heard is asked again.
    setup.proxy.inject_next_at("/rotate", 2, Fault::Sealed);
    assert_eq!(keys.rotate(&prod()).await.expect("rotated"), 3);
}

#[tokio::test]
async fn vault_is_asked_once_for_a_data_key_in_its_time() {
    let Some((setup, keys)) = Setup::with_key() else { return };
    let lifetime = Duration::from_secs(2);
    let remote =
        BTreeMap::from([(KeyBackendKind::Vault, Arc::new(keys) as Arc<dyn crate::keys::KeyBackend>)]);
    let keyring = Keyring::new(LocalKeys::in_memory(), remote, lifetime);
    let key = KeyReference { backend: KeyBackendKind::Vault, name: prod() };
    let data_key = Key::generate().expect("a key");
    let wrapped = keyring.wrap(&key, &context(), &data_key).await.expect("wrapped");
    let context = context();
    let reads = || async {
        let reads = (0..20).map(|_| keyring.unwrap(&context, &wrapped));
        futures::future::join_all(reads).await.into_iter().collect::<Result<Vec<_>, _>>()
    };
    reads().await.expect("unwrapped");
    reads().await.expect("unwrapped");
    assert_eq!(setup.proxy.count("/decrypt/"), 1);

    // While Vault is sealed, what is known is served until its time is over, and no longer.
    setup.server.seal();
    reads().await.expect("from memory");
    let begin = Instant::now();
    while reads().await.is_ok() {
        assert!(begin.elapsed() < lifetime * 2, "it outlives its time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    setup.server.unseal();
    let before = setup.proxy.count("/decrypt/");
    reads().await.expect("asked again");
    assert_eq!(setup.proxy.count("/decrypt/"), before + 1);
}
