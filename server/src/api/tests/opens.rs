//! What nodes report of opens, and what is on record of it.

use http::{Method, StatusCode};
use jiff::Timestamp;
use secretfs_wire::api::{
    Assignment, Attach, ErrorCode, LostOpens, Open, OpenReport, OpenedVersion, REPORT_MAX_OPENS,
};
use secretfs_wire::audit::{Actor, Doubt, Event, EventId, Input, Outcome, Process};
use secretfs_wire::{Action, EnvironmentName, OpenLogId, ServiceName, VersionId};

use super::audit::{new_records, outcomes};
use crate::authn::NodeIdentity;
use crate::config::RawLimitsConfig;
use crate::testing::{Answer, TestManager, node_peer};

/// A node with one file, `web/password`, that shows the secret `db`.
struct Rig {
    manager: TestManager,
    node: NodeIdentity,
    log: OpenLogId,
    /// The current version of `db`.
    version: VersionId,
    seen: u64,
}

impl Rig {
    async fn new(limits: RawLimitsConfig) -> Self {
        let manager = TestManager::start_limited(limits).await;
        let operator = TestManager::operator();
        manager.call(&operator, Method::POST, "/v1/environments/prod/secrets/db", "value").await;
        manager.call(&operator, Method::POST, "/v1/environments/prod/services/web", "").await;
        let (environment, service) = (environment(), service());
        let target = "password".parse().expect("a name");
        let attach = Attach {
            secret: "db".parse().expect("a name"),
            target: Some("password".parse().expect("a name")),
            ownership: Default::default(),
            audit: Default::default(),
        };
        manager.app.attach(&environment, &service, attach).await.expect("attached");
        let assignment = Assignment::Node("node".parse().expect("a name"));
        manager.app.assign(&environment, &service, &assignment).await.expect("assigned");
        let node = manager.join("prod", "node", false).await;
        let current = manager.app.store.delivery(&environment, node.id, &service, &target).await;
        let version = current.expect("asked").expect("a version").id;
        let mut rig = Self { manager, node, log: OpenLogId::random(), version, seen: 0 };
        rig.new_records().await;
        rig
    }

    fn open(&self, number: u64) -> Open {
        Open {
            id: EventId { log: self.log, number },
            at: Timestamp::UNIX_EPOCH,
            service: service(),
            target: "password".parse().expect("a name"),
            version_id: self.version,
            versions: vec![self.shown()],
            unnamed: 0,
            process: Process {
                uid: 1000,
                gid: 1000,
                pid: 7,
                unseen: None,
                started: None,
                executable: Some("/usr/bin/cat".to_owned()),
                cgroup: None,
                container: None,
            },
            failure: None,
        }
    }

    fn shown(&self) -> OpenedVersion {
        OpenedVersion { id: self.version, secret: "db".parse().expect("a name"), version: 1 }
    }

    async fn report(&self, node: &NodeIdentity, opens: Vec<Open>, lost: Option<LostOpens>) -> Answer {
        let report = OpenReport { opens, lost, durable: true };
        self.manager.post(Some(&node_peer(node)), "/v1/node/opens", &report).await
    }

    /// What is recorded of opens that this node reports.
    async fn recorded(&mut self, opens: Vec<Open>) -> Vec<Event> {
        let answer = self.report(&self.node, opens, None).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
        self.new_records().await
    }

    async fn new_records(&mut self) -> Vec<Event> {
        new_records(&self.manager, &mut self.seen).await
    }
}

fn environment() -> EnvironmentName {
    "prod".parse().expect("a name")
}

fn service() -> ServiceName {
    "web".parse().expect("a name")
}

/// What an event says was opened: the secret, its version, and what of it is in doubt.
fn shown(event: &Event) -> (Option<&str>, Option<u64>, &[Doubt]) {
    let secret = event.object.secret.as_ref().map(|secret| secret.as_str());
    (secret, event.object.version, &event.doubts)
}

#[tokio::test]
async fn opens_are_recorded_once_with_what_was_opened() {
    let mut rig = Rig::new(RawLimitsConfig::default()).await;
    let failed = Open { failure: Some("EACCES".to_owned()), ..rig.open(3) };
    let opens = vec![rig.open(1), rig.open(2), failed];
    for _ in 0..2 {
        let lost = LostOpens { log: rig.log, total: 5 };
        let answer = rig.report(&rig.node, opens.clone(), Some(lost)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    }
    let events = rig.new_records().await;
    assert_eq!(
        outcomes(&events),
        [
            (Action::FileOpen, Outcome::Done),
            (Action::FileOpen, Outcome::Done),
            (Action::FileOpen, Outcome::Failed),
            (Action::FileLost, Outcome::Failed),
        ]
    );
    assert_eq!(shown(&events[0]), (Some("db"), Some(1), &[][..]));
    assert_eq!((events[2].reason.as_deref(), events[3].count), (Some("EACCES"), Some(5)));
    for event in &events {
        assert_eq!(event.environment, Some(environment()));
        assert!(matches!(&event.actor, Actor::Node { id, .. } if *id == rig.node.id));
    }
    // A version of another environment is nobody's business here.
    let other = rig.manager.join("dev", "node", false).await;
    rig.report(&other, vec![Open { versions: vec![], ..rig.open(9) }], None).await;
    let events = rig.new_records().await;
    assert_eq!(shown(&events[0]), (None, None, &[Doubt::Version, Doubt::Place][..]));

    let many = (0..=REPORT_MAX_OPENS as u64).map(|number| rig.open(number)).collect();
    let long = Process { executable: Some("a".repeat(5000)), ..rig.open(1).process };
    let lost = LostOpens { log: rig.log, total: u64::MAX };
    for (opens, lost) in [
        (many, None),
        (vec![Open { process: long, ..rig.open(50) }], None),
        (vec![Open { versions: vec![rig.shown(); 300], ..rig.open(50) }], None),
        (vec![Open { unnamed: u64::MAX, ..rig.open(50) }], None),
        (vec![], Some(lost)),
    ] {
        let answer = rig.report(&rig.node, opens, lost).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    assert!(rig.new_records().await.is_empty());
}

#[tokio::test]
async fn each_open_has_its_version_whatever_became_of_it() {
    let mut rig = Rig::new(RawLimitsConfig::default()).await;
    // A template of it and of another one, which is not there any more.
    let gone = OpenedVersion { id: VersionId::random(), secret: "gone".parse().expect("a name"), version: 3 };
    let rendered = VersionId::random();
    let template =
        Open { version_id: rendered, versions: vec![rig.shown(), gone], unnamed: 2, ..rig.open(1) };
    let events = rig.recorded(vec![template]).await;
    let input = |secret: &str, version| Input { secret: secret.parse().expect("a name"), version };
    assert_eq!(events[0].inputs, [input("db", 1), input("gone", 3)]);
    assert_eq!(shown(&events[0]), (None, None, &[Doubt::Version][..]));
    assert_eq!(events[0].reason.as_deref(), Some("2 more inputs are not named"));

    // Reported when everything is gone, and again, since the answer did not arrive.
    let before = rig.recorded(vec![rig.open(2)]).await;
    let (environment, service) = (environment(), service());
    let (app, secret) = (&rig.manager.app, "db".parse().expect("a name"));
    app.detach(&environment, &service, &secret, None).await.expect("detached");
    app.remove_secret(&environment, &secret).await.expect("removed");
    assert_eq!(shown(&before[0]), (Some("db"), Some(1), &[][..]));
    let after = rig.recorded(vec![rig.open(2), rig.open(3)]).await;
    assert_eq!(after.iter().map(|event| event.id.map(|id| id.number)).collect::<Vec<_>>(), [Some(3)]);
    assert_eq!(shown(&after[0]), (Some("db"), Some(1), &[Doubt::Version, Doubt::Place][..]));
}

#[tokio::test]
async fn what_the_manager_knows_no_node_can_call_otherwise() {
    let mut rig = Rig::new(RawLimitsConfig::default()).await;
    let otherwise = OpenedVersion { secret: "other".parse().expect("a name"), version: 9, ..rig.shown() };
    let events = rig.recorded(vec![Open { versions: vec![otherwise], ..rig.open(1) }]).await;
    assert_eq!(shown(&events[0]), (Some("db"), Some(1), &[][..]));
}

#[tokio::test]
async fn what_a_node_reports_is_bounded_and_others_do_not_feel_it() {
    let limits =
        RawLimitsConfig { node_opens: Some(1), node_opens_burst: Some(1250), ..RawLimitsConfig::default() };
    let mut rig = Rig::new(limits).await;
    let quiet = rig.manager.join("prod", "quiet", false).await;
    let full: Vec<_> = (0..REPORT_MAX_OPENS as u64).map(|number| rig.open(number)).collect();
    let mut told = 0;
    let refused = loop {
        let opens = full.iter().map(|open| rig.open(told + open.id.number)).collect();
        let answer = rig.report(&rig.node, opens, None).await;
        if answer.status != StatusCode::NO_CONTENT {
            break answer;
        }
        told += REPORT_MAX_OPENS as u64;
    };
    assert_eq!((refused.error().code, told), (ErrorCode::RateLimited, 1200));
    assert!(refused.error().message.contains("reported opens of this node"), "{refused:?}");
    assert_eq!(rig.new_records().await.len(), 1200);
    // Long ones count as several.
    let long = Process { executable: Some("a".repeat(1024)), ..rig.open(1).process };
    let long: Vec<_> =
        (5000..5050).map(|number| Open { process: long.clone(), ..rig.open(number) }).collect();
    assert_eq!(rig.report(&rig.node, long, None).await.status, StatusCode::TOO_MANY_REQUESTS);
    let lost = LostOpens { log: OpenLogId::random(), total: 1 };
    // Losses are counted too, and whatever else it asks for is not.
    let mut losses = 0;
    while rig.report(&rig.node, vec![], Some(lost.clone())).await.status == StatusCode::NO_CONTENT {
        losses += 1;
        assert!(losses < 100, "no end of losses");
    }
    assert_eq!(rig.report(&quiet, full, None).await.status, StatusCode::NO_CONTENT);
}
