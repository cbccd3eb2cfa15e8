//! What a change stream says, and when it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use secretfs_wire::api::{Assignment, Attach, ChangeLabels};
use secretfs_wire::audit::AuditMode;
use secretfs_wire::manifest::RawManifest;
use secretfs_wire::stream::{Cursor, Received, Replica, StreamMessage};
use secretfs_wire::{Ownership, SecretBytes};
use tokio::time::timeout;

use crate::app::{NewValue, Speaker};
use crate::authn::NodeIdentity;
use crate::listener::PeerConnection;
use crate::testing::TestManager;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// A daemon on a connection of its own.
fn speaker() -> Speaker {
    Speaker { instance: None, address: None, connection: PeerConnection::now() }
}

type Messages = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

struct Scene {
    manager: TestManager,
    node: NodeIdentity,
    replica: Replica,
    cursor: Cursor,
    messages: Messages,
}

impl Scene {
    /// `web` has `db` and runs on the node; `other` has nothing and runs nowhere.
    async fn new() -> Self {
        let manager = TestManager::start().await;
        let node = manager.join("prod", "node-a", false).await;
        let (app, prod) = (&manager.app, &node.environment);
        let value = SecretBytes::new(b"value".to_vec()).expect("a value");
        let db = "db".parse().expect("a name");
        app.create_secret(prod, db, Default::default(), NewValue::Given(value)).await.expect("created");
        for service in ["web", "other"] {
            app.create_service(prod, &service.parse().expect("a name")).await.expect("created");
        }
        let web = "web".parse().expect("a name");
        app.attach(prod, &web, attach("db")).await.expect("attached");
        app.assign(prod, &web, &Assignment::Node(node.name.clone())).await.expect("assigned");
        let replica = Replica::default();
        let (messages, cursor) = follow(&manager, &node, &replica, 60).await;
        let mut scene = Self { manager, node, replica, cursor, messages };
        assert_eq!(scene.receive().await, Some(Received::Changed), "the manifest comes at once");
        assert_eq!(scene.replica.manifest().services.len(), 1);
        scene
    }

    async fn next(&mut self) -> Option<StreamMessage> {
        let line = timeout(DEADLINE, self.messages.next()).await.expect("in time")?;
        Some(serde_json::from_slice(&line).expect("a message"))
    }

    async fn receive(&mut self) -> Option<Received> {
        let message = self.next().await?;
        Some(self.replica.receive(&mut self.cursor, message).expect("the next message"))
    }

    /// Exactly one change, and then silence.
    async fn expect_manifest(&mut self, what: &str) -> RawManifest {
        assert_eq!(self.receive().await, Some(Received::Changed), "{what}");
        self.expect_silence(what).await;
        self.replica.manifest()
    }

    /// A stream looks at changes before it looks at the clock, so a heartbeat says that there is none.
    async fn expect_silence(&mut self, what: &str) {
        let next = self.next().await;
        assert!(matches!(&next, Some(StreamMessage { change: None, .. })), "{what}: {next:?}");
        let received = self.replica.receive(&mut self.cursor, next.expect("a message"));
        assert_eq!(received, Ok(Received::Unchanged));
    }
}

fn attach(secret: &str) -> Attach {
    Attach {
        secret: secret.parse().expect("a name"),
        target: None,
        ownership: Ownership::default(),
        audit: AuditMode::default(),
    }
}

async fn follow(
    manager: &TestManager,
    node: &NodeIdentity,
    replica: &Replica,
    seconds: i64,
) -> (Messages, Cursor) {
    let until = Timestamp::now() + SignedDuration::from_secs(seconds);
    let (follow, cursor) = replica.begin();
    let messages = manager.app.follow(node.clone(), until, &follow, &speaker()).await.expect("a stream");
    (Box::pin(messages), cursor)
}

fn value() -> NewValue {
    NewValue::Given(SecretBytes::new(b"another".to_vec()).expect("a value"))
}

#[tokio::test]
async fn one_message_for_each_change_that_the_node_sees() {
    let mut scene = Scene::new().await;
    let (app, prod) = (scene.manager.app.clone(), scene.node.environment.clone());
    let (web, other, db) =
        ("web".parse().expect("a name"), "other".parse().expect("a name"), "db".parse().expect("a name"));

    app.rotate_secret(&prod, &db, value()).await.expect("rotated");
    let manifest = scene.expect_manifest("a rotation").await;
    assert_eq!(manifest.services[0].targets[0].version, 2);

    let ownership = Ownership { uid: 5, ..Ownership::default() };
    app.attach(&prod, &web, Attach { ownership, ..attach("db") }).await.expect("attached");
    assert_eq!(scene.expect_manifest("an owner").await.services[0].targets[0].uid, 5);

    app.assign(&prod, &other, &Assignment::Selector("role=web".parse().expect("a selector")))
        .await
        .expect("assigned");
    scene.expect_silence("an assignment to others").await;
    let change = ChangeLabels { set: "role=web".parse().expect("labels"), remove: vec![] };
    app.label_node(&prod, &scene.node.name, &change).await.expect("labelled");
    assert_eq!(scene.expect_manifest("a label").await.services.len(), 2);

    // Two changes before the stream looks are one manifest, with both.
    app.rotate_secret(&prod, &db, value()).await.expect("rotated");
    app.detach(&prod, &web, &db, None).await.expect("detached");
    assert!(scene.expect_manifest("two changes").await.services[1].targets.is_empty());
}

#[tokio::test]
async fn who_comes_back_is_told_the_difference_and_nothing_if_there_is_none() {
    let mut scene = Scene::new().await;
    let (app, prod) = (scene.manager.app.clone(), scene.node.environment.clone());
    let by_label = Assignment::Selector("role=web".parse().expect("a selector"));
    let change = ChangeLabels { set: "role=web".parse().expect("labels"), remove: vec![] };
    app.label_node(&prod, &scene.node.name, &change).await.expect("labelled");
    let other = "other".parse().expect("a name");
    app.assign(&prod, &other, &by_label).await.expect("assigned");
    assert_eq!(scene.expect_manifest("an assignment").await.services.len(), 2);
    let revision = scene.replica.manifest().revision;

    (scene.messages, scene.cursor) = follow(&scene.manager, &scene.node, &scene.replica, 60).await;
    let first = scene.next().await.expect("a message");
    assert_eq!(first.change, Some(Default::default()), "nothing is sent again");

    // While it was away: one changed, one went, one came.
    app.rotate_secret(&prod, &"db".parse().expect("a name"), value()).await.expect("rotated");
    app.unassign(&prod, &other, &by_label).await.expect("unassigned");
    app.create_service(&prod, &"new".parse().expect("a name")).await.expect("created");
    let here = Assignment::Node(scene.node.name.clone());
    app.assign(&prod, &"new".parse().expect("a name"), &here).await.expect("assigned");
    (scene.messages, scene.cursor) = follow(&scene.manager, &scene.node, &scene.replica, 60).await;
    assert_eq!(scene.receive().await, Some(Received::Changed));
    let manifest = scene.replica.manifest();
    let names: Vec<_> = manifest.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!((names, manifest.services[1].targets[0].version), (vec!["new", "web"], 2));
    assert!(manifest.revision > revision);
}

#[tokio::test]
async fn nothing_for_a_change_that_the_node_does_not_see() {
    let mut scene = Scene::new().await;
    let (app, prod) = (scene.manager.app.clone(), scene.node.environment.clone());
    let hidden = "hidden".parse().expect("a name");
    app.create_secret(&prod, hidden, Default::default(), value()).await.expect("created");
    scene.expect_silence("a secret that is attached nowhere").await;
    app.attach(&prod, &"other".parse().expect("a name"), attach("hidden")).await.expect("attached");
    scene.expect_silence("a service that runs elsewhere").await;
    app.attach(&prod, &"web".parse().expect("a name"), attach("db")).await.expect("attached");
    scene.expect_silence("an attachment that is there already").await;
    scene.manager.join("prod", "node-b", false).await;
    scene.expect_silence("another node").await;
}

#[tokio::test]
async fn a_stream_ends_with_the_node_its_certificate_and_the_manager() {
    let mut revoked = Scene::new().await;
    let node = revoked.manager.app.node(&revoked.node.environment, &revoked.node.name);
    assert!(node.await.expect("the node").connected);
    let app = &revoked.manager.app;
    app.revoke_node(&revoked.node.environment, &revoked.node.name).await.expect("revoked");
    assert!(revoked.next().await.is_none(), "revoked");

    let mut expired = Scene::new().await;
    (expired.messages, expired.cursor) = follow(&expired.manager, &expired.node, &expired.replica, 0).await;
    assert_eq!(expired.receive().await, Some(Received::Unchanged));
    assert!(expired.next().await.is_none(), "its certificate has ended");

    let mut stopped = Scene::new().await;
    stopped.manager.app.stopping.cancel();
    assert!(stopped.next().await.is_none(), "the manager stops");
    drop(stopped.messages);
    let node = stopped.manager.app.node(&stopped.node.environment, &stopped.node.name);
    assert!(!node.await.expect("the node").connected);
}

#[tokio::test]
async fn a_forbid_ends_the_streams_that_it_is_about() {
    let directory = tempfile::tempdir().expect("a directory");
    let manager = TestManager::start_with_policies(directory.path()).await;
    let looking = tokio::spawn(Arc::clone(&manager.app.authorizer).follow(directory.path().to_owned()));
    let (here, there) = (manager.join("prod", "a", false).await, manager.join("dev", "b", false).await);
    let replica = Replica::default();
    let (mut forbidden, _) = follow(&manager, &here, &replica, 60).await;
    let (mut allowed, _) = follow(&manager, &there, &replica, 60).await;

    let forbid = r#"@id("acme/closed") forbid (principal, action in Action::"serve", resource)
        when { principal in Environment::"prod" };"#;
    std::fs::write(directory.path().join("closed.cedar"), forbid).expect("a file");
    let ended = async { while forbidden.next().await.is_some() {} };
    timeout(DEADLINE, ended).await.expect("the stream ends");
    for _ in 0..10 {
        assert!(
            timeout(DEADLINE, allowed.next()).await.expect("in time").is_some(),
            "it is not about this one"
        );
    }
    looking.abort();
}
