use std::os::fd::AsFd as _;

use secretfs_wire::manifest::Target;

use super::test_auditor::CALLER;
use super::*;
use crate::fs::test_manifest::target;
use crate::source::ValueRequest;
use crate::witness::{Answer, Question};

fn file(name: &str, version: u64, audit: AuditMode) -> ValueRequest {
    ValueRequest {
        service: "web".parse().expect("a name"),
        target: name.parse().expect("a name"),
        details: Target { audit, ..target(version, 5) },
    }
}

fn attempt(file: &ValueRequest, request: u64, repeated: bool) -> Attempt<'_> {
    Attempt { request, repeated, caller: CALLER, file, failure: None, patience: Duration::from_secs(2) }
}

fn worker(memory: &std::os::fd::OwnedFd) -> Arc<Audit> {
    let audit = Audit::new(Ring::map(memory.as_fd()).expect("a ring"), None);
    audit.begin().expect("it begins");
    audit
}

fn numbers(audit: &Audit) -> Vec<u64> {
    let batch = audit.next(REPORT_MAX_OPENS, 0);
    batch.map_or(vec![], |batch| batch.opens().iter().map(|open| open.id.number).collect())
}

#[test]
fn a_request_that_is_sent_to_the_next_worker_is_the_same_event() {
    let memory = Ring::create(1 << 16).expect("memory");
    let db = file("db", 1, AuditMode::Buffered);
    let first = worker(&memory);
    let _ = first.of_mount(0).record(attempt(&db, 2, false));
    let _ = first.of_mount(1).record(attempt(&db, 2, false));
    let before = numbers(&first);
    assert_eq!(before.len(), 2, "two mounts have requests of one number");

    let next = worker(&memory);
    let _ = next.of_mount(0).record(attempt(&db, 2, true));
    assert_eq!(numbers(&next), before, "it is there once");
    // The manager has it, and the request comes once more.
    next.acknowledge(next.next(REPORT_MAX_OPENS, 0).expect("news"));
    let third = worker(&memory);
    let _ = third.of_mount(0).record(attempt(&db, 2, true));
    assert_eq!(numbers(&third), before[..1], "by which the manager knows it");
    // By now there is another version: what the first worker wrote is not what was opened.
    let rotated = file("db", 2, AuditMode::Buffered);
    let _ = third.of_mount(0).record(attempt(&rotated, 2, true));
    let versions: Vec<_> =
        third.next(REPORT_MAX_OPENS, 0).expect("news").opens().iter().map(|open| open.version_id).collect();
    assert_eq!(versions, [db.details.version_id, rotated.details.version_id]);
}

#[tokio::test]
async fn a_required_one_of_a_killed_worker_is_sent_again_under_its_number() {
    let memory = Ring::create(1 << 16).expect("memory");
    let key = file("key", 1, AuditMode::Required);
    let first = worker(&memory);
    let Recorded::Pending(recorded) = first.of_mount(0).record(attempt(&key, 2, false)) else {
        panic!("it waits")
    };
    let waiting = tokio::spawn(recorded);
    while first.lock_urgent().is_empty() {
        tokio::task::yield_now().await;
    }
    let sent = first.next(REPORT_MAX_OPENS, 0).expect("news");
    assert!(sent.report.durable);
    // Killed, whether or not the manager got it.
    waiting.abort();

    let next = worker(&memory);
    let Recorded::Pending(recorded) = next.of_mount(0).record(attempt(&key, 2, true)) else {
        panic!("it waits")
    };
    let waiting = tokio::spawn(recorded);
    while next.lock_urgent().is_empty() {
        tokio::task::yield_now().await;
    }
    let again = next.next(REPORT_MAX_OPENS, 0).expect("news");
    assert_eq!(again.report, sent.report);
    next.acknowledge(again);
    assert_eq!(waiting.await.expect("no panic"), Ok(()));
    assert!(next.next(REPORT_MAX_OPENS, 0).is_none());
}

/// Two programs that open such a file without a pause: whenever the manager is asked to take the record of
/// one, the other one waits already.
#[tokio::test]
async fn those_that_somebody_waits_for_do_not_keep_the_others_back() {
    let audit = Audit::new(Ring::private(1 << 20).expect("memory"), None);
    audit.begin().expect("it begins");
    let (db, key) = (file("db", 1, AuditMode::Buffered), file("key", 1, AuditMode::Required));
    let auditor = audit.of_mount(0);
    for request in 1..=300 {
        let _ = auditor.record(attempt(&db, 2 * request, false));
    }
    let open = |request: u64| match auditor.record(attempt(&key, 2 * request, false)) {
        Recorded::Written => panic!("it waits"),
        Recorded::Pending(recorded) => tokio::spawn(recorded),
    };
    let until_waiting = async |count| {
        while audit.lock_urgent().len() < count {
            tokio::task::yield_now().await;
        }
    };
    let mut waiting = open(1000);
    until_waiting(1).await;
    let (mut told, mut rounds) = (0, 0);
    while told < 300 && rounds < 10 {
        rounds += 1;
        let batch = audit.next(REPORT_MAX_OPENS, 0).expect("news");
        let next = open(1000 + rounds);
        until_waiting(2).await;
        told += batch.opens().iter().filter(|open| open.target.as_str() == "db").count();
        audit.acknowledge(batch);
        assert_eq!(waiting.await.expect("no panic"), Ok(()), "who waits is in each report");
        waiting = next;
    }
    assert_eq!(told, 300);
    assert_eq!(audit.backlog().buffered, 1, "and their room is free");
}

#[test]
fn what_is_lost_is_told_as_a_total() {
    let audit = Audit::new(Ring::private(1).expect("memory"), None);
    audit.begin().expect("it begins");
    let (auditor, db) = (audit.of_mount(0), file("db", 1, AuditMode::Buffered));
    let most: u64 = 2000;
    for request in 1..=most {
        assert!(matches!(auditor.record(attempt(&db, 2 * request, false)), Recorded::Written));
    }
    let Backlog { buffered, lost, .. } = audit.backlog();
    assert_eq!(buffered + lost, most);
    assert!(lost > 0);
    let told = audit.next(1, 0).expect("news").report.lost.clone().expect("a loss");
    assert_eq!((told.log, told.total), (audit.ring.log(), lost));
    assert_eq!(audit.next(1, lost).expect("news").report.lost.clone(), None, "the manager knows");
}

#[test]
fn a_report_is_as_small_as_managers_take() {
    let audit = Audit::new(Ring::private(1 << 22).expect("memory"), None);
    let long = "a".repeat(190);
    let file = file(&long, 1, AuditMode::Buffered);
    let auditor = audit.of_mount(0);
    for request in 1..=300 {
        let failure = Some("\u{1}".repeat(500));
        let _ = auditor.record(Attempt { failure, ..attempt(&file, 2 * request, false) });
    }
    let mut count = 0;
    while let Some(batch) = audit.next(usize::MAX, 0) {
        assert!(serde_json::to_vec(batch.report.as_ref()).expect("JSON").len() <= 1 << 20);
        assert!(batch.opens().len() <= REPORT_MAX_OPENS);
        count += batch.opens().len();
        audit.acknowledge(batch);
    }
    assert_eq!(count, 300);
}

/// What programs offer in a second on a machine that is faster than this one, from several threads as the
/// kernel's and those of the runtime are.
#[test]
fn who_opens_is_never_blocked_and_memory_stays_what_it_is() {
    const OFFERED: u64 = 50_000;
    let audit = Audit::new(Ring::private(1 << 20).expect("memory"), None);
    let db = file("db", 1, AuditMode::Buffered);
    let slowest = std::thread::scope(|scope| {
        let offer = |thread: u64| {
            let (audit, db) = (&audit, &db);
            move || {
                let auditor = audit.of_mount(thread as usize);
                let offers = (1..=OFFERED / 4).map(|request| {
                    let began = Instant::now();
                    assert!(matches!(auditor.record(attempt(db, 2 * request, false)), Recorded::Written));
                    began.elapsed()
                });
                offers.max().unwrap_or_default()
            }
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(offer(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).max().unwrap_or_default()
    });
    // Nobody reads at all: it is full from then on.
    let Backlog { buffered, lost, .. } = audit.backlog();
    assert_eq!(buffered + lost, OFFERED);
    assert!(lost > OFFERED / 2, "the rest had no room");
    // That is the scheduler's, of a machine that does much else.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}

/// Whoever keeps the witness busy must not get by unseen.
#[tokio::test]
async fn who_is_not_found_out_in_time_gets_nothing_that_requires_it() {
    let (asking, _nobody_reads) = Channel::pair().expect("a channel");
    let audit = Audit::new(Ring::private(1 << 20).expect("memory"), Some(asking));
    let (auditor, key) = (audit.of_mount(0), file("key", 1, AuditMode::Required));
    let patience = Duration::from_millis(300);
    let began = Instant::now();
    let Recorded::Pending(recorded) = auditor.record(Attempt { patience, ..attempt(&key, 2, false) }) else {
        panic!("it waits")
    };
    assert_eq!(recorded.await, Err(NotAudited::Unidentified));
    assert!(began.elapsed() >= patience, "as long as there was time");
    let batch = audit.next(REPORT_MAX_OPENS, 0).expect("news");
    let [open] = batch.opens() else { panic!("{batch:?}") };
    assert_eq!(open.process.unseen, Some(Unseen::TooLate));
    assert_eq!(open.failure.as_deref(), Some(NotAudited::Unidentified.to_string().as_str()));
}

/// A witness that is killed takes one along, and another one is started.
#[tokio::test]
async fn a_question_that_is_lost_is_asked_again() {
    let (asking, answering) = Channel::pair().expect("a channel");
    let audit = Audit::new(Ring::private(1 << 20).expect("memory"), Some(asking));
    audit.begin().expect("it begins");
    let witness = std::thread::spawn(move || {
        let questions =
            [(); 2].map(|()| answering.receive().expect("a question").read().expect("a question"));
        let [first, Question { id, pid }] = questions;
        assert_eq!(first, Question { id, pid });
        answering.send(&Answer { id, pid, identity: None }, &[]).expect("sent");
    });
    let (auditor, key) = (audit.of_mount(0), file("key", 1, AuditMode::Required));
    let Recorded::Pending(recorded) = auditor.record(attempt(&key, 2, false)) else { panic!("it waits") };
    let recorded = tokio::spawn(recorded);
    while audit.lock_urgent().is_empty() {
        tokio::task::yield_now().await;
    }
    let batch = audit.next(REPORT_MAX_OPENS, 0).expect("news");
    assert_eq!(batch.opens()[0].process.unseen, Some(Unseen::NotVisible));
    audit.acknowledge(batch);
    assert_eq!(recorded.await.expect("no panic"), Ok(()));
    witness.join().expect("no panic");
}
