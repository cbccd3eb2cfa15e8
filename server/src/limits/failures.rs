//! Who fails again and again waits, longer each time.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::{Limit, network};

/// How many addresses are remembered; those that failed longest ago make room.
const MOST: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// The first wait; each further failure doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// An address that has not failed for so long begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);

/// Failures by address. Nothing but time takes them back: behind one address there may be many, and who
/// has a good token must not buy tries for others with it.
pub(super) struct Failures {
    /// So many cost no wait.
    free: u32,
    longest_wait: Duration,
    /// Never held across an await.
    addresses: Mutex<LruCache<(Limit, IpAddr), Failed>>,
}

struct Failed {
    times: u32,
    last: Instant,
    /// Nothing is looked at before.
    closed_until: Instant,
}

impl Failures {
    pub(super) fn new(free: u32, longest_wait: Duration) -> Self {
        Self { free, longest_wait, addresses: Mutex::new(LruCache::new(MOST)) }
    }

    /// How long an address has to wait, if it must.
    pub(super) fn wait(&self, limit: Limit, address: IpAddr, now: Instant) -> Option<Duration> {
        let mut addresses = self.lock();
        let failed = addresses.peek_mut(&(limit, network(address)))?;
        let left = failed.closed_until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Counts a failure.
    pub(super) fn failed(&self, limit: Limit, address: IpAddr, now: Instant) {
        let mut addresses = self.lock();
        let begin = || Failed { times: 0, last: now, closed_until: now };
        let failed = addresses.get_or_insert_mut((limit, network(address)), begin);
        if now.saturating_duration_since(failed.last) > FORGOTTEN_AFTER {
            *failed = begin();
        }
        failed.times = failed.times.saturating_add(1);
        failed.last = now;
        if let Some(doublings) = failed.times.checked_sub(self.free.saturating_add(1)) {
            let wait = FIRST_WAIT.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
            failed.closed_until = now + wait.min(self.longest_wait);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<(Limit, IpAddr), Failed>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn waits_grow_to_a_bound_and_concern_nobody_else() {
        let (failures, here) = (Failures::new(5, seconds(60)), address("192.0.2.1"));
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..14 {
            failures.failed(Limit::Enrolment, here, now);
            let wait = failures.wait(Limit::Enrolment, here, now).unwrap_or_default();
            waits.push(wait.as_secs());
            assert_eq!(failures.wait(Limit::Enrolment, address("192.0.2.2"), now), None);
            assert_eq!(failures.wait(Limit::Authentication, here, now), None);
            now += wait;
            assert_eq!(failures.wait(Limit::Enrolment, here, now), None, "who waits is let in");
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let (failures, here, began) = (Failures::new(1, seconds(60)), address("192.0.2.1"), Instant::now());
        failures.failed(Limit::Enrolment, here, began);
        let later = began + FORGOTTEN_AFTER + seconds(1);
        failures.failed(Limit::Enrolment, here, later);
        assert_eq!(failures.wait(Limit::Enrolment, here, later), None);
        failures.failed(Limit::Enrolment, here, later);
        assert_eq!(failures.wait(Limit::Enrolment, here, later), Some(seconds(1)));
    }

    #[test]
    fn memory_is_bounded() {
        let (failures, now) = (Failures::new(0, seconds(60)), Instant::now());
        for number in 0..20_000_u32 {
            failures.failed(Limit::Enrolment, IpAddr::V4(number.into()), now);
        }
        assert_eq!(failures.lock().len(), MOST.get());
        assert_eq!(failures.wait(Limit::Enrolment, address("0.0.0.0"), now), None, "the first went first");
        assert!(failures.wait(Limit::Enrolment, IpAddr::V4(19_999.into()), now).is_some());
    }
}
