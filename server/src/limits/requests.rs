//! How many requests each caller may make: a token bucket for each, by the governor crate.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::config::RequestRate;

/// What who asks for too much at once is told to wait.
const NEVER: Duration = Duration::from_secs(60 * 60);
/// Callers whose bucket is full again are forgotten each time that so many requests were made.
const SWEEP_AFTER: u32 = 10_000;

type Buckets<K, C> = RateLimiter<K, HashMapStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A bucket for each caller. Callers have certificates, so they cannot be made up.
pub(super) struct RequestLimit<K: Hash + Eq + Clone, C: Clock = MonotonicClock> {
    buckets: Buckets<K, C>,
    clock: C,
    requests: AtomicU32,
}

impl<K: Hash + Eq + Clone> RequestLimit<K> {
    pub(super) fn new(rate: RequestRate) -> Self {
        Self::with_clock(rate, MonotonicClock)
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> RequestLimit<K, C> {
    fn with_clock(rate: RequestRate, clock: C) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let buckets = RateLimiter::new(quota, HashMapStateStore::default(), clock.clone());
        Self { buckets, clock, requests: AtomicU32::new(0) }
    }

    /// Counts a request, or how much else it asks for. How long to wait, if it may not be made now.
    pub(super) fn admit(&self, caller: &K, count: NonZeroU32) -> Result<(), Duration> {
        if self.requests.fetch_add(1, Relaxed) % SWEEP_AFTER == SWEEP_AFTER - 1 {
            self.buckets.retain_recent();
            self.buckets.shrink_to_fit();
        }
        match self.buckets.check_key_n(caller, count) {
            Ok(admitted) => admitted.map_err(|until| until.wait_time_from(self.clock.now())),
            // More than there ever is at once, which no wait helps.
            Err(_) => Err(NEVER),
        }
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    fn limit(per_second: u32, burst: u32) -> (RequestLimit<u32, FakeRelativeClock>, FakeRelativeClock) {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        let (rate, clock) = (
            RequestRate { per_second: number(per_second), burst: number(burst) },
            FakeRelativeClock::default(),
        );
        (RequestLimit::with_clock(rate, clock.clone()), clock)
    }

    #[test]
    fn a_flood_is_bounded_and_takes_nothing_from_others() {
        let (limit, clock) = limit(10, 50);
        let admitted = |caller| (0..1000).filter(|_| limit.admit(&caller, ONE).is_ok()).count();
        assert_eq!(admitted(1), 50);
        let wait = limit.admit(&1, ONE).expect_err("too many");
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        assert_eq!(admitted(2), 50);
        clock.advance(Duration::from_secs(2));
        assert_eq!(admitted(1), 20);
        clock.advance(wait);
        assert_eq!(admitted(1), 1, "who waits as long as it was told is let in");
    }

    #[test]
    fn what_is_counted_together_is_admitted_together_or_not_at_all() {
        let (limit, clock) = limit(10, 50);
        let count = |count| NonZeroU32::new(count).expect("not zero");
        assert_eq!(limit.admit(&1, count(45)), Ok(()));
        let wait = limit.admit(&1, count(10)).expect_err("too many");
        assert_eq!(limit.admit(&1, count(5)), Ok(()), "what was refused took nothing");
        clock.advance(wait + Duration::from_millis(500));
        assert_eq!(limit.admit(&1, count(10)), Ok(()));
        assert_eq!(limit.admit(&1, count(51)), Err(NEVER));
    }

    #[test]
    fn who_has_been_quiet_is_forgotten() {
        let (limit, clock) = limit(1000, 1000);
        for caller in 0..SWEEP_AFTER - 1 {
            limit.admit(&caller, ONE).expect("its first");
        }
        clock.advance(Duration::from_secs(10));
        for _ in 0..2 {
            limit.admit(&0, ONE).expect("one now and then");
        }
        assert_eq!(limit.buckets.len(), 1);
    }
}
