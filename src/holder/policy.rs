//! When a worker may serve after others have crashed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Crashes that are older say nothing any more.
const MEMORY: Duration = Duration::from_secs(30);
/// So many crashes in that time cost no wait: a request that crashes workers is answered at its
/// third try, and so two of them end by themselves.
const FREE: usize = 4;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Counts crashes, by which is meant what a worker did to itself. A worker that is killed from
/// outside is replaced at once, however often.
#[derive(Debug, Default)]
pub(super) struct CrashPolicy {
    crashes: VecDeque<Instant>,
    not_before: Option<Instant>,
}

impl CrashPolicy {
    /// A serving worker has crashed.
    pub(super) fn crashed(&mut self, now: Instant) {
        self.crashes.retain(|at| now.saturating_duration_since(*at) < MEMORY);
        self.crashes.push_back(now);
        let beyond = self.crashes.len().saturating_sub(FREE);
        if beyond > 0 {
            let doubled = FIRST_WAIT.saturating_mul(1 << (beyond - 1).min(8));
            self.not_before = Some(now + doubled.min(LONGEST_WAIT));
        }
    }

    /// How long the next worker has to wait before it may serve; zero for at once.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}

/// How long to wait before a process is started after the last one did not become ready: doubled
/// each time up to ten seconds, and over as soon as one is ready.
#[derive(Debug, Default)]
pub(super) struct StartPolicy {
    failures: u32,
}

impl StartPolicy {
    /// A worker has ended before it was ready.
    pub(super) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(50).saturating_mul(1 << self.failures.min(10)).min(Duration::from_secs(10))
    }

    /// A worker is ready.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_crashes_cost_no_wait_and_a_loop_costs_more_and_more() {
        let mut policy = CrashPolicy::default();
        let mut now = Instant::now();
        for _ in 0..FREE {
            policy.crashed(now);
            assert_eq!(policy.wait(now), Duration::ZERO);
        }
        let mut waits = Vec::new();
        for _ in 0..8 {
            policy.crashed(now);
            waits.push(policy.wait(now));
            now += Duration::from_millis(1);
        }
        assert_eq!(waits[..3], [1, 2, 4].map(Duration::from_secs));
        assert_eq!(waits[7], LONGEST_WAIT);
        assert_eq!(policy.wait(now + LONGEST_WAIT), Duration::ZERO);
    }

    #[test]
    fn old_crashes_are_forgotten() {
        let mut policy = CrashPolicy::default();
        let begin = Instant::now();
        for _ in 0..FREE + 1 {
            policy.crashed(begin);
        }
        policy.crashed(begin + MEMORY);
        assert_eq!(policy.wait(begin + MEMORY), Duration::ZERO);
    }

    #[test]
    fn starts_are_tried_ever_more_slowly() {
        let mut policy = StartPolicy::default();
        assert_eq!(policy.failed(), Duration::from_millis(100));
        assert_eq!(policy.failed(), Duration::from_millis(200));
        assert_eq!((0..20).map(|_| policy.failed()).max(), Some(Duration::from_secs(10)));
        policy.succeeded();
        assert_eq!(policy.failed(), Duration::from_millis(100));
    }
}
