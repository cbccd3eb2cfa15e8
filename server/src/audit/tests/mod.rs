mod failures;
mod forgeries;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use secretfs_wire::audit::{
    Actor, Damage, Doubt, Event, EventId, Fault, Outcome, Record, SignedCheckpoint, Summary, Verifier,
};
use secretfs_wire::{Action, ChainId, NodeId, OpenLogId};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::{Sqlite, SqliteAudit};
use crate::testing::FaultyLog;

/// A log in a file, as a manager has it that can be stopped and started.
struct Rig {
    directory: tempfile::TempDir,
    authority: Arc<Authority>,
    root: Arc<RootKey>,
    store: Sqlite,
}

impl Rig {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::File::create(directory.path().join("audit.db")).expect("a file");
        Self {
            directory,
            authority: Arc::new(Authority::create(Timestamp::now()).expect("a CA").0),
            root: Arc::new(RootKey::generate().expect("a key")),
            store: Sqlite::in_memory().await.expect("a store"),
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("audit.db")
    }

    async fn open_log(&self, log: Arc<dyn AuditLog>, settings: AuditSettings) -> Audit {
        let (authority, root) = (Arc::clone(&self.authority), Arc::clone(&self.root));
        let signed = SignedMark::in_directory(self.directory.path().to_owned(), Arc::clone(&root));
        Audit::open(Ok(log), &self.store, Arc::new(signed), authority, root, settings).await
    }

    async fn open_with(&self, settings: AuditSettings) -> (Audit, Arc<SqliteAudit>) {
        let log = Arc::new(SqliteAudit::open(&self.file()).await.expect("a log"));
        (self.open_log(Arc::clone(&log) as _, settings).await, log)
    }

    async fn open(&self) -> (Audit, Arc<SqliteAudit>) {
        self.open_with(SETTINGS).await
    }

    async fn open_faulty(&self) -> (Audit, Arc<FaultyLog>) {
        let log = Arc::new(FaultyLog::new(SqliteAudit::open(&self.file()).await.expect("a log")));
        (self.open_log(Arc::clone(&log) as _, SETTINGS).await, log)
    }

    /// What somebody does who is root on the manager.
    fn sql(&self, statements: &str) {
        self.try_sql(statements).expect(statements);
    }

    /// The same, of what may be impossible.
    fn try_sql(&self, statements: &str) -> Result<(), String> {
        let drop = "DROP TRIGGER IF EXISTS records_stay; DROP TRIGGER IF EXISTS records_are_final;
             DROP TRIGGER IF EXISTS checkpoints_stay; DROP TRIGGER IF EXISTS checkpoints_are_final;";
        let ended = Command::new("sqlite3")
            .args(["-cmd", ".timeout 5000"])
            .arg(self.file())
            .arg(format!("{drop}{statements}"))
            .output()
            .expect("sqlite3");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        if ended.status.success() { Ok(()) } else { Err(said) }
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(self.authority.ca_bundle())
    }

    /// What `audit verify` does with what the manager gives.
    async fn verify(&self, audit: &Audit) -> Result<Summary, Fault> {
        verify(self.verifier(), &export(audit, None).await)
    }
}

const SETTINGS: AuditSettings =
    AuditSettings { checkpoint_interval: Duration::from_millis(20), key_lifetime: Duration::from_secs(3600) };

fn verify(mut verifier: Verifier, text: &str) -> Result<Summary, Fault> {
    text.lines().try_for_each(|line| verifier.line(line))?;
    verifier.finish()
}

async fn export(audit: &Audit, chain: Option<ChainId>) -> String {
    let (own, log) = audit.chain().expect("a chain");
    let extent = Extent { from: 1, limit: None, environment: None, follow: false };
    let heartbeat = Duration::from_secs(1);
    let stopping = CancellationToken::new();
    let export =
        Export::new(Arc::clone(log), chain.unwrap_or(own), extent, audit.watch(), heartbeat, stopping);
    let chunks: Vec<_> = export.lines().try_collect().await.expect("an export");
    String::from_utf8(chunks.concat()).expect("text")
}

fn event(number: u64) -> Event {
    let mut event = Event::new(Action::SecretRotate, Outcome::Done, Actor::Manager);
    event.environment = Some("prod".parse().expect("a name"));
    event.object.version = Some(number);
    event
}

async fn record(audit: &Audit, count: u64) {
    for number in 0..count {
        audit.record(vec![event(number).into()], Durability::Process).await.expect("recorded");
    }
}

async fn records(audit: &Audit) -> Vec<Record> {
    let (chain, log) = audit.chain().expect("a chain");
    let stored = log.records(chain, 1, None, 10_000).await.expect("records");
    stored.iter().map(|record| Record::read(&record.written.text).expect("a record")).collect()
}

async fn poll(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn last_checkpoint(audit: &Audit) -> SignedCheckpoint {
    let (chain, log) = audit.chain().expect("a chain");
    log.last_checkpoint(chain).await.expect("asked").expect("a checkpoint")
}

/// The checkpoint about all that was recorded, once it is there.
async fn signed(audit: &Audit) -> SignedCheckpoint {
    let is_signed = async || last_checkpoint(audit).await.checkpoint.sequence == audit.status().head();
    poll("a checkpoint about the last record", is_signed).await;
    last_checkpoint(audit).await
}

/// Ends a log, which signs for everything before it answers.
async fn close(audit: &Audit, last: Vec<Event>) {
    audit.close(last).await.expect("closed");
    assert_eq!(last_checkpoint(audit).await.checkpoint.sequence, audit.status().head());
}

#[tokio::test]
async fn a_chain_goes_on_after_a_stop_and_after_a_kill() {
    let rig = Rig::new().await;
    let (audit, _) = rig.open().await;
    record(&audit, 5).await;
    close(&audit, vec![event(5)]).await;
    assert_eq!(audit.record(vec![event(6).into()], Durability::Power).await, Err(AuditError::Closed));
    assert_eq!(last_checkpoint(&audit).await.checkpoint.sequence, 7, "for everything");
    let (first, _) = audit.chain().expect("a chain");

    // The second one is not closed.
    for _ in 0..2 {
        let (audit, _) = rig.open().await;
        assert_eq!(audit.chain().expect("a chain").0, first);
        record(&audit, 3).await;
    }
    let (audit, _) = rig.open().await;
    record(&audit, 1).await;
    let summary = rig.verify(&audit).await.expect("whole");
    assert_eq!((summary.records, summary.last), (14, 14));
    assert_eq!(audit.status().trouble(), None);
}

#[tokio::test]
async fn what_somebody_did_to_the_file_is_found_and_named() {
    // Records 2 to 11, and checkpoints somewhere among them and after the last.
    let cases = [
        ("UPDATE records SET record = replace(record, '\"version\":4', '\"version\":5')", 6, Damage::Changed),
        (
            // Without the database's columns nobody finds it by its environment, and it is there all the same.
            "UPDATE records SET record = replace(record, 'prod', 'dev ') WHERE sequence = 8",
            8,
            Damage::Changed,
        ),
        ("UPDATE records SET hash = zeroblob(32) WHERE sequence = 7", 7, Damage::Changed),
        // What cannot even be read.
        ("UPDATE records SET hash = x'00' WHERE sequence = 7", 7, Damage::Changed),
        ("UPDATE records SET record = CAST(x'ff' AS TEXT) WHERE sequence = 7", 7, Damage::Malformed),
        ("UPDATE checkpoints SET checkpoint = 'none' WHERE sequence = 11", 12, Damage::Malformed),
        ("DELETE FROM records WHERE sequence = 6", 6, Damage::Missing { found: 7 }),
        ("DELETE FROM records WHERE sequence IN (6, 7)", 6, Damage::Missing { found: 8 }),
        (
            "CREATE TEMP TABLE two AS SELECT * FROM records WHERE sequence IN (6, 7);
             UPDATE records SET record = (SELECT record FROM two WHERE sequence = 13 - records.sequence),
                 hash = (SELECT hash FROM two WHERE sequence = 13 - records.sequence) WHERE sequence IN (6, 7)",
            6,
            Damage::Swapped { with: 7 },
        ),
        ("DELETE FROM records WHERE sequence > 9", 10, Damage::Cut { of: 11 }),
        ("DELETE FROM records WHERE sequence = 11", 11, Damage::Cut { of: 11 }),
        ("UPDATE checkpoints SET checkpoint = json_set(checkpoint, '$.checkpoint.time', '2020-01-01T00:00:00Z') WHERE sequence = 11", 11, Damage::Signature),
    ];
    for (statements, sequence, damage) in cases {
        let rig = Rig::new().await;
        let (audit, _) = rig.open().await;
        record(&audit, 10).await;
        close(&audit, vec![]).await;
        rig.verify(&audit).await.expect("whole");
        rig.sql(statements);
        let fault = rig.verify(&audit).await.expect_err(statements);
        assert_eq!(fault, Fault { sequence, damage }, "{statements}");

        let (audit, _) = rig.open().await;
        poll(statements, async || audit.status().trouble().is_some()).await;
        let trouble = audit.status().trouble().expect("trouble");
        assert!(trouble.contains("the audit log is broken"), "{trouble}");
        // A checkpoint that cannot be read stands after the record that it is about.
        let names = |number| trouble.contains(&format!("record {number}"));
        assert!(names(sequence) || names(sequence - 1) || trouble.contains(&fault.to_string()), "{trouble}");
        let refused = audit.record(vec![event(0).into()], Durability::Power).await;
        assert!(matches!(refused, Err(AuditError::Broken(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn nothing_is_written_after_a_head_that_somebody_else_has_moved() {
    for statement in [
        "DELETE FROM records WHERE sequence = 4",
        "UPDATE records SET hash = zeroblob(32) WHERE sequence = 4",
        "DELETE FROM records",
    ] {
        let rig = Rig::new().await;
        let (audit, _) = rig.open().await;
        record(&audit, 3).await;
        rig.sql(statement);
        for _ in 0..2 {
            let refused = audit.record(vec![event(0).into()], Durability::Power).await;
            assert!(matches!(refused, Err(AuditError::Broken(_))), "{refused:?}");
        }
        assert!(audit.status().trouble().expect("trouble").contains("record"), "{statement}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_it_goes_on_when_there_is_room() {
    let rig = Rig::new().await;
    let (audit, log) = rig.open().await;
    record(&audit, 3).await;
    log.limit_pages(2).await;
    let mut refused = 0;
    let fill = Instant::now();
    while refused < 1 {
        assert!(fill.elapsed() < Duration::from_secs(20), "it never fills");
        let many = (0..100).map(|number| event(number).into()).collect();
        if let Err(error) = audit.record(many, Durability::Power).await {
            assert_eq!(error, AuditError::Unwritable("the disk is full".to_owned()));
            refused += 1;
        }
    }
    let trouble = audit.status().trouble().expect("trouble");
    assert_eq!(trouble, "the audit log cannot be written: the disk is full");
    assert_eq!(audit.status().refused(), 100);
    log.limit_pages(10_000).await;
    // Before it is tried again by itself, or after.
    record(&audit, 1).await;
    poll("it is written again", async || audit.status().trouble().is_none()).await;
    let all = records(&audit).await;
    let gap = all.iter().find(|record| record.event.action == Action::AuditGap).expect("a gap");
    assert_eq!(gap.event.count, Some(100));
    signed(&audit).await;
    rig.verify(&audit).await.expect("whole");
}

#[tokio::test]
async fn what_is_told_twice_is_recorded_once() {
    let rig = Rig::new().await;
    let log = OpenLogId::random();
    let (actor, _) = node();
    let told = |number| Event { id: Some(EventId { log, number }), actor: actor.clone(), ..event(0) };
    let (audit, _) = rig.open().await;
    let tell = async |audit: &Audit, numbers: &[u64]| {
        let entries = numbers.iter().map(|number| told(*number).into()).collect();
        audit.record(entries, Durability::Process).await.expect("recorded");
    };
    tell(&audit, &[1, 2, 2]).await;
    tell(&audit, &[2, 3]).await;
    // Of reports that wait together, too.
    tokio::join!(tell(&audit, &[4, 5]), tell(&audit, &[5, 4, 6]), tell(&audit, &[6]));
    close(&audit, vec![]).await;
    let (audit, _) = rig.open().await;
    tell(&audit, &[1, 6, 7, u64::MAX]).await;
    let mut numbers: Vec<_> =
        records(&audit).await.iter().filter_map(|record| Some(record.event.id?.number)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, u64::MAX]);
    rig.verify(&audit).await.expect("whole");
}

/// A copied daemon has another's log and its numbers.
#[tokio::test]
async fn what_is_told_under_an_id_that_was_told_before_is_recorded_and_marked() {
    let rig = Rig::new().await;
    let ((one, _), (other, _)) = (node(), node());
    let id = Some(EventId { log: OpenLogId::random(), number: 2 });
    let of = |actor: &Actor, version| Event { id, actor: actor.clone(), ..event(version) };
    let (audit, _) = rig.open().await;
    let tell = async |audit: &Audit, events: Vec<Event>| {
        let entries = events.into_iter().map(Entry::from).collect();
        audit.record(entries, Durability::Process).await.expect("recorded");
    };
    tell(&audit, vec![of(&one, 1), of(&one, 1), of(&other, 1)]).await;
    tell(&audit, vec![of(&one, 2), of(&one, 1), of(&one, 2)]).await;
    audit.close(vec![]).await.expect("closed");
    let (audit, _) = rig.open().await;
    // What the manager thinks of it now does not make it another one.
    let doubted = Event { doubts: vec![Doubt::Place], ..of(&one, 2) };
    tell(&audit, vec![of(&one, 1), doubted, of(&one, 3), of(&other, 1)]).await;
    let records = records(&audit).await;
    let told = records.iter().filter(|record| record.event.id.is_some()).map(|record| &record.event);
    let told: Vec<_> =
        told.map(|event| (event.actor == one, event.object.version, event.doubts.as_slice())).collect();
    let marked: &[Doubt] = &[Doubt::Id];
    let expected =
        [(true, Some(1), &[][..]), (false, Some(1), &[]), (true, Some(2), marked), (true, Some(3), marked)];
    assert_eq!(told, expected);
    rig.verify(&audit).await.expect("whole");
}

/// A node that reports, and what its losses are counted by.
fn node() -> (Actor, LossSource) {
    let (environment, name) = ("prod".parse().expect("a name"), "web-1".parse().expect("a name"));
    let id = NodeId::random();
    (Actor::Node { environment, name, id }, (id, OpenLogId::random()))
}

#[tokio::test]
async fn losses_are_recorded_by_how_much_they_rise() {
    let rig = Rig::new().await;
    let (one, other) = (node(), node());
    let lost = |of: &(Actor, LossSource), total| Entry {
        event: Event::new(Action::FileLost, Outcome::Failed, of.0.clone()),
        loss: Some((of.1, total)),
    };
    let (audit, _) = rig.open().await;
    let tell = async |audit: &Audit, of: &(Actor, LossSource), totals: &[u64]| {
        for total in totals {
            audit.record(vec![lost(of, *total)], Durability::Process).await.expect("recorded");
        }
    };
    tell(&audit, &one, &[3, 3, 10, 9]).await;
    let (audit, _) = {
        close(&audit, vec![]).await;
        rig.open().await
    };
    tell(&audit, &one, &[10, 12]).await;
    tell(&audit, &other, &[1]).await;
    let counts: Vec<_> = records(&audit).await.iter().filter_map(|record| record.event.count).collect();
    assert_eq!(counts, [3, 7, 2, 1]);
}

#[tokio::test]
async fn another_key_signs_after_a_rotation_and_the_old_one_is_gone() {
    let rig = Rig::new().await;
    let (audit, log) = rig.open().await;
    record(&audit, 2).await;
    audit.rotate_key().await.expect("rotated");
    record(&audit, 2).await;
    close(&audit, vec![]).await;
    let (chain, _) = audit.chain().expect("a chain");
    let keys = log.audit_keys(chain).await.expect("keys");
    assert_eq!(keys.iter().filter(|(_, key)| key.sealed.is_some()).count(), 1);
    assert!(keys[0].1.sealed.is_some(), "the newest");
    assert_eq!(rig.verify(&audit).await.expect("whole").keys.len(), 2);

    // An old key is replaced without anybody asking, and it goes on with the new one.
    let settings = AuditSettings { key_lifetime: Duration::from_millis(1), ..SETTINGS };
    let (audit, _) = rig.open_with(settings).await;
    record(&audit, 1).await;
    poll("a rotation", async || {
        records(&audit).await.iter().filter(|record| record.event.action == Action::AuditRotate).count() > 1
    })
    .await;
    assert_eq!(audit.status().trouble(), None);
}

#[tokio::test]
async fn a_restored_log_begins_a_chain_that_says_what_it_follows() {
    let rig = Rig::new().await;
    let (audit, _) = rig.open().await;
    record(&audit, 4).await;
    let (old, _) = audit.chain().expect("a chain");
    close(&audit, vec![]).await;
    SqliteAudit::end_chains(&rig.file()).await.expect("ended");

    let (audit, _) = rig.open().await;
    let (new, _) = audit.chain().expect("a chain");
    assert_ne!(old, new);
    record(&audit, 1).await;
    let summary = rig.verify(&audit).await.expect("whole");
    let [follows] = summary.follows.as_slice() else { panic!("{summary:?}") };
    let before = verify(rig.verifier(), &export(&audit, Some(old)).await).expect("whole");
    assert_eq!(follows.checkpoint.chain, old);
    assert_eq!((follows.checkpoint.sequence, Some(follows.checkpoint.hash)), (5, before.hash));
    close(&audit, vec![]).await;
    assert_eq!(rig.open().await.0.chain().expect("a chain").0, new, "and it goes on");
}

#[tokio::test]
async fn a_log_that_is_not_this_managers_is_not_gone_on_with() {
    let rig = Rig::new().await;
    let (audit, log) = rig.open().await;
    close(&audit, vec![]).await;
    log.close().await;
    drop(log);
    for file in std::fs::read_dir(rig.directory.path()).expect("files") {
        std::fs::remove_file(file.expect("a file").path()).expect("removed");
    }
    std::fs::File::create(rig.file()).expect("an empty one in its place");
    let (audit, _) = rig.open().await;
    assert!(audit.status().trouble().expect("trouble").contains("not the log of this manager"));
    assert!(audit.record(vec![event(0).into()], Durability::Power).await.is_err());
}

#[tokio::test]
async fn who_follows_hears_what_comes_and_can_verify_it_across_a_rotation() {
    let rig = Rig::new().await;
    let (audit, log) = rig.open().await;
    record(&audit, 2).await;
    let (chain, _) = audit.chain().expect("a chain");
    let extent = Extent { from: 1, limit: None, environment: None, follow: true };
    let heartbeat = Duration::from_millis(5);
    let export = Export::new(log, chain, extent, audit.watch(), heartbeat, CancellationToken::new());
    let mut lines = Box::pin(export.lines());
    let mut verifier = rig.verifier();
    let mut last = 0;
    let mut seen = BTreeSet::new();
    let mut is_rotated = false;
    while last < 400 {
        if last > 2 || seen.contains(&2) {
            record(&audit, 7).await;
        }
        if !is_rotated && last > 200 {
            audit.rotate_key().await.expect("rotated");
            is_rotated = true;
        }
        let chunk = lines.next().await.expect("no end").expect("lines");
        for line in std::str::from_utf8(&chunk).expect("text").lines().filter(|line| !line.is_empty()) {
            verifier.line(line).expect("whole");
        }
        last = verifier.last();
        seen.insert(last);
    }
    let summary = verifier.finish().expect("whole");
    assert!(summary.checkpoints > 0);
    assert_eq!(summary.keys.len(), 2);
}
