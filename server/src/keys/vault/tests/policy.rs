//! Under exactly the policy that the documentation gives.

use super::*;
use crate::keys::BackendFault;

fn not_allowed(error: &KeyError) -> String {
    let is_not_allowed = matches!(error, KeyError::Backend { fault: BackendFault::NotAllowed(_), .. });
    assert!(is_not_allowed, "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn the_minimal_policy_is_enough_to_use_a_key() {
    let Some((setup, keys)) = Setup::with_key() else { return };
    keys.ensure(&prod()).await.expect("it is there");
    let wrapped = wrap(&keys).await.expect("wrapped");
    unwrap(&keys, &wrapped).await.expect("unwrapped");
    setup.server.admin().rotate_key("transit", "prod");
    let described = keys.describe(&prod()).await.expect("described");
    assert_eq!(described.newest, 2);
    assert_eq!(described.versions.iter().map(|version| version.version).collect::<Vec<_>>(), [2]);
    unwrap(&keys, &wrapped).await.expect("both unwrap");
}

#[tokio::test]
async fn the_minimal_policy_changes_no_key_and_what_to_do_is_said() {
    let Some((setup, keys)) = Setup::with_key() else { return };
    let error = not_allowed(&keys.rotate(&prod()).await.expect_err("refused"));
    assert!(error.contains("`vault write -f transit/keys/prod/rotate`"), "{error}");
    assert!(error.contains("`secretfs key rewrap`"), "{error}");
    setup.server.admin().rotate_key("transit", "prod");
    let error = not_allowed(&keys.retire(&prod(), 2).await.expect_err("refused"));
    assert!(error.contains("`vault write -f transit/keys/prod/config min_decryption_version=2`"), "{error}");
    keys.retire(&prod(), 3).await.expect("a whole key is left there");
    let key = setup.server.admin().read("transit/keys/prod");
    assert_eq!(
        (&key["data"]["latest_version"], &key["data"]["min_decryption_version"]),
        (&2.into(), &1.into())
    );
}

#[tokio::test]
async fn a_key_that_may_not_be_made_is_asked_for() {
    let Some((setup, keys)) = Setup::with_key() else { return };
    setup.server.admin().delete_key("transit", "prod");
    let error = not_allowed(&keys.ensure(&prod()).await.expect_err("there is none"));
    assert!(error.contains("`vault write -f transit/keys/prod`"), "{error}");
    assert!(error.contains(r#"path "transit/encrypt/prod" { capabilities = ["update"] }"#), "{error}");
    // With the right to make it by encrypting, it is not made that way.
    let creating: &[(&str, &[&str])] = &[("transit/encrypt/prod", &["create", "update"]), MINIMAL[1]];
    setup.server.admin().allow("minimal", creating);
    let error = not_allowed(&keys.ensure(&prod()).await.expect_err("there is none"));
    assert!(error.contains("there is no key prod, and the manager's token may not make it"), "{error}");
    let described = setup.root_keys().describe(&prod()).await;
    assert!(matches!(described, Err(KeyError::Missing(_))), "{described:?}");
}

#[tokio::test]
async fn what_was_retired_in_vault_stays_retired() {
    let Some(setup) = Setup::new() else { return };
    let (admin, keys) = (setup.server.admin(), setup.root_keys());
    keys.ensure(&prod()).await.expect("made");
    for _ in 0..3 {
        keys.rotate(&prod()).await.expect("rotated");
    }
    admin.configure_key("transit", "prod", &[("min_decryption_version", "3")]);
    keys.retire(&prod(), 2).await.expect("nothing to do");
    assert_eq!(admin.read("transit/keys/prod")["data"]["min_decryption_version"], 3);
    let described = keys.describe(&prod()).await.expect("described");
    assert_eq!(described.versions.iter().map(|version| version.version).collect::<Vec<_>>(), [3, 4]);
    assert!(described.versions.iter().all(|version| version.created.is_some()));
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_named() {
    let Some(setup) = Setup::new() else { return };
    let login = VaultLogin::File(setup.file("root-token", setup.server.root_token()));
    let config = VaultConfig { mount: "nowhere".to_owned(), ..setup.config(login) };
    let keys = VaultKeys::open(&config).expect("a backend");
    let error = not_allowed(&keys.ensure(&prod()).await.expect_err("nowhere"));
    assert!(error.contains("no Transit engine at nowhere"), "{error}");
}
