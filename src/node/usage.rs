//! Tells the manager which versions this node serves and which old ones its open files hold, so that
//! an operator knows when an old value can be retired where it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use secretfs_wire::VersionId;
use secretfs_wire::api::{HeldVersion, REPORT_MAX_VERSIONS, UsageReport};
use secretfs_wire::manifest::Manifest;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::chance;
use super::ingredients::Ingredients;
use super::presence::Node;
use crate::client::NodeClient;

/// A change is reported this much later at most, at random: a rotation reaches all nodes at once.
const SPREAD: Duration = Duration::from_millis(500);
/// How soon it is seen that an old version's last file is closed, and how soon a report that failed is
/// tried again, at first.
const TICK: Duration = Duration::from_secs(1);
/// How long a report that keeps failing waits at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often all is reported, changed or not: whatever went wrong is right again by then.
const WHOLE: Duration = Duration::from_secs(5 * 60);

/// What there is to report, from those who know it.
pub(super) struct Usage {
    /// The last manifest that the kernel was told of in full.
    told: watch::Sender<Option<Arc<Manifest>>>,
    /// What the renderings of templates are made from.
    ingredients: Mutex<Ingredients>,
    /// How often the manager was lost, and with it what it had been told.
    outages: AtomicU64,
}

/// To be dropped when the kernel has been told of a manifest.
#[derive(Clone)]
pub(super) struct Told(#[allow(dead_code, reason = "it matters when it is dropped")] Arc<Announced>);

struct Announced {
    manifest: Arc<Manifest>,
    told: watch::Sender<Option<Arc<Manifest>>>,
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.told.send_replace(Some(self.manifest.clone()));
    }
}

impl Usage {
    pub(super) fn new() -> Self {
        Self { told: watch::Sender::new(None), ingredients: Mutex::default(), outages: AtomicU64::new(0) }
    }

    /// Something to drop when the kernel has been told of all that a manifest changed.
    pub(super) fn announcement(&self, manifest: &Arc<Manifest>) -> Told {
        self.ingredients().learn(manifest);
        Told(Arc::new(Announced { manifest: manifest.clone(), told: self.told.clone() }))
    }

    fn ingredients(&self) -> MutexGuard<'_, Ingredients> {
        // Not left half done by a panic, and a panic ends the process anyway.
        self.ingredients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manager is not there: the next report says everything.
    pub(super) fn disconnected(&self) {
        self.outages.fetch_add(1, Relaxed);
    }
}

/// Reports for ever, while the manager is there.
pub(super) async fn report_usage(node: Arc<Node>, client: Arc<ArcSwap<NodeClient>>) {
    let mut told = node.usage.told.subscribe();
    let mut reporter = Reporter::new(Instant::now());
    loop {
        // Whichever comes first. The sender lives as long as the node.
        let _ = timeout(reporter.wait(Instant::now()), told.changed()).await;
        sleep(SPREAD.mul_f64(chance::fraction())).await;
        let outages = node.usage.outages.load(Relaxed);
        let manifest = told.borrow_and_update().clone();
        let Some(manifest) = manifest.filter(|_| node.is_connected()) else {
            reporter.forget();
            continue;
        };
        // In this order: what is served is shown, so that nothing older is opened any more, and all that
        // is older is among what is held.
        let served = served(&manifest);
        let held = node.usage.ingredients().in_place_of_renderings(node.held_versions(), &manifest);
        let now = InUse { served, held, outages };
        let mut outcome = Ok(());
        for report in reporter.reports(&now, Instant::now()) {
            outcome = client.load_full().report_usage(&report).await;
            if outcome.is_err() {
                break;
            }
        }
        match outcome {
            Ok(()) => reporter.acknowledged(now),
            Err(error) => {
                tracing::debug!(%error, "what is in use is not reported yet");
                reporter.failed();
            }
        }
    }
}

fn served(manifest: &Manifest) -> BTreeSet<VersionId> {
    let attached = manifest.targets().filter(|target| target.attached().is_some());
    attached.map(|target| target.version_id).collect()
}

/// All that can be reported.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct InUse {
    served: BTreeSet<VersionId>,
    /// In how many open files each version is that is not current.
    held: BTreeMap<VersionId, u64>,
    outages: u64,
}

/// What the manager knows, and when it is to be told more.
struct Reporter {
    /// Nothing if it cannot be said what the manager has got.
    known: Option<InUse>,
    failures: u32,
    whole_since: Instant,
}

impl Reporter {
    fn new(now: Instant) -> Self {
        Self { known: None, failures: 0, whole_since: now }
    }

    /// How long nothing has to be looked at, unless there is another manifest.
    fn wait(&self, now: Instant) -> Duration {
        match &self.known {
            // Nothing is opened on an old version, so there is none until there is another manifest.
            Some(known) if known.held.is_empty() => WHOLE.saturating_sub(now - self.whole_since),
            Some(_) => TICK,
            None => TICK.saturating_mul(1 << self.failures.min(6)).min(LONGEST_WAIT),
        }
    }

    /// What the manager is to be told: nothing, or what has changed, or everything, each part bounded.
    fn reports(&mut self, now: &InUse, at: Instant) -> Vec<UsageReport> {
        let known = self.known.take().filter(|known| known.outages == now.outages);
        let known = known.filter(|_| at - self.whole_since < WHOLE);
        let whole = known.is_none();
        if whole {
            self.whole_since = at;
        }
        let known = known.unwrap_or_default();
        let closed = known.held.keys().filter(|id| !now.held.contains_key(id)).map(|id| (*id, 0));
        let held = now.held.iter().filter(|(id, handles)| known.held.get(id) != Some(handles));
        let held = closed.chain(held.map(|(id, handles)| (*id, *handles)));
        let said = held.map(|(version_id, handles)| Saying::Held(HeldVersion { version_id, handles }));
        // What is held comes first: when the manager knows what is served, it knows all of it.
        let said = said
            .chain(known.served.difference(&now.served).map(|id| Saying::Gone(*id)))
            .chain(now.served.difference(&known.served).map(|id| Saying::Served(*id)));
        let said: Vec<_> = said.collect();
        let mut reports: Vec<_> = said.chunks(REPORT_MAX_VERSIONS).map(report).collect();
        if whole {
            if reports.is_empty() {
                reports.push(UsageReport::default());
            }
            reports[0].whole = true;
        }
        reports
    }

    fn acknowledged(&mut self, now: InUse) {
        self.known = Some(now);
        self.failures = 0;
    }

    /// Nobody can say what arrived.
    fn failed(&mut self) {
        self.known = None;
        self.failures += 1;
    }

    fn forget(&mut self) {
        self.known = None;
        self.failures = 0;
    }
}

enum Saying {
    Held(HeldVersion),
    Gone(VersionId),
    Served(VersionId),
}

fn report(said: &[Saying]) -> UsageReport {
    let mut report = UsageReport::default();
    for saying in said {
        match saying {
            Saying::Held(held) => report.held.push(held.clone()),
            Saying::Gone(version) => report.gone.push(*version),
            Saying::Served(version) => report.served.push(*version),
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> VersionId {
        VersionId::from_u64(number).expect("an id")
    }

    fn in_use(served: impl IntoIterator<Item = u64>, held: &[(u64, u64)]) -> InUse {
        let held = held.iter().map(|(version, handles)| (id(*version), *handles)).collect();
        InUse { served: served.into_iter().map(id).collect(), held, outages: 0 }
    }

    fn held(version: u64, handles: u64) -> HeldVersion {
        HeldVersion { version_id: id(version), handles }
    }

    #[test]
    fn the_first_report_says_everything_and_the_next_what_changed() {
        let begin = Instant::now();
        let mut reporter = Reporter::new(begin);
        let mut report = |now: &InUse| {
            let reports = reporter.reports(now, begin);
            reporter.acknowledged(now.clone());
            reports
        };
        let first = in_use([1, 2], &[(9, 3)]);
        let all =
            UsageReport { whole: true, held: vec![held(9, 3)], gone: vec![], served: vec![id(1), id(2)] };
        assert_eq!(report(&first), std::slice::from_ref(&all));
        assert_eq!(report(&first), [], "no news");
        let changed = UsageReport {
            whole: false,
            held: vec![held(9, 0), held(1, 2)],
            gone: vec![id(1)],
            served: vec![id(3)],
        };
        assert_eq!(report(&in_use([2, 3], &[(1, 2)])), [changed]);
        let again = InUse { outages: 1, ..first };
        assert_eq!(report(&again), [all], "another stream");
        let nothing = UsageReport { whole: true, ..UsageReport::default() };
        assert_eq!(report(&InUse { outages: 2, ..InUse::default() }), [nothing]);
    }

    #[test]
    fn after_a_failure_and_now_and_then_everything_is_said() {
        let begin = Instant::now();
        let mut reporter = Reporter::new(begin);
        let now = in_use([1], &[]);
        assert!(reporter.reports(&now, begin)[0].whole);
        reporter.failed();
        assert!(reporter.reports(&now, begin)[0].whole);
        reporter.acknowledged(now.clone());
        assert!(reporter.reports(&now, begin + WHOLE / 2).is_empty());
        reporter.acknowledged(now.clone());
        assert!(reporter.reports(&now, begin + WHOLE)[0].whole);
    }

    #[test]
    fn a_report_is_bounded_and_what_is_held_comes_first() {
        let begin = Instant::now();
        let versions = REPORT_MAX_VERSIONS as u64;
        let now = in_use(1..=2 * versions, &[(versions * 3, 1)]);
        let reports = Reporter::new(begin).reports(&now, begin);
        let sizes: Vec<_> = reports.iter().map(UsageReport::versions).collect();
        assert_eq!(sizes, [REPORT_MAX_VERSIONS, REPORT_MAX_VERSIONS, 1]);
        assert_eq!(reports[0].held.len(), 1);
        assert_eq!(reports.iter().map(|report| report.whole).collect::<Vec<_>>(), [true, false, false]);
        let largest = serde_json::to_vec(&UsageReport {
            held: vec![held(i64::MAX as u64, 1 << 20); REPORT_MAX_VERSIONS],
            ..UsageReport::default()
        });
        assert!(largest.expect("JSON").len() <= 64 << 10, "the manager takes no larger body");
    }

    #[test]
    fn nothing_is_looked_at_without_need() {
        let begin = Instant::now();
        let mut reporter = Reporter::new(begin);
        assert_eq!(reporter.wait(begin), TICK);
        reporter.acknowledged(in_use([1], &[]));
        assert_eq!(reporter.wait(begin), WHOLE);
        reporter.acknowledged(in_use([1], &[(2, 1)]));
        assert_eq!(reporter.wait(begin), TICK);
        for _ in 0..20 {
            reporter.failed();
        }
        assert_eq!(reporter.wait(begin), LONGEST_WAIT);
    }
}
