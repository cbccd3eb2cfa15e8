use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use secretfs_wire::api::{ApiError, Open};
use secretfs_wire::audit::AuditMode;

use super::*;
use crate::audit::test_auditor::CALLER;
use crate::audit::{Attempt, Auditor, NotAudited, Recorded, Ring};
use crate::fs::test_manifest::target;
use crate::source::ValueRequest;

/// A manager that takes what it is told, unless the test says otherwise.
#[derive(Default)]
struct Told {
    opens: Mutex<Vec<Open>>,
    reports: AtomicUsize,
    away: Mutex<Option<ClientError>>,
    /// The name of a target that it does not take.
    never: Option<&'static str>,
    /// How long it takes.
    takes: Duration,
}

impl OpensSink for Arc<Told> {
    async fn report(&self, report: Arc<OpenReport>) -> Result<(), ClientError> {
        self.reports.fetch_add(1, Relaxed);
        tokio::time::sleep(self.takes).await;
        if let Some(error) = self.away.lock().expect("no panic").clone() {
            return Err(error);
        }
        if report.opens.iter().any(|open| Some(open.target.as_str()) == self.never) {
            let message = "no such thing".to_owned();
            return Err(ClientError::Refused(ApiError { code: ErrorCode::Invalid, message, hint: None }));
        }
        self.opens.lock().expect("no panic").extend(report.opens.iter().cloned());
        Ok(())
    }
}

impl Told {
    fn targets(&self) -> Vec<String> {
        self.opens.lock().expect("no panic").iter().map(|open| open.target.to_string()).collect()
    }
}

struct Rig {
    audit: Arc<Audit>,
    reporting: Arc<Reporting>,
    told: Arc<Told>,
}

impl Rig {
    fn with(told: Told) -> Self {
        let audit = Audit::new(Ring::private(1 << 20).expect("memory"), None);
        audit.begin().expect("it begins");
        Self { audit, reporting: Arc::default(), told: Arc::new(told) }
    }

    fn report(&self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(report_opens(self.audit.clone(), self.reporting.clone(), self.told.clone()))
    }

    fn open(&self, request: u64, name: &str, audit: AuditMode) -> Recorded {
        let file = ValueRequest {
            service: "web".parse().expect("a name"),
            target: name.parse().expect("a name"),
            details: secretfs_wire::manifest::Target { audit, ..target(1, 5) },
        };
        self.audit.of_mount(0).record(Attempt {
            request,
            repeated: false,
            caller: CALLER,
            file: &file,
            failure: None,
            patience: Duration::from_secs(2),
        })
    }

    async fn eventually(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), wait).await.expect(what);
    }
}

fn nobody() -> ClientError {
    ClientError::NoConnection { reason: "nobody is there".to_owned() }
}

async fn required(recorded: Recorded) -> Result<(), NotAudited> {
    match recorded {
        Recorded::Written => panic!("it waits for the manager"),
        Recorded::Pending(recorded) => recorded.await,
    }
}

#[tokio::test]
async fn what_comes_one_by_one_travels_together() {
    // Others are opened before it has answered.
    let rig = Rig::with(Told { takes: Duration::from_millis(5), ..Told::default() });
    let _reports = rig.report();
    let began = tokio::time::Instant::now();
    for request in 1..=150 {
        rig.open(2 * request, "db", AuditMode::Buffered);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let looks = began.elapsed().as_millis() / LOOK.as_millis();
    let reports = rig.told.reports.load(Relaxed) as u128;
    assert!(reports <= looks + 1, "{reports} reports in the time of {looks} looks");
    rig.eventually("all arrive", |rig| rig.told.opens.lock().expect("no panic").len() == 150).await;
}

#[tokio::test]
async fn what_is_opened_arrives_in_batches_and_once() {
    let rig = Rig::with(Told::default());
    for request in 1..=1000 {
        assert!(matches!(rig.open(2 * request, "db", AuditMode::Buffered), Recorded::Written));
    }
    let _reports = rig.report();
    rig.eventually("all arrive", |rig| rig.audit.backlog().buffered == 0).await;
    assert_eq!(rig.told.opens.lock().expect("no panic").len(), 1000);
    let reports = rig.told.reports.load(Relaxed);
    assert!((1000 / REPORT_MAX_OPENS..20).contains(&reports), "{reports} reports");
    let open = rig.told.opens.lock().expect("no panic")[0].clone();
    assert_eq!((open.process.uid, open.process.gid, open.process.pid), (1000, 100, 4711));
    assert_eq!(rig.reporting.reason(), None);
}

#[tokio::test]
async fn what_was_opened_in_an_outage_arrives_after_it() {
    let rig = Rig::with(Told::default());
    *rig.told.away.lock().expect("no panic") = Some(nobody());
    let _reports = rig.report();
    let _ = rig.open(2, "db", AuditMode::Buffered);
    rig.eventually("it is tried", |rig| rig.reporting.reason().is_some()).await;
    assert_eq!(rig.audit.backlog().buffered, 1);
    *rig.told.away.lock().expect("no panic") = None;
    rig.eventually("it arrives", |rig| rig.told.targets() == ["db"]).await;
    rig.eventually("it is over", |rig| rig.reporting.reason().is_none()).await;
}

#[tokio::test]
async fn a_required_record_goes_first_and_is_waited_for() {
    let rig = Rig::with(Told::default());
    for request in 1..=500 {
        let _ = rig.open(2 * request, "db", AuditMode::Buffered);
    }
    let waiting = tokio::spawn(required(rig.open(5000, "key", AuditMode::Required)));
    tokio::task::yield_now().await;
    let _reports = rig.report();
    assert_eq!(waiting.await.expect("no panic"), Ok(()));
    let first = rig.told.targets().into_iter().take(2).collect::<Vec<_>>();
    assert_eq!(first, ["db", "key"], "before all that was there but one");
}

#[tokio::test]
async fn without_the_manager_nothing_is_opened_that_requires_it() {
    let rig = Rig::with(Told::default());
    *rig.told.away.lock().expect("no panic") = Some(nobody());
    let _reports = rig.report();
    let began = tokio::time::Instant::now();
    assert_eq!(required(rig.open(2, "key", AuditMode::Required)).await, Err(NotAudited::Unacknowledged));
    assert!(began.elapsed() <= Duration::from_secs(3));
    *rig.told.away.lock().expect("no panic") = None;
    rig.eventually("both arrive", |rig| rig.told.targets().len() == 2).await;
    let opens = rig.told.opens.lock().expect("no panic").clone();
    assert_eq!(opens[0].failure, None, "it was about to succeed");
    assert_eq!(opens[1].failure.as_deref(), Some(NotAudited::Unacknowledged.to_string().as_str()));
    assert_ne!(opens[0].id, opens[1].id);
}

#[tokio::test]
async fn one_that_the_manager_never_takes_is_lost_alone() {
    let rig = Rig::with(Told { never: Some("bad"), ..Told::default() });
    for request in 1..=100 {
        let name = if request == 37 { "bad" } else { "db" };
        let _ = rig.open(2 * request, name, AuditMode::Buffered);
    }
    let refused = tokio::spawn(required(rig.open(5000, "bad", AuditMode::Required)));
    tokio::task::yield_now().await;
    let _reports = rig.report();
    assert_eq!(
        refused.await.expect("no panic"),
        Err(NotAudited::Unacknowledged),
        "given up is not on record"
    );
    rig.eventually("the others arrive", |rig| rig.told.targets().len() == 99).await;
    assert!(rig.told.targets().iter().all(|target| target == "db"));
    rig.eventually("all are counted", |rig| rig.audit.backlog().lost == 3).await;
}
