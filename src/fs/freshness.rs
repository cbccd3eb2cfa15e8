//! How old the manager's last word is.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use tokio::time::Instant;

/// For how long last known good values are used by default: 12 hours.
pub(crate) const DEFAULT_MAX_STALE: Duration = Duration::from_secs(12 * 60 * 60);

/// Whether the change stream from the manager is up, and if not, since when.
///
/// While it is up, what is cached is current by definition. While it is down, what is cached is last
/// known good for `max_stale` and then no longer served. Shared by the node, which tells, and the
/// file system, which asks on every open: asking takes no lock.
#[derive(Debug)]
pub(crate) struct Freshness {
    outage: ArcSwapOption<Outage>,
    max_stale: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    /// Measures the age: the wall clock may be set.
    began: Instant,
    /// Shown to people.
    since: Timestamp,
}

impl Freshness {
    /// Begins disconnected, as of now: nobody has said otherwise yet.
    pub(crate) fn new(max_stale: Duration) -> Self {
        let freshness = Self { outage: ArcSwapOption::empty(), max_stale };
        freshness.disconnected();
        freshness
    }

    /// The change stream is up and the manifest that opened it is in place: call it after
    /// [`FileSystem::update`](super::FileSystem::update).
    pub(crate) fn connected(&self) {
        self.outage.store(None);
    }

    /// The change stream is down. Only the first of several calls begins an outage.
    pub(crate) fn disconnected(&self) {
        self.disconnected_at(Instant::now(), Timestamp::now());
    }

    fn disconnected_at(&self, began: Instant, since: Timestamp) {
        let outage = Arc::new(Outage { began, since });
        self.outage.rcu(|known| Some(known.clone().unwrap_or_else(|| outage.clone())));
    }

    /// Since when values are last known good rather than current.
    pub(crate) fn stale_since(&self) -> Option<Timestamp> {
        self.outage.load().as_ref().map(|outage| outage.since)
    }

    /// Whether values may still be served.
    pub(crate) fn is_usable(&self) -> bool {
        // The clock is read only in an outage.
        match &*self.outage.load() {
            None => true,
            Some(outage) => self.tolerates(outage, Instant::now()),
        }
    }

    fn tolerates(&self, outage: &Outage, now: Instant) -> bool {
        now.saturating_duration_since(outage.began) < self.max_stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_known_good_ends_after_max_stale() {
        let freshness = Freshness::new(Duration::from_secs(60));
        freshness.connected();
        let began = Instant::now();
        freshness.disconnected_at(began, Timestamp::UNIX_EPOCH);
        let outage = freshness.outage.load_full().expect("an outage");
        assert!(freshness.tolerates(&outage, began + Duration::from_secs(59)));
        assert!(!freshness.tolerates(&outage, began + Duration::from_secs(60)));
    }

    #[test]
    fn an_outage_begins_with_its_first_sign_and_ends_at_once() {
        let freshness = Freshness::new(DEFAULT_MAX_STALE);
        assert!(freshness.stale_since().is_some(), "nobody has connected yet");
        freshness.connected();
        assert_eq!(freshness.stale_since(), None);
        freshness.disconnected_at(Instant::now(), Timestamp::UNIX_EPOCH);
        freshness.disconnected();
        assert_eq!(freshness.stale_since(), Some(Timestamp::UNIX_EPOCH));
        freshness.connected();
        assert!(freshness.stale_since().is_none() && freshness.is_usable());
    }

    #[test]
    fn without_tolerance_nothing_is_served_in_an_outage() {
        assert!(!Freshness::new(Duration::ZERO).is_usable());
    }
}
