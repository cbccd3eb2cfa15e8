//! What nodes report of the versions they have, and what an operator is told of it.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use secretfs_wire::VersionId;
use secretfs_wire::api::{
    HeldVersion, REPORT_MAX_VERSIONS, SecretDetails, SecretUsage, UsageReport, VersionInUse,
};
use serde_json::json;

use crate::authn::NodeIdentity;
use crate::testing::{Answer, TestManager, node_peer};

struct Scene {
    manager: TestManager,
    node: NodeIdentity,
}

impl Scene {
    /// `web` has `db` and runs on `node-a`, which is there.
    async fn new() -> Self {
        let manager = TestManager::start().await;
        let node = manager.join("prod", "node-a", false).await;
        let scene = Self { manager, node };
        scene.put("db").await;
        scene.operate("services/web", json!({})).await;
        scene.operate("services/web/attachments", json!({ "secret": "db" })).await;
        scene.operate("services/web/assignments", json!({ "node": "node-a" })).await;
        scene
    }

    async fn put(&self, path: &str) {
        let path = format!("/v1/environments/prod/secrets/{path}");
        // Another value each time, or else it would be no rotation.
        let value = VersionId::random().to_string();
        let answer = self.manager.call(&TestManager::operator(), Method::POST, &path, value).await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
    }

    async fn operate(&self, path: &str, body: serde_json::Value) {
        let path = format!("/v1/environments/prod/{path}");
        let answer = self.manager.post(Some(&TestManager::operator()), &path, &body).await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
    }

    /// The id of the version of `db` that the node sees.
    async fn current(&self) -> VersionId {
        let published = self.manager.app.store.published(&self.node.environment).await.expect("published");
        published.services[0].targets[0].version_id.parse().expect("an id")
    }

    async fn rotate(&self) -> (VersionId, VersionId) {
        let old = self.current().await;
        self.put("db/versions").await;
        (old, self.current().await)
    }

    async fn report(&self, node: &NodeIdentity, report: &UsageReport) -> Answer {
        self.manager.post(Some(&node_peer(node)), "/v1/node/usage", report).await
    }

    async fn reported(&self, report: UsageReport) {
        let answer = self.report(&self.node, &report).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    }

    async fn details(&self) -> SecretDetails {
        let path = "/v1/environments/prod/secrets/db";
        self.manager.call(&TestManager::operator(), Method::GET, path, Body::empty()).await.json()
    }

    /// What the one node has that the secret is for.
    async fn usage(&self) -> SecretUsage {
        let [usage] = &self.details().await.usage[..] else { panic!("one node") };
        usage.clone()
    }
}

fn served(ids: impl Into<Vec<VersionId>>) -> UsageReport {
    UsageReport { whole: true, served: ids.into(), ..UsageReport::default() }
}

fn held(version_id: VersionId, handles: u64) -> UsageReport {
    UsageReport { held: vec![HeldVersion { version_id, handles }], ..UsageReport::default() }
}

#[tokio::test]
async fn a_node_is_unknown_until_it_is_there_and_reports() {
    let scene = Scene::new().await;
    let usage = scene.usage().await;
    assert_eq!((usage.node.as_str(), usage.assigned, usage.connected), ("node-a", true, false));
    assert_eq!((usage.reported, usage.version, usage.old), (None, None, vec![]));
    let request = Request::post("/v1/node/changes").header("content-type", "application/json");
    let request = request.body(Body::from("{}")).expect("a request");
    let stream = scene.manager.send(Some(&node_peer(&scene.node)), request).await;
    let usage = scene.usage().await;
    assert!(usage.connected && usage.is_unknown(), "{usage:?}");
    scene.reported(served([scene.current().await])).await;
    let usage = scene.usage().await;
    assert!(usage.version == Some(1) && usage.has_only(1), "{usage:?}");
    drop(stream);
    let usage = scene.usage().await;
    assert!(usage.is_unknown() && usage.version == Some(1), "what it said last: {usage:?}");
}

#[tokio::test]
async fn reports_add_up_and_may_be_repeated() {
    let scene = Scene::new().await;
    scene.reported(served([scene.current().await])).await;
    let (old, new) = scene.rotate().await;
    assert_eq!(scene.usage().await.version, Some(1), "it has not said that it shows it");
    let change = UsageReport { gone: vec![old], served: vec![new], ..held(old, 3) };
    for _ in 0..2 {
        scene.reported(change.clone()).await;
        let usage = scene.usage().await;
        assert_eq!((usage.version, usage.old), (Some(2), vec![VersionInUse { version: 1, handles: 3 }]));
    }
    scene.reported(held(old, 1)).await;
    assert_eq!(scene.usage().await.old, [VersionInUse { version: 1, handles: 1 }]);
    scene.reported(held(old, 0)).await;
    assert_eq!(scene.usage().await.old, []);
    // Everything anew: what is not in it is over.
    scene.reported(held(old, 1)).await;
    scene.reported(served([new])).await;
    assert_eq!(scene.usage().await.old, []);
    scene.operate("secrets/db/rollback", json!({})).await;
    scene.reported(held(new, 1)).await;
    assert_eq!(scene.usage().await.old, [VersionInUse { version: 2, handles: 1 }], "newer, and not current");
}

#[tokio::test]
async fn who_holds_what_is_no_longer_assigned_is_shown_until_it_is_closed() {
    let scene = Scene::new().await;
    scene.reported(served([scene.current().await])).await;
    let (old, _) = scene.rotate().await;
    let path = "/v1/environments/prod/services/web/attachments/db";
    scene.manager.call(&TestManager::operator(), Method::DELETE, path, Body::empty()).await;
    let usage = scene.usage().await;
    assert!(!usage.assigned && usage.version == Some(1), "it has not shown that yet: {usage:?}");
    scene.reported(UsageReport { gone: vec![old], ..held(old, 2) }).await;
    let usage = scene.usage().await;
    assert_eq!((usage.version, usage.old), (None, vec![VersionInUse { version: 1, handles: 2 }]));
    scene.reported(held(old, 0)).await;
    assert!(scene.details().await.usage.is_empty());
    // A secret that is made again counts from 1 again, and nobody has it.
    scene.reported(served([old])).await;
    let path = "/v1/environments/prod/secrets/db";
    scene.manager.call(&TestManager::operator(), Method::DELETE, path, Body::empty()).await;
    scene.put("db").await;
    scene.operate("services/web/attachments", json!({ "secret": "db" })).await;
    assert_eq!(scene.usage().await.version, None);
}

#[tokio::test]
async fn a_node_speaks_for_itself_and_of_its_environment_alone() {
    let scene = Scene::new().await;
    scene.reported(served([scene.current().await])).await;
    let stranger = scene.manager.join("dev", "node-a", false).await;
    let lie = UsageReport { whole: true, ..held(scene.current().await, 9) };
    assert_eq!(scene.report(&stranger, &lie).await.status, StatusCode::NO_CONTENT);
    let unknown = served([VersionId::random()]);
    scene.reported(UsageReport { whole: false, ..unknown }).await;
    let usage = scene.usage().await;
    assert_eq!((usage.version, usage.old), (Some(1), vec![]));
    let too_many = served(vec![VersionId::random(); REPORT_MAX_VERSIONS + 1]);
    assert_eq!(scene.report(&scene.node, &too_many).await.status, StatusCode::BAD_REQUEST);
    let (peer, nonsense) = (node_peer(&scene.node), json!({ "served": ["0000000000000000"] }));
    let nonsense = scene.manager.post(Some(&peer), "/v1/node/usage", &nonsense).await;
    assert_eq!(nonsense.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_revoked_node_does_not_count() {
    let scene = Scene::new().await;
    scene.reported(held(scene.current().await, 1)).await;
    scene.operate("nodes/node-a/revoke", json!({})).await;
    assert!(scene.details().await.usage.is_empty());
    assert_eq!(scene.report(&scene.node, &served([])).await.status, StatusCode::UNAUTHORIZED);
}
