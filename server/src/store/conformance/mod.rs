//! What every store must do, whatever database is behind it.

mod keys;
mod operators;

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use secretfs_wire::api::{
    Assignment, Attachment, ChangeLabels, Duplicate, Environment, HeardInstance, NodeState, TokenState,
};
use secretfs_wire::audit::AuditMode;
use secretfs_wire::template::Template;
use secretfs_wire::{
    EnvironmentName, HostFact, HostFacts, InstanceId, KeyBackendKind, KeyFingerprint, KeyReference, Labels,
    Mode, NodeId, NodeName, Ownership, SecretName, ServiceName, VersionId,
};

use super::{NewNode, NewSecret, NewTemplate, NewToken, NewVersion, NodeRecord, Store, StoreError};
use crate::keys::{SealedVersion, Wrapped, WrappedKey};

/// An operator who has made all join tokens but a few.
const MAKER: &str = "maker";

pub(super) fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("a name")
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
}

/// Wrapped under the first version of the key that [`environment`] gives an environment.
pub(super) fn version(environment: &EnvironmentName, number: u64, seconds: i64) -> NewVersion {
    let id = VersionId::random();
    let wrapped = Wrapped { version: 1, bytes: id.to_string().into_bytes() };
    let data_key = WrappedKey { key: local(environment.as_str()), wrapped };
    let sealed = SealedVersion { data_key, ciphertext: number.to_be_bytes().to_vec() };
    NewVersion { id, number, size: number, created: at(seconds), sealed }
}

pub(super) fn local(key: &str) -> KeyReference {
    KeyReference { backend: KeyBackendKind::Local, name: name(key) }
}

/// Runs the suite. Each part has an environment of its own, and they leave some behind.
pub(super) async fn check(store: &dyn Store) {
    operators::add_maker(store, MAKER).await;
    environments(store).await;
    operators::check(store).await;
    versions(store).await;
    keys::check(store).await;
    attachments(store).await;
    templates(store).await;
    visibility(store).await;
    revisions(store).await;
    tokens(store).await;
    withdrawn_tokens(store).await;
    one_of_many_joins(store).await;
    nodes(store).await;
}

pub(super) async fn environment(store: &dyn Store, text: &str) -> EnvironmentName {
    let environment: EnvironmentName = name(text);
    let new = Environment { name: environment.clone(), key: local(text), created: at(0) };
    store.create_environment(&new).await.expect("an environment");
    assert_eq!(store.environment(&environment).await.expect("it"), new);
    environment
}

pub(super) async fn secret(store: &dyn Store, environment: &EnvironmentName, text: &str) -> SecretName {
    let new = NewSecret { name: name(text), labels: name("tier=gold"), version: version(environment, 1, 1) };
    store.create_secret(environment, new).await.expect("a secret").name
}

async fn service(store: &dyn Store, environment: &EnvironmentName, text: &str) -> ServiceName {
    store.create_service(environment, &name(text), at(1)).await.expect("a service").name
}

async fn joined(store: &dyn Store, environment: &EnvironmentName, node: &str, labels: &str) -> NodeRecord {
    let digest = *NodeId::random().to_string().repeat(2).as_bytes().first_chunk().expect("32 bytes");
    let token = NewToken {
        digest,
        approval: false,
        labels: name(labels),
        created: at(0),
        name: None,
        created_by: name(MAKER),
        expires: at(100),
    };
    store.create_token(environment, token).await.expect("a token");
    store.join(&digest, new_node(node), at(1)).await.expect("joined")
}

fn host() -> HostFacts {
    HostFacts {
        hostname: Some(HostFact::new("n.example")),
        addresses: vec![name("10.0.0.1")],
        ..Default::default()
    }
}

fn new_node(node: &str) -> NewNode {
    NewNode {
        id: NodeId::random(),
        name: name(node),
        envelope_key: vec![7; 100],
        certificate_expires: at(1000),
        address: Some(name("192.0.2.7")),
        host: host(),
    }
}

async fn environments(store: &dyn Store) {
    store.ping().await.expect("an answer");
    let one = environment(store, "env-one").await;
    let same_name = Environment { name: one.clone(), key: local("other"), created: at(0) };
    let same_key = Environment { name: name("env-two"), key: local("env-one"), created: at(0) };
    for clash in [same_name, same_key] {
        let clash = store.create_environment(&clash).await;
        assert!(matches!(clash, Err(StoreError::Exists { .. })), "{clash:?}");
    }
    let listed = store.environments().await.expect("a list");
    assert!(listed.is_sorted_by_key(|environment| environment.name.clone()));

    secret(store, &one, "kept").await;
    let full = store.remove_environment(&one).await;
    assert!(matches!(full, Err(StoreError::NotEmpty { what: "secrets", .. })), "{full:?}");
    store.remove_secret(&one, &name("kept")).await.expect("removed");
    service(store, &one, "kept").await;
    let full = store.remove_environment(&one).await;
    assert!(matches!(full, Err(StoreError::NotEmpty { what: "services", .. })), "{full:?}");
    store.remove_service(&one, &name("kept")).await.expect("removed");
    joined(store, &one, "kept", "").await;
    let full = store.remove_environment(&one).await;
    assert!(matches!(full, Err(StoreError::NotEmpty { what: "nodes", .. })), "{full:?}");
    store.remove_node(&one, &name("kept")).await.expect("removed");
    store.remove_environment(&one).await.expect("empty but for a token");
    for gone in [store.remove_environment(&one).await, store.secrets(&one).await.map(|_| ())] {
        assert!(matches!(gone, Err(StoreError::Missing { kind: "environment", .. })), "{gone:?}");
    }
}

async fn versions(store: &dyn Store) {
    let prod = environment(store, "versions").await;
    let db = secret(store, &prod, "db").await;
    let known = version(&prod, 1, 1);
    let ids = [known.id, VersionId::random()];
    let new = NewSecret { name: name("known"), labels: Labels::default(), version: known };
    store.create_secret(&prod, new).await.expect("a secret");
    let numbers = store.numbers(&prod, &ids).await.expect("asked");
    assert_eq!(numbers, HashMap::from([(ids[0], (name("known"), 1))]));
    let elsewhere = environment(store, "versions-elsewhere").await;
    assert!(store.numbers(&elsewhere, &ids).await.expect("asked").is_empty(), "another environment's");
    store.remove_secret(&prod, &name("known")).await.expect("removed");
    let again = NewSecret { name: db.clone(), labels: Labels::default(), version: version(&prod, 1, 2) };
    let again = store.create_secret(&prod, again).await;
    assert!(matches!(again, Err(StoreError::Exists { kind: "secret", .. })), "{again:?}");

    let rotated = store.add_version(&prod, &db, version(&prod, 2, 20)).await.expect("rotated");
    assert_eq!((rotated.current, rotated.versions, rotated.changed), (2, 2, at(20)));
    assert_eq!((rotated.created, rotated.labels.to_string()), (at(1), "tier=gold".to_owned()));
    for stale in [1, 2, 4] {
        let raced = store.add_version(&prod, &db, version(&prod, stale, 21)).await;
        assert!(matches!(raced, Err(StoreError::Raced { .. })), "{stale}: {raced:?}");
    }

    store.add_version(&prod, &db, version(&prod, 3, 30)).await.expect("rotated");
    let (back, changed) = store.make_current(&prod, &db, Some(1), at(40)).await.expect("rolled back");
    assert!(changed);
    assert_eq!((back.current, back.versions, back.changed), (1, 3, at(40)));
    let unchanged = store.make_current(&prod, &db, Some(1), at(50)).await.expect("nothing to do");
    assert_eq!(unchanged, (back, false));
    assert_eq!(store.current(&prod, &db).await.expect("the current one").number, 1);
    let first = store.make_current(&prod, &db, None, at(50)).await;
    assert!(matches!(first, Err(StoreError::NoEarlierVersion { .. })), "{first:?}");
    let absent = store.make_current(&prod, &db, Some(9), at(50)).await;
    assert!(matches!(absent, Err(StoreError::Missing { kind: "version", .. })), "{absent:?}");

    // A rotation after a rollback counts on from the newest, and is rolled back to the next below.
    let rotated = store.add_version(&prod, &db, version(&prod, 4, 60)).await.expect("rotated");
    assert_eq!(rotated.current, 4);
    let (back, _) = store.make_current(&prod, &db, None, at(70)).await.expect("rolled back");
    assert_eq!(back.current, 3);

    let details = store.secret(&prod, &db).await.expect("details");
    let history: Vec<_> = details.history.iter().map(|version| (version.version, version.current)).collect();
    assert_eq!(history, [(4, false), (3, true), (2, false), (1, false)]);
    assert_eq!(details.history[0].key, "local/versions:1");
    assert_eq!(store.secrets(&prod).await.expect("a list"), [back]);
    let absent = store.secret(&prod, &name("absent")).await;
    assert!(matches!(absent, Err(StoreError::Missing { kind: "secret", .. })), "{absent:?}");
}

async fn attachments(store: &dyn Store) {
    let prod = environment(store, "attachments").await;
    let (db, api) = (secret(store, &prod, "db").await, secret(store, &prod, "api").await);
    let web = service(store, &prod, "web").await;
    let twice = store.create_service(&prod, &web, at(2)).await;
    assert!(matches!(twice, Err(StoreError::Exists { kind: "service", .. })), "{twice:?}");

    let mut attachment = Attachment {
        target: name("password"),
        secret: db.clone(),
        ownership: Ownership::default(),
        audit: AuditMode::Buffered,
    };
    store.attach(&prod, &web, &attachment, at(3)).await.expect("attached");
    let taken = Attachment { secret: api.clone(), ..attachment.clone() };
    let taken = store.attach(&prod, &web, &taken, at(3)).await;
    assert!(matches!(taken, Err(StoreError::TargetTaken { .. })), "{taken:?}");
    attachment.ownership = Ownership { uid: 5, gid: u32::MAX, mode: Mode::from_bits(0o400).expect("mode") };
    store.attach(&prod, &web, &attachment, at(4)).await.expect("changed");
    let second = Attachment { target: name("another"), ..attachment.clone() };
    store.attach(&prod, &web, &second, at(4)).await.expect("attached");
    let details = store.service(&prod, &web).await.expect("details");
    assert_eq!(details.attachments, [second, attachment], "by target");

    let held = store.remove_secret(&prod, &db).await;
    assert!(matches!(held, Err(StoreError::Attached { by, .. }) if by == [web.clone()]));
    store.detach(&prod, &web, &db, Some(&name("another"))).await.expect("one target");
    assert_eq!(store.secret(&prod, &db).await.expect("details").attached.len(), 1);
    store.detach(&prod, &web, &db, None).await.expect("all targets");
    let absent = store.detach(&prod, &web, &db, None).await;
    assert!(matches!(absent, Err(StoreError::Missing { .. })), "{absent:?}");
    store.remove_secret(&prod, &db).await.expect("free");

    let on_node = Assignment::Node(name("later"));
    assert!(store.assign(&prod, &web, &on_node).await.expect("assigned"));
    assert!(!store.assign(&prod, &web, &on_node).await.expect("is already"));
    let listed = store.services(&prod).await.expect("a list");
    assert_eq!((listed[0].attachments, listed[0].assignments), (0, 1));
    store.unassign(&prod, &web, &on_node).await.expect("unassigned");
    let absent = store.unassign(&prod, &web, &on_node).await;
    assert!(matches!(absent, Err(StoreError::Missing { .. })), "{absent:?}");
}

async fn templates(store: &dyn Store) {
    let prod = environment(store, "templates").await;
    let db = secret(store, &prod, "db").await;
    let web = service(store, &prod, "web").await;
    let attachment = Attachment {
        target: name("password"),
        secret: db.clone(),
        ownership: Ownership::default(),
        audit: AuditMode::Buffered,
    };
    store.attach(&prod, &web, &attachment, at(3)).await.expect("attached");
    let set = async |target: &str, text: &str, uid: u32, seconds: i64| {
        let template = Template::parse(text).expect("a template");
        let ownership = Ownership { uid, ..Ownership::default() };
        let new = NewTemplate { target: &name(target), template: &template, ownership };
        store.set_template(&prod, &web, new, at(seconds)).await
    };
    let text = "{{ secrets.password }}";
    let first = set("app.conf", text, 5, 10).await.expect("set");
    assert_eq!((first.text.as_str(), first.template.changed), (text, at(10)));
    assert_eq!(
        (first.template.inputs.as_slice(), first.template.ownership.uid),
        (&[name("password")][..], 5)
    );
    assert_eq!(set("app.conf", text, 5, 11).await.expect("is already"), first);
    assert_eq!(store.template(&prod, &web, &name("app.conf")).await.expect("it"), first);
    let listed = store.service(&prod, &web).await.expect("details").templates;
    assert_eq!(listed, std::slice::from_ref(&first.template));

    let missing = set("app.conf", "{{ secrets.absent }}", 5, 12).await;
    assert!(matches!(missing, Err(StoreError::InputMissing { input }) if input == name("absent")));
    let taken = set("password", text, 5, 12).await;
    assert!(matches!(taken, Err(StoreError::TargetTaken { .. })), "{taken:?}");
    let nested = set("other", "{{ secrets['app.conf'] }}", 5, 12).await;
    assert!(matches!(nested, Err(StoreError::InputMissing { .. })), "no template of a template: {nested:?}");
    let taken = Attachment { target: name("app.conf"), ..attachment.clone() };
    let taken = store.attach(&prod, &web, &taken, at(12)).await;
    assert!(matches!(taken, Err(StoreError::TargetTaken { .. })), "{taken:?}");

    // What a template is made from stays. Nothing is detached when one of several may not be.
    let spare = Attachment { target: name("a-spare"), ..attachment.clone() };
    store.attach(&prod, &web, &spare, at(13)).await.expect("attached");
    for target in [Some(name("password")), None] {
        let used = store.detach(&prod, &web, &db, target.as_ref()).await;
        assert!(matches!(used, Err(StoreError::InTemplates { by, .. }) if by == [name("app.conf")]));
    }
    store.detach(&prod, &web, &db, Some(&name("a-spare"))).await.expect("it was left, and is of no template");

    // A node is told of it, with the time of whatever changed last.
    let seen = async || {
        let published = store.published(&prod).await.expect("what is published");
        let [service] = published.services.as_slice() else { panic!("one service") };
        let [template] = service.templates.as_slice() else { panic!("one template") };
        assert_eq!(service.targets.len(), 1);
        template.clone()
    };
    let raw = seen().await;
    assert_eq!((raw.target.as_str(), raw.text.as_str(), raw.uid, raw.mode), ("app.conf", text, 5, 0o444));
    assert_eq!(raw.modified, at(10));
    store.add_version(&prod, &db, version(&prod, 2, 20)).await.expect("rotated");
    assert_eq!(seen().await.modified, at(20));
    let revision = async || store.published(&prod).await.expect("what is published").revision;
    let before = revision().await;
    let changed = set("app.conf", "no secrets", 5, 30).await.expect("changed");
    assert!(revision().await > before);
    assert!(changed.template.inputs.is_empty());
    assert_eq!((seen().await.modified, seen().await.text.as_str()), (at(30), "no secrets"));
    store.detach(&prod, &web, &db, None).await.expect("no template is made from it any more");

    let before = revision().await;
    store.remove_template(&prod, &web, &name("app.conf")).await.expect("removed");
    assert!(revision().await > before);
    for gone in [
        store.remove_template(&prod, &web, &name("app.conf")).await,
        store.template(&prod, &web, &name("app.conf")).await.map(drop),
    ] {
        assert!(matches!(gone, Err(StoreError::Missing { kind: "template", .. })), "{gone:?}");
    }
    store.attach(&prod, &web, &attachment, at(40)).await.expect("attached");
    set("app.conf", text, 5, 41).await.expect("set");
    store.remove_service(&prod, &web).await.expect("removed with all that it has");
}

async fn visibility(store: &dyn Store) {
    let (prod, dev) = (environment(store, "vis-prod").await, environment(store, "vis-dev").await);
    for scope in [&prod, &dev] {
        secret(store, scope, "db").await;
        for service_name in ["by-name", "by-label", "nowhere"] {
            let service = service(store, scope, service_name).await;
            let attachment = Attachment {
                target: name("db"),
                secret: name("db"),
                ownership: Ownership::default(),
                audit: AuditMode::Buffered,
            };
            store.attach(scope, &service, &attachment, at(10)).await.expect("attached");
        }
    }
    let assignments =
        [("by-name", Assignment::Node(name("a"))), ("by-label", Assignment::Selector(name("role=web")))];
    for (service, assignment) in &assignments {
        store.assign(&prod, &name(service), assignment).await.expect("assigned");
    }
    let a = joined(store, &prod, "a", "").await;
    let b = joined(store, &prod, "b", "role=web,zone=1").await;
    let stranger = joined(store, &dev, "a", "role=web").await;

    let sees = async |node: &NodeRecord| -> BTreeSet<String> {
        let labels = store.node_labels(&node.environment, node.id).await.expect("labels").expect("active");
        let published = store.published(&node.environment).await.expect("what is published");
        assert_eq!(published.services.len(), 3, "each, and in this environment only");
        let services = published.assignments.of(&node.name, &labels);
        for every in ["by-name", "by-label", "nowhere"] {
            let delivery = store
                .delivery(&node.environment, node.id, &name(every), &name("db"))
                .await
                .expect("an answer");
            let listed = services.iter().any(|service| service.as_str() == every);
            assert_eq!(delivery.is_some(), listed, "{}: {every}", node.name);
        }
        services.into_iter().map(String::from).collect()
    };
    assert_eq!(sees(&a).await, ["by-name".to_owned()].into());
    assert_eq!(sees(&b).await, ["by-label".to_owned()].into());
    assert_eq!(sees(&stranger).await, BTreeSet::new(), "an environment ends where it ends");
    let crossed = store.node_labels(&dev, a.id).await.expect("an answer");
    assert_eq!(crossed, None, "a node is of one environment");

    let change = ChangeLabels { set: name("role=web"), remove: vec![] };
    let labelled = store.change_labels(&prod, &a.name, &change).await.expect("labelled");
    assert_eq!(labelled.services, [name::<ServiceName>("by-label"), name("by-name")]);
    assert_eq!(sees(&a).await.len(), 2);
    let change = ChangeLabels { set: Labels::default(), remove: vec!["role".to_owned()] };
    store.change_labels(&prod, &a.name, &change).await.expect("labelled");
    assert_eq!(sees(&a).await.len(), 1);

    // A target's time is the later of the attachment's and the version's.
    let modified = async || {
        let published = store.published(&prod).await.expect("what is published");
        let target = &published.services[0].targets[0];
        (target.version, target.modified)
    };
    assert_eq!(modified().await, (1, at(10)));
    store.add_version(&prod, &name("db"), version(&prod, 2, 20)).await.expect("rotated");
    assert_eq!(modified().await, (2, at(20)));

    let no_target = store.delivery(&prod, a.id, &name("by-name"), &name("none")).await.expect("an answer");
    assert!(no_target.is_none());
    store.revoke(&prod, &a.name).await.expect("revoked");
    assert_eq!(store.node_labels(&prod, a.id).await.expect("an answer"), None);
    let refused = store.delivery(&prod, a.id, &name("by-name"), &name("db")).await.expect("an answer");
    assert!(refused.is_none(), "a revoked node gets nothing");
}

/// Each change that a node may be shown raises the revision of its environment, and of no other.
async fn revisions(store: &dyn Store) {
    let (here, elsewhere) = (environment(store, "revisions").await, environment(store, "elsewhere").await);
    let revision = async |of| store.published(of).await.expect("what is published").revision;
    let mut last = revision(&here).await;
    let mut expect = async |what: &str, rises: bool| {
        let now = revision(&here).await;
        assert_eq!(now > last, rises, "{what}: {last} -> {now}");
        last = now;
    };
    secret(store, &here, "db").await;
    expect("a secret that is attached nowhere", false).await;
    let web = service(store, &here, "web").await;
    expect("a service", true).await;
    let attachment = Attachment {
        target: name("db"),
        secret: name("db"),
        ownership: Ownership::default(),
        audit: AuditMode::Buffered,
    };
    store.attach(&here, &web, &attachment, at(1)).await.expect("attached");
    expect("an attachment", true).await;
    let owned = Attachment { ownership: Ownership { uid: 5, ..Ownership::default() }, ..attachment };
    store.attach(&here, &web, &owned, at(2)).await.expect("attached");
    expect("an owner", true).await;
    store.attach(&here, &web, &owned, at(3)).await.expect("attached");
    expect("the same owner", false).await;
    let owned = Attachment { audit: AuditMode::Required, ..owned };
    store.attach(&here, &web, &owned, at(3)).await.expect("attached");
    expect("another audit mode", true).await;
    store.attach(&here, &web, &owned, at(4)).await.expect("attached");
    expect("the same audit mode", false).await;
    let shown = &store.published(&here).await.expect("what is published").services[0].targets[0];
    assert_eq!(shown.audit, AuditMode::Required);
    let details = store.service(&here, &web).await.expect("details");
    assert_eq!(details.attachments, std::slice::from_ref(&owned));
    store.add_version(&here, &name("db"), version(&here, 2, 4)).await.expect("rotated");
    expect("a rotation", true).await;
    store.make_current(&here, &name("db"), None, at(5)).await.expect("rolled back");
    expect("a rollback", true).await;
    let assignment = Assignment::Selector(name("role=web"));
    store.assign(&here, &web, &assignment).await.expect("assigned");
    expect("an assignment", true).await;
    store.assign(&here, &web, &assignment).await.expect("assigned");
    expect("the same assignment", false).await;
    store.unassign(&here, &web, &assignment).await.expect("unassigned");
    expect("no assignment", true).await;
    store.detach(&here, &web, &name("db"), None).await.expect("detached");
    expect("no attachment", true).await;
    store.attach(&here, &web, &owned, at(6)).await.expect("attached");
    expect("an attachment again", true).await;
    store.remove_service(&here, &web).await.expect("removed");
    expect("no service", true).await;
    assert_eq!(revision(&elsewhere).await, 0);
}

async fn tokens(store: &dyn Store) {
    let prod = environment(store, "tokens").await;
    let expired_at = at(0) + SignedDuration::from_secs(60);
    let token = |byte, approval| NewToken {
        digest: [byte; 32],
        approval,
        labels: name("role=web"),
        created: at(i64::from(byte)),
        name: None,
        created_by: name(MAKER),
        expires: expired_at,
    };
    store.create_token(&prod, token(1, true)).await.expect("a token");
    store.create_token(&prod, token(2, false)).await.expect("a token");
    assert_eq!(store.open_token(&[1; 32], at(0)).await.expect("good").environment, prod);

    for (digest, when) in [([9; 32], at(0)), ([1; 32], expired_at)] {
        let asked = store.open_token(&digest, when).await;
        assert!(matches!(asked, Err(StoreError::TokenRefused)), "{asked:?}");
        let refused = store.join(&digest, new_node("n"), when).await;
        assert!(matches!(refused, Err(StoreError::TokenRefused)), "{refused:?}");
    }
    let pending = store.join(&[1; 32], new_node("n"), at(1)).await.expect("joined");
    assert_eq!((pending.state, pending.labels.to_string()), (NodeState::Pending, "role=web".to_owned()));
    let used = store.join(&[1; 32], new_node("m"), at(1)).await;
    assert!(matches!(used, Err(StoreError::TokenRefused)), "{used:?}");

    let late = store.approve(&prod, &name("n"), None, at(1000)).await;
    assert!(matches!(late, Err(StoreError::CertificateEnded { .. })), "{late:?}");
    assert_eq!(store.node(&prod, &name("n")).await.expect("it").state, NodeState::Pending);

    // Nor does a token join another node than the one that it is for.
    let named = NewToken { name: Some(name("db")), ..token(6, false) };
    store.create_token(&prod, named).await.expect("a token");
    assert_eq!(store.open_token(&[6; 32], at(1)).await.expect("good").name, Some(name("db")));
    let other = store.join(&[6; 32], new_node("m"), at(1)).await;
    assert!(matches!(other, Err(StoreError::TokenRefused)), "{other:?}");
    assert_eq!(store.join(&[6; 32], new_node("db"), at(1)).await.expect("joined").name, name("db"));
    store.remove_node(&prod, &name("db")).await.expect("removed");

    // A name that is taken does not cost the token.
    let taken = store.join(&[2; 32], new_node("n"), at(1)).await;
    assert!(matches!(taken, Err(StoreError::Exists { kind: "node", .. })), "{taken:?}");
    store.revoke(&prod, &pending.name).await.expect("revoked");
    let second = store.join(&[2; 32], new_node("n"), at(2)).await.expect("the name is free");
    assert_eq!(second.state, NodeState::Active);
    assert_eq!(store.node_state(&prod, &pending.name, pending.id).await.expect("asked"), None);

    store.create_token(&prod, token(3, false)).await.expect("a token");
    store.create_token(&prod, token(4, false)).await.expect("a token");
    let listed = store.tokens(&prod, at(1)).await.expect("a list");
    let states: Vec<_> = listed.iter().map(|token| token.state).collect();
    let (open, used) = (TokenState::Open, TokenState::Used);
    assert_eq!(states, [used, open, open, used, used]);
    assert_eq!((listed[1].id, &listed[0].name), (name("040404040404"), &Some(name("db"))));
    assert_eq!((&listed[0].labels, &listed[0].created_by), (&name("role=web"), &Some(name(MAKER))));
    let later = store.tokens(&prod, expired_at).await.expect("a list");
    assert_eq!((later[1].state, later[3].state), (TokenState::Expired, TokenState::Used));

    let month_later = expired_at + SignedDuration::from_hours(30 * 24 + 1);
    let fresh = NewToken { created: month_later, expires: month_later, ..token(5, false) };
    store.create_token(&prod, fresh).await.expect("a token");
    assert_eq!(store.tokens(&prod, at(1)).await.expect("a list").len(), 1, "the old ones are forgotten");
}

async fn withdrawn_tokens(store: &dyn Store) {
    let (here, there) =
        (environment(store, "withdrawn-here").await, environment(store, "withdrawn-there").await);
    let token = |byte, maker, expires| NewToken {
        digest: [byte; 32],
        approval: false,
        labels: Labels::default(),
        created: at(0),
        name: None,
        created_by: name(maker),
        expires: at(expires),
    };
    let is_good = async |byte| store.open_token(&[byte; 32], at(10)).await.is_ok();
    let of_nobody = store.create_token(&here, token(20, "nobody", 60)).await;
    assert!(matches!(of_nobody, Err(StoreError::Missing { kind: "operator", .. })), "{of_nobody:?}");

    operators::add_maker(store, "leaver").await;
    for (environment, token) in [
        (&here, token(21, "leaver", 60)),
        (&here, token(22, "leaver", 5)),
        (&here, token(23, "leaver", 60)),
        (&here, token(24, MAKER, 60)),
        (&there, token(25, "leaver", 60)),
    ] {
        store.create_token(environment, token).await.expect("a token");
    }
    let node = store.join(&[23; 32], new_node("n"), at(10)).await.expect("joined");
    let used = store.remove_token(&here, name("171717171717")).await;
    assert!(matches!(&used, Err(StoreError::TokenUsed { node, .. }) if node == "n"), "{used:?}");
    for absent in ["ffffffffffff", "191919191919"] {
        let absent = store.remove_token(&here, name(absent)).await;
        assert!(matches!(absent, Err(StoreError::Missing { kind: "token", .. })), "{absent:?}");
    }
    store.remove_token(&here, name("181818181818")).await.expect("removed");
    assert!(!is_good(24).await);

    assert_eq!(store.remove_operator(&name("leaver"), None, at(10)).await.expect("removed"), 2);
    assert!(!is_good(21).await && !is_good(25).await, "in whatever environment");
    let left = store.tokens(&here, at(10)).await.expect("a list");
    let left: Vec<_> = left.iter().map(|token| token.state).collect();
    assert_eq!(left, [TokenState::Expired, TokenState::Used]);
    assert_eq!(store.node(&here, &node.name).await.expect("who has joined stays").state, NodeState::Active);
}

async fn one_of_many_joins(store: &dyn Store) {
    let prod = environment(store, "race").await;
    let token = NewToken {
        digest: [77; 32],
        approval: false,
        labels: Labels::default(),
        created: at(0),
        name: None,
        created_by: name(MAKER),
        expires: at(60),
    };
    store.create_token(&prod, token).await.expect("a token");
    let attempts = (0..16).map(|n| store.join(&[77; 32], new_node(&format!("n{n}")), at(1)));
    let results: Vec<Result<NodeRecord, StoreError>> = futures::future::join_all(attempts).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(
        results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .all(|error| matches!(error, StoreError::TokenRefused))
    );
    assert_eq!(store.nodes(&prod).await.expect("a list").len(), 1);
}

async fn nodes(store: &dyn Store) {
    let prod = environment(store, "nodes").await;
    let node = joined(store, &prod, "n", "").await;
    let n: NodeName = name("n");
    assert_eq!(store.node_state(&prod, &n, node.id).await.expect("asked"), Some(NodeState::Active));
    assert_eq!(store.node_state(&prod, &name("m"), node.id).await.expect("asked"), None);
    assert_eq!(store.node_state(&prod, &n, NodeId::random()).await.expect("asked"), None);
    assert_eq!(store.node_state(&name("tokens"), &n, node.id).await.expect("asked"), None);
    assert_eq!(store.envelope_key(node.id).await.expect("asked"), Some(vec![7; 100]));

    store.renewed(node.id, at(5000)).await.expect("renewed");
    assert_eq!(store.node(&prod, &n).await.expect("it").certificate_expires, at(5000));
    let known = store.node(&prod, &n).await.expect("it");
    assert_eq!((known.fingerprint, known.host), (KeyFingerprint::of_der(&[7; 100]), host()));
    assert_eq!(known.address, Some(name("192.0.2.7")));
    let other = store.approve(&prod, &n, Some(KeyFingerprint::of_der(b"another")), at(1)).await;
    assert!(
        matches!(other, Err(StoreError::OtherFingerprint { fingerprint, .. }) if fingerprint == known.fingerprint)
    );
    let approved = store.approve(&prod, &n, Some(known.fingerprint), at(9000)).await.expect("is already");
    assert_eq!(approved.state, NodeState::Active);
    duplicates(store, &node).await;
    assert_eq!(store.revoke(&prod, &n).await.expect("revoked").state, NodeState::Revoked);
    let back = store.approve(&prod, &n, None, at(1)).await;
    assert!(matches!(back, Err(StoreError::Revoked { .. })), "{back:?}");
    assert_eq!(store.remove_node(&prod, &n).await.expect("removed"), node.id);
    let gone = store.node(&prod, &n).await;
    assert!(matches!(gone, Err(StoreError::Missing { kind: "node", .. })), "{gone:?}");
}

async fn duplicates(store: &dyn Store, node: &NodeRecord) {
    let heard = |at| HeardInstance { instance: Some(InstanceId::random()), address: None, last_heard: at };
    let duplicate = async || store.node(&node.environment, &node.name).await.expect("it").duplicate;
    assert_eq!((duplicate().await, store.duplicate_nodes().await.expect("a count")), (None, 0));
    let first = Duplicate { since: at(10), instances: vec![heard(at(9)), heard(at(10))] };
    let second = Duplicate { since: at(20), instances: vec![heard(at(20))] };
    store.flag_duplicate(node.id, &first).await.expect("kept");
    assert_eq!(duplicate().await, Some(first));
    store.flag_duplicate(node.id, &second).await.expect("kept");
    assert_eq!(duplicate().await, Some(Duplicate { since: at(10), ..second.clone() }), "since it was found");
    assert_eq!(store.duplicate_nodes().await.expect("a count"), 1);
    store.flag_duplicate(NodeId::random(), &second).await.expect("removed meanwhile");
    let approved = store.approve(&node.environment, &node.name, None, at(1)).await.expect("looked into");
    assert_eq!((approved.duplicate, duplicate().await), (None, None));
    assert_eq!(store.duplicate_nodes().await.expect("a count"), 0);
}
