//! Against a real OpenBao, and the faults on the way to it.

mod faults;
mod policy;
mod tokens;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{Context, Key, KeyBackend as _, KeyError, Wrapped, conformance};
use super::VaultKeys;
use crate::backends::faulty_proxy::FaultyProxy;
use crate::backends::openbao::{Admin, OpenBao, TokenOptions};
use crate::backends::requirement::available;
use crate::config::{VaultConfig, VaultLogin};
use secretfs_wire::KeyName;

/// A server, the proxy before it, and files for tokens.
struct Setup {
    // In this order: the proxy ends before the server that it asks.
    proxy: FaultyProxy,
    server: OpenBao,
    directory: tempfile::TempDir,
}

/// The policy that the documentation gives, and nothing else.
const MINIMAL: &[(&str, &[&str])] =
    &[("transit/encrypt/prod", &["update"]), ("transit/decrypt/prod", &["update"])];

impl Setup {
    /// A server with a Transit engine; nothing, and said loudly, where there is no OpenBao.
    fn new() -> Option<Self> {
        Self::before(available(OpenBao::start())?)
    }

    fn before(server: OpenBao) -> Option<Self> {
        server.admin().enable_transit("transit");
        let directory = tempfile::tempdir().expect("a directory");
        Some(Self { proxy: FaultyProxy::before(&server), server, directory })
    }

    /// The same with a key `prod`, and a token that may use it and nothing else.
    fn with_key() -> Option<(Self, VaultKeys)> {
        let setup = Self::new()?;
        setup.server.admin().create_key("transit", "prod");
        setup.server.admin().allow("minimal", MINIMAL);
        let token = token(&setup.server.admin(), "minimal");
        let keys = setup.keys(VaultLogin::File(setup.file("token", &token)));
        Some((setup, keys))
    }

    fn config(&self, login: VaultLogin) -> VaultConfig {
        VaultConfig {
            url: self.proxy.url().parse().expect("a URL"),
            ca: self.server.ca().map(Path::to_owned),
            namespace: None,
            mount: "transit".to_owned(),
            timeout: Duration::from_secs(3),
            login,
        }
    }

    fn keys(&self, login: VaultLogin) -> VaultKeys {
        VaultKeys::open(&self.config(login)).expect("a backend")
    }

    /// With a token that may do anything.
    fn root_keys(&self) -> VaultKeys {
        self.keys(VaultLogin::File(self.file("root-token", self.server.root_token())))
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, format!("{content}\n")).expect("written");
        path
    }
}

/// A token under this policy alone.
fn token(admin: &Admin<'_>, policy: &str) -> String {
    let policies = &[policy];
    admin.create_token(&TokenOptions { policies, ttl: Some("1h"), ..TokenOptions::default() }).token
}

fn prod() -> KeyName {
    "prod".parse().expect("a name")
}

fn context() -> Context {
    Context::new([&b"here"[..]])
}

async fn wrap(keys: &VaultKeys) -> Result<Wrapped, KeyError> {
    let key = Key::generate().expect("a key");
    Ok(keys.wrap(&prod(), &[(&context(), &key)]).await?.remove(0))
}

async fn unwrap(keys: &VaultKeys, wrapped: &Wrapped) -> Result<Key, KeyError> {
    keys.unwrap(&prod(), &[(&context(), wrapped)]).await?.remove(0)
}

#[tokio::test]
async fn keys_in_vault_conform() {
    let Some(setup) = Setup::new() else { return };
    conformance::check(&setup.root_keys()).await;
    // The one that was asked for and not there was not made, neither by encrypting with it.
    let keys = setup.root_keys();
    let absent = "conformance-absent".parse().expect("a name");
    let key = Key::generate().expect("a key");
    let error = keys.wrap(&absent, &[(&context(), &key)]).await.expect_err("absent");
    assert!(matches!(error, KeyError::Missing(_)), "{error:?}");
    let error = keys.describe(&absent).await.expect_err("absent");
    assert!(matches!(error, KeyError::Missing(_)), "{error:?}");
}

#[tokio::test]
async fn keys_in_a_namespace_behind_an_authority_of_its_own_conform() {
    let Some(server) = available(OpenBao::start_tls()) else { return };
    let Some(setup) = Setup::before(server) else { return };
    let team = setup.server.create_namespace("team");
    team.enable_transit("keys/transit");
    let login = VaultLogin::File(setup.file("root-token", setup.server.root_token()));
    let config = VaultConfig {
        namespace: Some("team".to_owned()),
        mount: "keys/transit".to_owned(),
        ..setup.config(login)
    };
    conformance::check(&VaultKeys::open(&config).expect("a backend")).await;

    let stranger = rcgen::generate_simple_self_signed(["stranger".to_owned()]).expect("a certificate");
    let ca = Some(setup.file("stranger.pem", &stranger.cert.pem()));
    let keys = VaultKeys::open(&VaultConfig { ca, ..config.clone() }).expect("a backend");
    let error = keys.health().await.expect_err("another authority").to_string();
    assert!(
        error.contains("cannot reach Vault at https://127.0.0.1") && error.contains("UnknownIssuer"),
        "{error}"
    );

    for (name, content, problem) in [
        ("none.pem", "", "has no certificate"),
        ("x.pem", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----", "has no certificate"),
    ] {
        let ca = Some(setup.file(name, content));
        let error = VaultKeys::open(&VaultConfig { ca, ..config.clone() }).err().expect(name).to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[tokio::test]
async fn a_batch_of_any_size_is_asked_in_parts() {
    let Some((setup, keys)) = Setup::with_key() else { return };
    let data_keys: Vec<_> = (0..600).map(|_| Key::generate().expect("a key")).collect();
    let context = context();
    let questions: Vec<_> = data_keys.iter().map(|key| (&context, key)).collect();
    let wrapped = keys.wrap(&prod(), &questions).await.expect("wrapped");
    let questions: Vec<_> = wrapped.iter().map(|wrapped| (&context, wrapped)).collect();
    let unwrapped = keys.unwrap(&prod(), &questions).await.expect("unwrapped");
    for (key, unwrapped) in data_keys.iter().zip(&unwrapped) {
        assert_eq!(unwrapped.as_ref().expect("unwrapped").expose_secret(), key.expose_secret());
    }
    assert_eq!((setup.proxy.count("/encrypt/"), setup.proxy.count("/decrypt/")), (3, 3));
}

#[tokio::test]
async fn a_key_without_authentication_is_not_taken() {
    let Some(setup) = Setup::new() else { return };
    setup.server.admin().write("transit/keys/prod", &[("type", "rsa-2048")]);
    let error = setup.root_keys().ensure(&prod()).await.expect_err("of another type").to_string();
    assert!(error.contains("must be of type aes256-gcm96"), "{error}");
    setup.server.admin().delete_key("transit", "prod");
    setup.server.admin().write("transit/keys/prod", &[("type", "aes256-gcm96"), ("derived", "true")]);
    let error = setup.root_keys().ensure(&prod()).await.expect_err("a derived one").to_string();
    assert!(error.contains("and not derived"), "{error}");
}
