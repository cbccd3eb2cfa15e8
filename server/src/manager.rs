//! Making, opening and unlocking a manager.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use secretfs_wire::{KeyBackendKind, OperatorName};
use zeroize::Zeroizing;

use crate::app::now;
use crate::ca::Authority;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::error::Cause;
use crate::keys::{KeyBackend, Keyring, LocalKeys, Pkcs11Keys, RootKey, VaultKeys};
use crate::store::{Environments as _, Sqlite, Store};

const CA_KEY_LABEL: &str = "secretfs CA key v1";
const CA_KEY_NAME: &str = "ca";
const FIRST_OPERATOR: &str = "admin";

/// An opened manager: its store, its keys and its CA. [`run`](crate::run) serves it.
pub struct Manager {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Arc<Keyring>,
    pub(crate) authority: Arc<Authority>,
}

/// What a new manager has to say, once.
pub struct FirstSteps {
    /// The first operator's credentials.
    pub operator: OperatorCredentials,
    /// The root key as text: with it and a backup of the data directory everything can be read, and
    /// without it nothing. To be kept apart from both.
    pub recovery_key: Zeroizing<String>,
}

/// What an operator needs in order to be let in.
pub struct OperatorCredentials {
    /// The operator's name.
    pub name: OperatorName,
    /// The client certificate, as PEM.
    pub certificate: String,
    /// Its private key, as PEM.
    pub key: Zeroizing<String>,
    /// The CA's certificates by which the operator knows the manager, as PEM.
    pub ca: String,
}

/// Why a manager could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The data directory cannot be used, or has a manager already.
    #[error("cannot use the data directory")]
    DataDir(#[source] Cause),
    /// A file cannot be written.
    #[error("cannot write the keys")]
    Write(#[source] io::Error),
    /// Keys or certificates cannot be made.
    #[error("cannot make keys and certificates")]
    Keys(#[source] Cause),
    /// The store cannot be made.
    #[error("cannot make the store")]
    Store(#[source] Cause),
}

/// Why a manager could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be used, or another manager runs on it.
    #[error("cannot use the data directory")]
    DataDir(#[source] Cause),
    /// The root key is kept elsewhere.
    #[error("{} has no root.key; put it back with `secretfs manager unlock`", .0.display())]
    Locked(PathBuf),
    /// A file cannot be read.
    #[error("cannot read the keys")]
    Read(#[source] io::Error),
    /// The root key is malformed, or not the one of this manager, or the CA is damaged.
    #[error("the root key does not open this manager's CA")]
    Keys(#[source] Cause),
    /// The store cannot be opened or migrated.
    #[error("cannot open the store")]
    Store(#[source] Cause),
    /// A key backend's settings cannot be used.
    #[error("cannot use key backend {0}")]
    KeyBackend(KeyBackendKind, #[source] Cause),
}

/// Why a manager could not be unlocked.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The data directory cannot be used, or a manager runs on it.
    #[error("cannot use the data directory")]
    DataDir(#[source] Cause),
    /// The text is not a recovery key.
    #[error("cannot use this recovery key")]
    Text(#[source] Cause),
    /// It is one, but of another manager.
    #[error("this recovery key is not the one of this manager")]
    WrongKey(#[source] Cause),
    /// A file cannot be read.
    #[error("cannot read the keys")]
    Read(#[source] io::Error),
    /// The manager has a root key, which is never replaced.
    #[error("this manager has its root.key; there is nothing to unlock")]
    NotLocked,
    /// The root key cannot be written.
    #[error("cannot write the root key")]
    Write(#[source] io::Error),
}

impl Manager {
    /// Makes a new manager in an empty or absent data directory: a root key, a CA, a store and a
    /// first operator.
    ///
    /// # Errors
    /// When the directory is not empty, or something cannot be made or written.
    pub async fn init(config: &Config) -> Result<FirstSteps, InitError> {
        let directory =
            DataDir::create(&config.data_dir).map_err(|error| InitError::DataDir(error.into()))?;
        let root = RootKey::generate().map_err(|error| InitError::Keys(error.into()))?;
        let (authority, pkcs8) = Authority::create(now()).map_err(|error| InitError::Keys(error.into()))?;
        let sealed =
            root.seal(CA_KEY_LABEL, CA_KEY_NAME, &pkcs8).map_err(|error| InitError::Keys(error.into()))?;
        let store = Sqlite::open(&directory.store()).await.map_err(|error| InitError::Store(error.into()))?;
        let operator = first_operator(&authority, &store).await?;
        store.close().await;

        directory.write_ca(authority.pem(), &sealed).map_err(InitError::Write)?;
        let recovery_key = root.expose_text();
        // Last: a directory that has it is whole.
        directory.write_root_key(&recovery_key).map_err(InitError::Write)?;
        Ok(FirstSteps { operator, recovery_key })
    }

    /// Opens the manager of a data directory, and migrates its store.
    ///
    /// # Errors
    /// When there is none, another process runs it, its root key is kept elsewhere, or something is
    /// damaged.
    pub async fn open(config: &Config) -> Result<Self, OpenError> {
        let directory = DataDir::open(&config.data_dir).map_err(|error| OpenError::DataDir(error.into()))?;
        let text = directory
            .read_root_key()
            .map_err(OpenError::Read)?
            .ok_or_else(|| OpenError::Locked(config.data_dir.clone()))?;
        let root = RootKey::from_text(&text).map_err(|error| OpenError::Keys(error.into()))?;
        let (pem, sealed) = directory.read_ca().map_err(OpenError::Read)?;
        let pkcs8 =
            root.open(CA_KEY_LABEL, CA_KEY_NAME, &sealed).map_err(|error| OpenError::Keys(error.into()))?;
        let authority = Authority::load(pem, &pkcs8).map_err(|error| OpenError::Keys(error.into()))?;
        let store = Sqlite::open(&directory.store()).await.map_err(|error| OpenError::Store(error.into()))?;
        Ok(Self {
            config: config.clone(),
            store: Arc::new(store),
            keys: Arc::new(Keyring::new(
                LocalKeys::in_files(root, Arc::new(directory))
                    .map_err(|error| OpenError::Keys(error.into()))?,
                remote_keys(config)?,
                config.data_key_lifetime,
            )),
            authority: Arc::new(authority),
        })
    }

    /// Makes a manager that is gone when it is dropped: nothing is written anywhere.
    ///
    /// # Errors
    /// When keys, certificates or the store cannot be made.
    pub async fn in_memory(config: &Config) -> Result<(Self, OperatorCredentials), InitError> {
        let (authority, _) = Authority::create(now()).map_err(|error| InitError::Keys(error.into()))?;
        let store = Sqlite::in_memory().await.map_err(|error| InitError::Store(error.into()))?;
        let operator = first_operator(&authority, &store).await?;
        let manager = Self {
            config: config.clone(),
            store: Arc::new(store),
            keys: Arc::new(Keyring::in_memory()),
            authority: Arc::new(authority),
        };
        Ok((manager, operator))
    }

    /// Puts `root.key` back from its recovery text, after it has opened this manager's CA key.
    ///
    /// # Errors
    /// When the text is no recovery key or that of another manager, or the root key is there.
    pub async fn unlock(config: &Config, recovery_key: &str) -> Result<(), UnlockError> {
        let root = RootKey::from_text(recovery_key).map_err(|error| UnlockError::Text(error.into()))?;
        let directory =
            DataDir::open(&config.data_dir).map_err(|error| UnlockError::DataDir(error.into()))?;
        if directory.read_root_key().map_err(UnlockError::Read)?.is_some() {
            return Err(UnlockError::NotLocked);
        }
        let (_, sealed) = directory.read_ca().map_err(UnlockError::Read)?;
        root.open(CA_KEY_LABEL, CA_KEY_NAME, &sealed).map_err(|error| UnlockError::WrongKey(error.into()))?;
        directory.write_root_key(&root.expose_text()).map_err(UnlockError::Write)
    }
}

/// The key backends outside this process. One that is away is no reason not to start.
fn remote_keys(config: &Config) -> Result<BTreeMap<KeyBackendKind, Arc<dyn KeyBackend>>, OpenError> {
    let mut remote = BTreeMap::<_, Arc<dyn KeyBackend>>::new();
    if let Some(settings) = &config.vault {
        let kind = KeyBackendKind::Vault;
        let keys = VaultKeys::new(settings).map_err(|error| OpenError::KeyBackend(kind, error.into()))?;
        remote.insert(kind, Arc::new(keys));
    }
    if let Some(settings) = &config.pkcs11 {
        let kind = KeyBackendKind::Pkcs11;
        let keys = Pkcs11Keys::open(settings).map_err(|error| OpenError::KeyBackend(kind, error.into()))?;
        remote.insert(kind, Arc::new(keys));
    }
    Ok(remote)
}

async fn first_operator(authority: &Authority, store: &Sqlite) -> Result<OperatorCredentials, InitError> {
    let name: OperatorName =
        FIRST_OPERATOR.parse().map_err(|error: secretfs_wire::InvalidName| InitError::Keys(error.into()))?;
    let now = now();
    store.create_operator(&name, now).await.map_err(|error| InitError::Store(error.into()))?;
    let (certificate, key) =
        authority.issue_operator(&name, now).map_err(|error| InitError::Keys(error.into()))?;
    Ok(OperatorCredentials { name, certificate, key, ca: authority.pem().to_owned() })
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for FirstSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstSteps").field("operator", &self.operator).finish_non_exhaustive()
    }
}

impl fmt::Debug for OperatorCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorCredentials").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    #[tokio::test]
    async fn init_open_lock_and_unlock() {
        let parent = tempfile::tempdir().expect("a directory");
        let data_dir = parent.path().join("manager");
        let raw = RawConfig { data_dir: Some(data_dir.clone()), ..RawConfig::default() };
        let config = raw.check().expect("a configuration");
        assert!(matches!(Manager::open(&config).await, Err(OpenError::DataDir(_))));

        let first = Manager::init(&config).await.expect("a new manager");
        assert!(!format!("{first:?}").contains(first.recovery_key.as_str()));
        assert!(matches!(Manager::init(&config).await, Err(InitError::DataDir(_))));

        let manager = Manager::open(&config).await.expect("opened");
        assert!(manager.store.operator_exists(&first.operator.name).await.expect("asked"));
        assert!(matches!(Manager::open(&config).await, Err(OpenError::DataDir(_))), "one at a time");
        drop(manager);
        let already = Manager::unlock(&config, &first.recovery_key).await;
        assert!(matches!(already, Err(UnlockError::NotLocked)));

        std::fs::remove_file(data_dir.join("root.key")).expect("locked");
        assert!(matches!(Manager::open(&config).await, Err(OpenError::Locked(_))));
        let typo = Manager::unlock(&config, &first.recovery_key[1..]).await;
        assert!(matches!(typo, Err(UnlockError::Text(_))));
        let stranger = RootKey::generate().expect("a key").expose_text();
        let stranger = Manager::unlock(&config, &stranger).await;
        assert!(matches!(stranger, Err(UnlockError::WrongKey(_))));
        Manager::unlock(&config, &first.recovery_key).await.expect("unlocked");
        Manager::open(&config).await.expect("opened again");
    }

    #[tokio::test]
    async fn a_key_backend_that_cannot_be_used_is_said_by_name() {
        let parent = tempfile::tempdir().expect("a directory");
        let toml = "[pkcs11]\nmodule = '/no/such.so'\ntoken = 'secretfs'\npin_file = '/no/such/pin'";
        let mut raw = RawConfig::from_toml(toml).expect("settings");
        raw.data_dir = Some(parent.path().join("manager"));
        let config = raw.check().expect("a configuration");
        Manager::init(&config).await.expect("a new manager");
        let error = Manager::open(&config).await.expect_err("no PIN and no module");
        assert_eq!(error.to_string(), "cannot use key backend pkcs11");
        let said = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        assert!(said.map(ToString::to_string).any(|text| text.contains("/no/such/pin")), "{error:?}");
    }
}
