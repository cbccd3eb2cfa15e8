//! Whether the active worker lives: a process that runs can still hang.

use std::time::{Duration, Instant};

use super::estate::Estate;

/// No worker is given up sooner: a busy machine may not run it for a while.
const LEAST: Duration = Duration::from_millis(300);
/// And none is waited for longer.
const MOST: Duration = Duration::from_secs(1);

/// What the worker showed last, and since when it shows the same.
#[derive(Debug)]
pub(super) struct Pulse {
    beats: Last<u64>,
    in_hand: Vec<Last<u64>>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { beats: Last::new(0), in_hand: Vec::new() }
    }

    /// Another worker is active from now on.
    pub(super) fn restart(&mut self, estate: &Estate) {
        self.beats = Last::new(estate.ledger.beats());
        self.in_hand = estate.in_hand().into_iter().map(Last::new).collect();
    }

    /// Looks at the worker. False when its runtime stands still, or when it has had one and the same
    /// request in hand, for half of what a reader has to wait.
    pub(super) fn is_felt(&mut self, estate: &Estate, deadline: Duration) -> bool {
        let now = Instant::now();
        let patience = (deadline / 2).clamp(LEAST, MOST);
        let stands_still = self.beats.see(estate.ledger.beats(), now) > patience;
        let mut hangs = false;
        for (last, request) in self.in_hand.iter_mut().zip(estate.in_hand()) {
            hangs |= last.see(request, now) > patience && request != 0;
        }
        !stands_still && !hangs
    }
}

/// A value, and since when it is the same.
#[derive(Debug)]
struct Last<T> {
    value: T,
    since: Instant,
}

impl<T: PartialEq> Last<T> {
    fn new(value: T) -> Self {
        Self { value, since: Instant::now() }
    }

    fn see(&mut self, value: T, now: Instant) -> Duration {
        if value != self.value {
            *self = Self { value, since: now };
        }
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_young() {
        let mut last = Last::new(1);
        let begin = last.since;
        let later = |millis| begin + Duration::from_millis(millis);
        assert_eq!(last.see(1, later(10)), Duration::from_millis(10));
        assert_eq!(last.see(2, later(20)), Duration::ZERO);
        assert_eq!(last.see(2, later(25)), Duration::from_millis(5));
    }
}
