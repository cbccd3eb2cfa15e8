//! Making and opening a manager.

use std::fmt;
use std::io;
use std::sync::Arc;

use secretfs_wire::audit::{Actor, Event, Outcome};
use secretfs_wire::{Action, Grant, OperatorId, OperatorName, Role};
use zeroize::Zeroizing;

use crate::app::now;
use crate::audit::{Audit, AuditSettings, OpenAuditError, SignedMark};
use crate::ca::{Authority, CertificateRequest};
use crate::config::Config;
use crate::data_dir::{self, DataDir};
use crate::error::Cause;
use crate::keys::{Keyring, LocalKeys, RemoteKeys, RootKey, remote_keys};
use crate::seal::{self, AutoSources, SealPlan, UnlockMeans};
use crate::sealed::SealedManager;
use crate::store::{AuditLog, AuditMark as _, NewOperator, Operators as _, Sqlite, SqliteAudit, Store};

const CA_KEY_LABEL: &str = "secretfs CA key v1";
const CA_KEY_NAME: &str = "ca";
const FIRST_OPERATOR: &str = "admin";

/// An opened manager: its store, its keys and its CA. [`run`](crate::run) serves it.
pub struct Manager {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Arc<Keyring>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) audit: Arc<Audit>,
    /// What is to be recorded of its unlocking.
    pub(crate) unlocked: Vec<Event>,
}

/// A manager as it is found in its data directory.
pub enum Opening {
    /// It can serve.
    Unlocked(Box<Manager>),
    /// It waits for an unlock key.
    Sealed(Box<SealedManager>),
}

/// What a new manager has to say, once.
pub struct FirstSteps {
    /// The first operator's credentials.
    pub operator: OperatorCredentials,
    /// With these and a backup of the data directory everything can be read, and without them
    /// nothing. To be kept apart from both.
    pub unlock: UnlockMeans,
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
    Write(#[source] Cause),
    /// Keys or certificates cannot be made.
    #[error("cannot make keys and certificates")]
    Keys(#[source] Cause),
    /// A key backend's settings cannot be used, or it does not wrap the root key.
    #[error("cannot seal the root key")]
    KeyBackend(#[source] Cause),
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
    /// There is no seal to open, or a damaged one.
    #[error("cannot read the seal")]
    Seal(#[source] Cause),
    /// A file cannot be read.
    #[error("cannot read the keys")]
    Read(#[source] io::Error),
    /// The root key is not the one of this manager, or the CA is damaged.
    #[error("the root key does not open this manager's CA")]
    Keys(#[source] Cause),
    /// The store cannot be opened or migrated.
    #[error("cannot open the store")]
    Store(#[source] Cause),
    /// A key backend's settings cannot be used.
    #[error("cannot set up the key backends")]
    KeyBackend(#[source] Cause),
}

impl Manager {
    /// Makes a new manager in an empty or absent data directory: a root key, sealed as planned, a CA, a
    /// store and a first operator.
    ///
    /// # Errors
    /// When the directory is not empty, or something cannot be made or written.
    pub async fn init(config: &Config, plan: &SealPlan) -> Result<FirstSteps, InitError> {
        let directory =
            DataDir::create(&config.data_dir).map_err(|error| InitError::DataDir(error.into()))?;
        let root = RootKey::generate().map_err(|error| InitError::Keys(error.into()))?;
        let remote = remote_keys(config).map_err(|error| InitError::KeyBackend(error.into()))?;
        let sources = AutoSources::new(config, remote);
        let seal = seal::make(&root, plan, None, &sources)
            .await
            .map_err(|error| InitError::KeyBackend(error.into()))?;
        let (authority, pkcs8) = Authority::create(now()).map_err(|error| InitError::Keys(error.into()))?;
        let sealed =
            root.seal(CA_KEY_LABEL, CA_KEY_NAME, &pkcs8).map_err(|error| InitError::Keys(error.into()))?;
        let store = Sqlite::open(&directory.store()).await.map_err(|error| InitError::Store(error.into()))?;
        let operator = first_operator(config, &authority, &store).await?;
        store.close().await;

        directory.write_ca(authority.pem(), &sealed).map_err(|error| InitError::Write(error.into()))?;
        // Last: a directory that has it is whole.
        let unlock = seal.keep(&directory, &sources).map_err(|error| InitError::Write(error.into()))?;
        Ok(FirstSteps { operator, unlock })
    }

    /// Opens the manager of a data directory, and migrates its store, if something unlocks it without
    /// an operator.
    ///
    /// # Errors
    /// When there is none, another process runs it, or something is damaged.
    pub async fn open(config: &Config) -> Result<Opening, OpenError> {
        let directory = DataDir::open(&config.data_dir).map_err(|error| OpenError::DataDir(error.into()))?;
        let remote = remote_keys(config).map_err(|error| OpenError::KeyBackend(error.into()))?;
        let sources = AutoSources::new(config, remote);
        let sealed = seal::read(&directory, &sources, |root| check(&directory, root))
            .map_err(|error| OpenError::Seal(error.into()))?;
        match sources.open(&sealed, true).await {
            Some((root, by)) => {
                let event = unlocked_by(by, Outcome::Done);
                let backends = sources.into_backends();
                Ok(Self::unlocked(config.clone(), directory, root, backends, vec![event]).await?.into())
            }
            None => {
                let sealed = SealedManager { config: config.clone(), directory, sources, sealed };
                Ok(Opening::Sealed(Box::new(sealed)))
            }
        }
    }

    /// Opens the manager of a data directory whose root key is known.
    pub(crate) async fn unlocked(
        config: Config,
        directory: DataDir,
        root: RootKey,
        remote: RemoteKeys,
        unlocked: Vec<Event>,
    ) -> Result<Self, OpenError> {
        let root = Arc::new(root);
        let Inside { store, authority, audit } = Inside::open(&config, &directory, &root).await?;
        Ok(Self {
            store: Arc::new(store),
            audit: Arc::new(audit),
            unlocked,
            keys: Arc::new(Keyring::new(
                LocalKeys::in_files(root, Arc::new(directory))
                    .map_err(|error| OpenError::Keys(error.into()))?,
                remote,
                config.data_key_lifetime,
            )),
            authority,
            config,
        })
    }

    /// Makes a manager that is gone when it is dropped: nothing is written anywhere.
    ///
    /// # Errors
    /// When keys, certificates or the store cannot be made.
    pub async fn in_memory(config: &Config) -> Result<(Self, OperatorCredentials), InitError> {
        let (authority, _) = Authority::create(now()).map_err(|error| InitError::Keys(error.into()))?;
        let store = Sqlite::in_memory().await.map_err(|error| InitError::Store(error.into()))?;
        let operator = first_operator(config, &authority, &store).await?;
        let root = RootKey::generate().map_err(|error| InitError::Keys(error.into()))?;
        let log = SqliteAudit::in_memory().await.map_err(|error| InitError::Store(error.into()))?;
        let (log, authority): (Arc<dyn AuditLog>, _) = (Arc::new(log), Arc::new(authority));
        let (root, settings) = (Arc::new(root), audit_settings(config));
        let mark = Arc::new(SignedMark::in_memory(Arc::clone(&root)));
        let audit = Audit::open(Ok(log), &store, mark, Arc::clone(&authority), root, settings).await;
        let manager = Self {
            config: config.clone(),
            store: Arc::new(store),
            keys: Arc::new(Keyring::in_memory()),
            authority,
            audit: Arc::new(audit),
            unlocked: Vec::new(),
        };
        Ok((manager, operator))
    }
}

/// What a root key opens in a data directory, beside the keys.
pub(crate) struct Inside {
    pub(crate) store: Sqlite,
    pub(crate) authority: Arc<Authority>,
    pub(crate) audit: Audit,
}

impl Inside {
    pub(crate) async fn open(
        config: &Config,
        directory: &DataDir,
        root: &Arc<RootKey>,
    ) -> Result<Self, OpenError> {
        let (pem, sealed) = directory.read_ca().map_err(OpenError::Read)?;
        let pkcs8 =
            root.open(CA_KEY_LABEL, CA_KEY_NAME, &sealed).map_err(|error| OpenError::Keys(error.into()))?;
        let authority = Authority::load(pem, &pkcs8).map_err(|error| OpenError::Keys(error.into()))?;
        let store = Sqlite::open(&directory.store()).await.map_err(|error| OpenError::Store(error.into()))?;
        let authority = Arc::new(authority);
        let log = audit_log(directory, &store).await;
        let mark = Arc::new(SignedMark::in_directory(directory.path().to_owned(), Arc::clone(root)));
        let (certifier, root, settings) = (Arc::clone(&authority), Arc::clone(root), audit_settings(config));
        let audit = Audit::open(log, &store, mark, certifier, root, settings).await;
        Ok(Self { store, authority, audit })
    }
}

/// The log of a data directory; a new one for a manager that never had one.
async fn audit_log(directory: &DataDir, store: &Sqlite) -> Result<Arc<dyn AuditLog>, OpenAuditError> {
    let file = directory.audit();
    if !file.exists() {
        if store.audit_chain().await?.is_some() {
            return Err(OpenAuditError::Missing(data_dir::AUDIT.to_owned()));
        }
        directory.create_audit().map_err(|error| OpenAuditError::Database(error.into()))?;
    }
    let log = SqliteAudit::open(&file).await.map_err(|error| OpenAuditError::Database(error.into()))?;
    Ok(Arc::new(log))
}

pub(crate) fn audit_settings(config: &Config) -> AuditSettings {
    AuditSettings {
        checkpoint_interval: config.audit_checkpoint_interval,
        key_lifetime: config.audit_key_lifetime,
    }
}

/// What is recorded of an attempt to open the seal.
pub(crate) fn unlocked_by(means: &str, outcome: Outcome) -> Event {
    let mut event = Event::new(Action::ManagerUnlock, outcome, Actor::Manager);
    event.reason = Some(means.to_owned());
    event
}

/// Whether a root key is the one of this directory's manager.
pub(crate) fn check(directory: &DataDir, root: &RootKey) -> Result<(), Cause> {
    let (_, sealed) = directory.read_ca()?;
    root.open(CA_KEY_LABEL, CA_KEY_NAME, &sealed)?;
    Ok(())
}

impl Opening {
    pub(crate) fn config(&self) -> &Config {
        match self {
            Self::Unlocked(manager) => &manager.config,
            Self::Sealed(sealed) => &sealed.config,
        }
    }
}

impl From<Manager> for Opening {
    fn from(manager: Manager) -> Self {
        Self::Unlocked(Box::new(manager))
    }
}

/// The first operator, who may do everything, with credentials that are renewed as everybody's.
async fn first_operator(
    config: &Config,
    authority: &Authority,
    store: &Sqlite,
) -> Result<OperatorCredentials, InitError> {
    let name: OperatorName =
        FIRST_OPERATOR.parse().map_err(|error: secretfs_wire::InvalidName| InitError::Keys(error.into()))?;
    let (now, id) = (now(), OperatorId::random());
    let (request, key) = CertificateRequest::generate().map_err(|error| InitError::Keys(error.into()))?;
    let lifetime = config.operator_certificate_lifetime;
    let (certificate, expires) = authority
        .issue_operator(&name, Some(id), &request, now, lifetime)
        .map_err(|error| InitError::Keys(error.into()))?;
    let new = NewOperator {
        name: name.clone(),
        id,
        scope: None,
        grants: vec![Grant { role: Role::Admin, environment: None }],
        created: now,
        certificate_expires: Some(expires),
        enrolment: None,
    };
    store.add_operator(new).await.map_err(|error| InitError::Store(error.into()))?;
    Ok(OperatorCredentials { name, certificate, key, ca: authority.pem().to_owned() })
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlocked(_) => "Unlocked(..)",
            Self::Sealed(_) => "Sealed(..)",
        })
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

    use crate::seal::{AutoUnlock, Split, StoppedManager};

    fn config(data_dir: &std::path::Path) -> Config {
        let raw = RawConfig { data_dir: Some(data_dir.to_owned()), ..RawConfig::default() };
        raw.check().expect("a configuration")
    }

    fn automatic() -> SealPlan {
        SealPlan { split: None, auto: Some(vec![AutoUnlock::KeyFile]) }
    }

    #[tokio::test]
    async fn init_and_open() {
        let parent = tempfile::tempdir().expect("a directory");
        let data_dir = parent.path().join("manager");
        let config = config(&data_dir);
        assert!(matches!(Manager::open(&config).await, Err(OpenError::DataDir(_))));

        let first = Manager::init(&config, &automatic()).await.expect("a new manager");
        let key = first.unlock.key.as_ref().expect("a key");
        assert!(!format!("{first:?}").contains(key.as_str()));
        assert!(matches!(Manager::init(&config, &automatic()).await, Err(InitError::DataDir(_))));

        let opened = Manager::open(&config).await.expect("opened");
        let Opening::Unlocked(manager) = opened else { panic!("{opened:?}") };
        let operator = manager.store.operator(&first.operator.name, now()).await.expect("the first one");
        assert_eq!(operator.grants, [Grant { role: Role::Admin, environment: None }]);
        assert!(matches!(Manager::open(&config).await, Err(OpenError::DataDir(_))), "one at a time");
        drop(manager);

        std::fs::remove_file(data_dir.join("unlock.key")).expect("sealed");
        assert!(matches!(Manager::open(&config).await, Ok(Opening::Sealed(_))));
        std::fs::remove_file(data_dir.join("root.sealed")).expect("lost");
        assert!(matches!(Manager::open(&config).await, Err(OpenError::Seal(_))));
    }

    #[tokio::test]
    async fn a_directory_with_its_root_key_in_clear_opens_as_before_and_is_sealed() {
        let parent = tempfile::tempdir().expect("a directory");
        let config = config(&parent.path().join("manager"));
        let first = Manager::init(&config, &SealPlan::default()).await.expect("a new manager").unlock;
        let in_clear = seal::in_clear(
            &std::fs::read(config.data_dir.join("root.sealed")).expect("a seal"),
            &first.key.expect("a key"),
        );
        std::fs::remove_file(config.data_dir.join("root.sealed")).expect("as it was");
        std::fs::write(config.data_dir.join("root.key"), in_clear.as_bytes()).expect("as it was");

        assert!(matches!(Manager::open(&config).await, Ok(Opening::Unlocked(_))));
        assert!(!config.data_dir.join("root.key").exists());
        std::fs::remove_file(config.data_dir.join("unlock.key")).expect("removed");
        assert!(matches!(Manager::open(&config).await, Ok(Opening::Sealed(_))));
        let mut stopped = StoppedManager::begin(&config).await.expect("begun");
        assert!(stopped.give(&in_clear).is_unlocked, "by what was printed as the recovery key");
    }

    #[tokio::test]
    async fn a_new_seal_opens_by_new_keys_only() {
        let parent = tempfile::tempdir().expect("a directory");
        let config = config(&parent.path().join("manager"));
        let first = Manager::init(&config, &SealPlan::default()).await.expect("a new manager").unlock;
        let old = first.key.expect("a key");
        let before = std::fs::read(config.data_dir.join("root.sealed")).expect("a seal");

        let begin = || async { StoppedManager::begin(&config).await.expect("begun") };
        let renew = async |stopped: StoppedManager, plan| {
            let new = stopped.seal_anew(&config, &plan).await.expect("a new seal");
            let keys: Vec<String> =
                new.means().key.iter().chain(&new.means().shares).map(|key| key.to_string()).collect();
            new.keep().await.expect("in its place");
            keys
        };
        assert!(
            begin().await.seal_anew(&config, &SealPlan::default()).await.is_err(),
            "nothing has opened it"
        );
        let mut stopped = begin().await;
        assert!(!stopped.give("").is_unlocked);
        assert!(stopped.give(&old).is_unlocked);
        let split = Some(Split::new(3, 2).expect("a split"));
        let shares = renew(stopped, SealPlan { split, auto: Some(vec![AutoUnlock::KeyFile]) }).await;
        assert_eq!(shares.len(), 3);
        assert!(matches!(Manager::open(&config).await, Ok(Opening::Unlocked(_))), "by the key file");

        // Without a plan for it, what opens it by itself stays; and goes when it is to.
        renew(begin().await, SealPlan::default()).await;
        assert!(matches!(Manager::open(&config).await, Ok(Opening::Unlocked(_))));
        let last = renew(begin().await, SealPlan { split: None, auto: Some(vec![]) }).await;
        assert!(matches!(Manager::open(&config).await, Ok(Opening::Sealed(_))));
        assert!(!config.data_dir.join("unlock.key").exists());
        let mut stopped = begin().await;
        for useless in shares.iter().map(String::as_str).chain([old.as_str()]) {
            assert!(!stopped.give(useless).is_unlocked);
        }
        drop(stopped);
        assert!(begin().await.give(&last[0]).is_unlocked);
        std::fs::write(config.data_dir.join("root.sealed"), before).expect("put back");
        assert!(begin().await.give(&old).is_unlocked, "an old backup");
    }

    #[tokio::test]
    async fn a_key_backend_that_cannot_be_used_is_said_by_name() {
        let parent = tempfile::tempdir().expect("a directory");
        let toml = "[pkcs11]\nmodule = '/no/such.so'\ntoken = 'secretfs'\npin_file = '/no/such/pin'";
        let mut raw = RawConfig::from_toml(toml).expect("settings");
        raw.data_dir = Some(parent.path().join("manager"));
        let config = raw.check().expect("a configuration");
        let plan = SealPlan { split: None, auto: Some(vec![AutoUnlock::KeyFile]) };
        let without = Config { pkcs11: None, ..config.clone() };
        Manager::init(&without, &plan).await.expect("a new manager");
        let error = Manager::open(&config).await.expect_err("no PIN and no module");
        let said = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let said: Vec<_> = said.map(ToString::to_string).collect();
        assert!(said[1].contains("key backend pkcs11"), "{said:?}");
        assert!(said.iter().any(|text| text.contains("/no/such/pin")), "{said:?}");
    }

    #[tokio::test]
    async fn a_vault_need_not_be_there_but_its_settings_must_be_right() {
        let parent = tempfile::tempdir().expect("a directory");
        let config = |vault: &str| {
            let raw = RawConfig::from_toml(&format!("[vault]\nurl = 'https://127.0.0.1:1'\n{vault}"));
            let data_dir = Some(parent.path().join("manager"));
            RawConfig { data_dir, ..raw.expect("settings") }.check().expect("a configuration")
        };
        let away = config("token_file = '/nonexistent/token'");
        let plan = SealPlan { split: None, auto: Some(vec![AutoUnlock::KeyFile]) };
        Manager::init(&away, &plan).await.expect("a new manager");
        drop(Manager::open(&away).await.expect("opened"));
        for wrong in ["token_env = 'SECRETFS_TEST_NO_SUCH_TOKEN'", "ca = '/nonexistent/ca.pem'"] {
            let error = Manager::open(&config(wrong)).await.expect_err(wrong);
            assert!(matches!(error, OpenError::KeyBackend(_)), "{error:?}");
        }
    }
}
