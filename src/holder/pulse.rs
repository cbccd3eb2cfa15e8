//! Whether the active worker lives: a process that runs can still hang.

use std::time::{Duration, Instant};

use super::estate::Estate;

/// No worker is given up sooner: a busy machine may not run it for a while.
const LEAST: Duration = Duration::from_millis(300);
/// And none is waited for longer.
const MOST: Duration = Duration::from_secs(1);

/// Nor by fewer looks: a holder that was not run itself must not think that its worker stood still.
const LEAST_LOOKS: u32 = 4;

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
        let stands_still = self.beats.is_old(estate.ledger.beats(), now, patience);
        let mut hangs = false;
        for (last, request) in self.in_hand.iter_mut().zip(estate.in_hand()) {
            hangs |= last.is_old(request, now, patience) && request != 0;
        }
        !stands_still && !hangs
    }
}

/// A value, and since when it is the same.
#[derive(Debug)]
struct Last<T> {
    value: T,
    since: Instant,
    looks: u32,
}

impl<T: PartialEq> Last<T> {
    fn new(value: T) -> Self {
        Self { value, since: Instant::now(), looks: 0 }
    }

    /// Whether it has been the same for longer than this.
    fn is_old(&mut self, value: T, now: Instant, patience: Duration) -> bool {
        if value != self.value {
            *self = Self { value, since: now, looks: 0 };
        }
        self.looks = self.looks.saturating_add(1);
        self.looks >= LEAST_LOOKS && now.saturating_duration_since(self.since) > patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_young() {
        let mut last = Last::new(1);
        let begin = last.since;
        let mut look = |value, millis| {
            last.is_old(value, begin + Duration::from_millis(millis), Duration::from_millis(100))
        };
        assert!((1..=6).all(|count: u64| !look(count, count * 100)));
        assert!([640, 680, 700].into_iter().all(|millis| !look(6, millis)));
        assert!(look(6, 701));
        assert!(!look(7, 800));
    }

    #[test]
    fn who_has_not_looked_cannot_tell() {
        let mut last = Last::new(1);
        let late = last.since + Duration::from_secs(60);
        let looks: Vec<bool> = (0..5).map(|_| last.is_old(1, late, Duration::from_millis(100))).collect();
        assert_eq!(looks, [false, false, false, true, true]);
    }
}
