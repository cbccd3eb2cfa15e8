//! Keys change, and their backend does not always take part.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use secretfs_wire::api::{Assignment, Attach, EnvelopeRequest, MigrateKey, RetiredKey, RewrapStep};
use secretfs_wire::audit::AuditMode;
use secretfs_wire::envelope::Salt;
use secretfs_wire::{
    EnvironmentName, KeyBackendKind, KeyName, KeyReference, Ownership, SecretBytes, SessionId,
};

use crate::app::{App, NewValue};
use crate::error::Error;
use crate::keys::{BackendFault, Context, Key, KeyBackend, KeyDescription, KeyError, LocalKeys, Wrapped};
use crate::testing::TestManager;

/// What goes wrong with the next calls of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Away,
    NotAllowed,
    Missing,
}

/// A backend that fails when it is told to.
struct Unsteady {
    keys: LocalKeys,
    faults: Mutex<HashMap<&'static str, (Fault, usize)>>,
}

impl Unsteady {
    fn new() -> Arc<Self> {
        Arc::new(Self { keys: LocalKeys::in_memory(), faults: Mutex::default() })
    }

    fn fail(&self, operation: &'static str, fault: Fault, times: usize) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).insert(operation, (fault, times));
    }

    fn check(&self, operation: &'static str) -> Result<(), KeyError> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((fault, times)) = faults.get_mut(operation).filter(|(_, times)| *times > 0) else {
            return Ok(());
        };
        *times -= 1;
        let backend = KeyBackendKind::Vault;
        Err(match fault {
            Fault::Away => {
                KeyError::Backend { backend, fault: BackendFault::Unavailable("it is away".to_owned(), None) }
            }
            Fault::NotAllowed => {
                KeyError::Backend { backend, fault: BackendFault::NotAllowed("do it there".to_owned()) }
            }
            Fault::Missing => KeyError::Missing("prod:1".to_owned()),
        })
    }
}

#[async_trait]
impl KeyBackend for Unsteady {
    async fn ensure(&self, name: &KeyName) -> Result<(), KeyError> {
        self.keys.ensure(name).await
    }

    async fn wrap(&self, name: &KeyName, data_keys: &[(&Context, &Key)]) -> Result<Vec<Wrapped>, KeyError> {
        self.keys.wrap(name, data_keys).await
    }

    async fn unwrap(
        &self,
        name: &KeyName,
        wrapped: &[(&Context, &Wrapped)],
    ) -> Result<Vec<Result<Key, KeyError>>, KeyError> {
        self.check("unwrap")?;
        self.keys.unwrap(name, wrapped).await
    }

    async fn rotate(&self, name: &KeyName) -> Result<u64, KeyError> {
        self.keys.rotate(name).await
    }

    async fn describe(&self, name: &KeyName) -> Result<KeyDescription, KeyError> {
        self.check("describe")?;
        self.keys.describe(name).await
    }

    async fn retire(&self, name: &KeyName, below: u64) -> Result<(), KeyError> {
        self.check("retire")?;
        self.keys.retire(name, below).await
    }

    async fn health(&self) -> Result<(), KeyError> {
        Ok(())
    }
}

fn prod() -> EnvironmentName {
    "prod".parse().expect("a name")
}

fn value(text: &str) -> NewValue {
    NewValue::Given(SecretBytes::new(text.as_bytes().to_vec()).expect("a value"))
}

/// A manager whose `prod` has its key in an unsteady backend, with two secrets.
async fn start() -> (TestManager, Arc<Unsteady>) {
    let backend = Unsteady::new();
    let remote = [(KeyBackendKind::Vault, Arc::clone(&backend) as Arc<dyn KeyBackend>)];
    let manager = TestManager::start_with(remote.into()).await;
    migrate(&manager.app, KeyBackendKind::Vault).await;
    for name in ["db", "api"] {
        let (environment, labels) = (prod(), Default::default());
        let created =
            manager.app.create_secret(&environment, name.parse().expect("a name"), labels, value(name));
        created.await.expect("a secret");
    }
    (manager, backend)
}

async fn migrate(app: &App, to: KeyBackendKind) {
    app.migrate_key(&prod(), MigrateKey { to, key_name: None }).await.expect("another key");
}

async fn rewrap(app: &App) -> u64 {
    let step = RewrapStep { after: None, limit: 100 };
    let done = app.rewrap_keys(&prod(), step).await.expect("moved");
    assert_eq!((done.remaining, done.next), (0, None));
    done.moved
}

async fn retire(app: &App) -> Vec<(KeyBackendKind, Option<u64>)> {
    let retired = app.retire_keys(&prod()).await.expect("retired").into_iter();
    retired.map(|RetiredKey { key, below }| (key.backend, below)).collect()
}

#[tokio::test]
async fn a_retirement_that_a_backend_did_not_take_is_finished_by_the_next() {
    let (manager, backend) = start().await;
    let app = &manager.app;
    assert_eq!(retire(app).await, [(KeyBackendKind::Local, None)], "the key that it began with");
    app.rotate_key(&prod()).await.expect("rotated");
    assert_eq!(rewrap(app).await, 2);
    let key = "prod".parse().expect("a name");
    for fault in [Fault::Away, Fault::NotAllowed] {
        backend.fail("retire", fault, 1);
        app.retire_keys(&prod()).await.expect_err("not destroyed");
        assert_eq!(backend.keys.describe(&key).await.expect("described").versions.len(), 2);
    }
    assert_eq!(retire(app).await, [(KeyBackendKind::Vault, Some(2))]);
    assert_eq!(backend.keys.describe(&key).await.expect("described").versions.len(), 1);
    assert_eq!(retire(app).await, [], "and that is all");

    migrate(app, KeyBackendKind::Local).await;
    assert_eq!(rewrap(app).await, 2);
    backend.fail("retire", Fault::Away, 1);
    app.retire_keys(&prod()).await.expect_err("it is still to be destroyed");
    backend.fail("retire", Fault::NotAllowed, 1);
    assert_eq!(retire(app).await, [(KeyBackendKind::Vault, None)], "its backend's owner does it");
    assert_eq!(retire(app).await, []);
}

#[tokio::test]
async fn a_key_that_does_not_unwrap_is_never_an_environments() {
    let backend = Unsteady::new();
    let remote = [(KeyBackendKind::Vault, Arc::clone(&backend) as Arc<dyn KeyBackend>)];
    let manager = TestManager::start_with(remote.into()).await;
    backend.fail("unwrap", Fault::NotAllowed, 1);
    let asked = MigrateKey { to: KeyBackendKind::Vault, key_name: None };
    manager.app.migrate_key(&prod(), asked).await.expect_err("it has proved nothing");
    let key = manager.app.store.environment(&prod()).await.expect("prod").key;
    assert_eq!(key.backend, KeyBackendKind::Local);
}

#[tokio::test]
async fn what_is_in_use_is_not_retired() {
    let (manager, _) = start().await;
    let app = &manager.app;
    app.rotate_key(&prod()).await.expect("rotated");
    app.rotate_key(&prod()).await.expect("rotated");
    app.create_secret(&prod(), "third".parse().expect("a name"), Default::default(), value("third"))
        .await
        .expect("under version 3");
    assert_eq!(retire(app).await, [(KeyBackendKind::Local, None)]);
    let step = RewrapStep { after: None, limit: 1 };
    let first = app.rewrap_keys(&prod(), step).await.expect("one");
    assert_eq!((first.moved, first.remaining, first.next.is_some()), (1, 1, true));
    assert_eq!(retire(app).await, [], "one is left under version 1");
    let rest = app.rewrap_keys(&prod(), RewrapStep { after: first.next, limit: 1 }).await.expect("the other");
    assert_eq!((rest.moved, rest.remaining), (1, 0));
    assert_eq!(retire(app).await, [(KeyBackendKind::Vault, Some(3))]);
    for limit in [0, 1001] {
        let refused = app.rewrap_keys(&prod(), RewrapStep { after: None, limit }).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{limit}");
    }
}

#[tokio::test]
async fn keys_are_listed_also_when_their_backend_is_away() {
    let (manager, backend) = start().await;
    backend.fail("describe", Fault::Away, 1);
    let listed = manager.app.keys().await.expect("listed");
    let keys = listed.iter().find(|keys| keys.environment == prod()).expect("prod");
    assert_eq!(
        keys.key,
        KeyReference { backend: KeyBackendKind::Vault, name: "prod".parse().expect("a name") }
    );
    assert_eq!(keys.newest, None);
    assert!(keys.problem.as_ref().is_some_and(|problem| problem.contains("it is away")), "{keys:?}");
    let known: Vec<_> = keys
        .versions
        .iter()
        .map(|version| (version.key.backend, version.version, version.data_keys))
        .collect();
    assert_eq!(known, [(KeyBackendKind::Vault, 1, 2), (KeyBackendKind::Local, 1, 0)]);
}

#[tokio::test]
async fn a_read_that_meets_a_retirement_looks_again_once() {
    let (manager, backend) = start().await;
    let (app, web) = (&manager.app, "web".parse().expect("a name"));
    let node = manager.join("prod", "node-a", false).await;
    app.create_service(&prod(), &web).await.expect("a service");
    let attach = Attach {
        secret: "db".parse().expect("a name"),
        target: None,
        ownership: Ownership::default(),
        audit: AuditMode::default(),
    };
    app.attach(&prod(), &web, attach).await.expect("attached");
    app.assign(&prod(), &web, &Assignment::Node(node.name.clone())).await.expect("assigned");
    let delivery = app.store.delivery(&prod(), node.id, &web, &"db".parse().expect("a name")).await;
    let asked = EnvelopeRequest {
        session: SessionId::random(),
        salt: Salt::random().expect("randomness"),
        service: web,
        target: "db".parse().expect("a name"),
        version_id: delivery.expect("asked").expect("there").id,
    };
    backend.fail("unwrap", Fault::Missing, 1);
    let (_, read) = app.delivered(&node, &asked).await.expect("the second look finds it");
    assert_eq!(read.expose_secret(), b"db");
    backend.fail("unwrap", Fault::Missing, 2);
    let lost = app.delivered(&node, &asked).await.map(|_| ()).expect_err("it is lost");
    assert!(matches!(lost, Error::Key(KeyError::Missing(_))), "{lost:?}");
    backend.fail("unwrap", Fault::Away, 1);
    let away = app.delivered(&node, &asked).await.map(|_| ()).expect_err("no second time");
    assert!(away.to_string().contains("it is away"), "{away}");
}
