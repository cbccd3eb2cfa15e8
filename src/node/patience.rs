//! How long to wait before the manager is tried again.
//!
//! Two things are wanted that contradict each other: what was missed in an outage is to be there at once
//! when it is over, and thousands of nodes must not keep a manager down that tries to come back. So the
//! wait depends on what the last attempt met. Nobody: it cost the manager nothing, and may be repeated
//! every second. A manager that refuses, fails or does not answer is left alone, longer and longer.

use std::time::{Duration, Instant};

use super::chance;
use crate::client::ClientError;

/// Waits after an attempt that met nobody grow from this to [`NOBODY_LONGEST`], and are at least half as
/// long.
const NOBODY_FIRST: Duration = Duration::from_millis(100);
const NOBODY_LONGEST: Duration = Duration::from_secs(1);
/// Waits are random between nothing and a bound, which grows from this to [`TROUBLE_LONGEST`] where a
/// manager is in trouble. After a stream that was up it is this.
const TROUBLE_FIRST: Duration = Duration::from_secs(1);
const TROUBLE_LONGEST: Duration = Duration::from_secs(30);
/// The same where it is sealed: it has nothing else to do, and whoever has unlocked it waits for this node.
const SEALED_LONGEST: Duration = Duration::from_secs(10);
/// What a manager may ask for at most.
const RETRY_AFTER_LONGEST: Duration = Duration::from_secs(10 * 60);
/// A stream that broke sooner is no sign of a manager that is well.
const STEADY: Duration = Duration::from_secs(10);

/// What the attempts so far have met.
pub(super) struct Patience {
    /// How many in a row met nobody.
    nobody: u32,
    /// How many in a row met a manager in trouble.
    trouble: u32,
    /// When the last wait was over.
    began: Instant,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { nobody: 0, trouble: 0, began: Instant::now() }
    }

    /// How long to wait after an attempt, or a stream that `was_up`, ended with an error.
    pub(super) fn after(&mut self, error: &ClientError, was_up: bool) -> Duration {
        self.after_at(error, was_up, Instant::now(), chance::fraction())
    }

    fn after_at(&mut self, error: &ClientError, was_up: bool, now: Instant, chance: f64) -> Duration {
        let lived = now.saturating_duration_since(self.began);
        let wait = match error {
            _ if was_up && lived >= STEADY => {
                (self.nobody, self.trouble) = (0, 0);
                TROUBLE_FIRST.mul_f64(chance)
            }
            ClientError::NoConnection { .. } => {
                self.trouble = 0;
                let longest = grown(NOBODY_FIRST, &mut self.nobody, NOBODY_LONGEST);
                longest.mul_f64(0.5 + chance / 2.0)
            }
            ClientError::Busy { retry_after, .. } => {
                self.nobody = 0;
                let spread = grown(TROUBLE_FIRST, &mut self.trouble, TROUBLE_LONGEST);
                (*retry_after).min(RETRY_AFTER_LONGEST) + spread.mul_f64(chance)
            }
            ClientError::Untrusted => {
                self.nobody = 0;
                grown(TROUBLE_FIRST, &mut self.trouble, SEALED_LONGEST).mul_f64(chance)
            }
            ClientError::Unreachable { .. }
            | ClientError::WrongClock { .. }
            | ClientError::Refused(_)
            | ClientError::Malformed { .. } => {
                self.nobody = 0;
                grown(TROUBLE_FIRST, &mut self.trouble, TROUBLE_LONGEST).mul_f64(chance)
            }
        };
        self.began = now + wait;
        wait
    }
}

/// `first`, doubled as often as this was asked before.
fn grown(first: Duration, times: &mut u32, longest: Duration) -> Duration {
    let grown = first.saturating_mul(1_u32.checked_shl(*times).unwrap_or(u32::MAX)).min(longest);
    *times = times.saturating_add(1);
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        patience: Patience,
        now: Instant,
    }

    impl Rig {
        fn new() -> Self {
            let patience = Patience::new();
            Self { now: patience.began, patience }
        }

        /// The wait after something that took so long, in seconds.
        fn after(&mut self, took: u64, error: &ClientError, was_up: bool, chance: f64) -> f64 {
            self.now += Duration::from_secs(took);
            let wait = self.patience.after_at(error, was_up, self.now, chance);
            self.now += wait;
            wait.as_secs_f64()
        }
    }

    fn nobody() -> ClientError {
        ClientError::NoConnection { reason: "refused".into() }
    }

    fn trouble() -> ClientError {
        ClientError::Unreachable { reason: "handshake".into() }
    }

    #[test]
    fn who_meets_nobody_tries_every_second() {
        let mut rig = Rig::new();
        let longest: Vec<_> = (0..6).map(|_| rig.after(0, &nobody(), false, 1.0)).collect();
        assert_eq!(longest, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]);
        assert_eq!(rig.after(0, &nobody(), false, 0.0), 0.5);
        for _ in 0..100 {
            assert!(rig.after(0, &nobody(), false, 1.0) <= 1.0);
        }
    }

    #[test]
    fn a_manager_in_trouble_is_left_alone_longer_and_longer() {
        let mut rig = Rig::new();
        let longest: Vec<_> = (0..7).map(|_| rig.after(0, &trouble(), false, 1.0)).collect();
        assert_eq!(longest, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(rig.after(0, &trouble(), false, 0.0), 0.0, "at any time up to then");
        assert_eq!(rig.after(0, &nobody(), false, 1.0), 0.1);
        assert_eq!(rig.after(0, &trouble(), false, 1.0), 1.0, "nobody is no trouble");
    }

    #[test]
    fn a_sealed_manager_is_asked_more_often() {
        let mut rig = Rig::new();
        let longest: Vec<_> = (0..6).map(|_| rig.after(0, &ClientError::Untrusted, false, 1.0)).collect();
        assert_eq!(longest, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
    }

    #[test]
    fn a_stream_that_was_up_is_tried_again_within_a_second() {
        let mut rig = Rig::new();
        rig.after(0, &trouble(), false, 1.0);
        assert_eq!(rig.after(20, &trouble(), true, 1.0), 1.0);
        assert_eq!(rig.after(20, &trouble(), true, 0.25), 0.25);
        // One that comes and goes is not.
        let longest: Vec<_> = (0..3).map(|_| rig.after(1, &trouble(), true, 1.0)).collect();
        assert_eq!(longest, [1.0, 2.0, 4.0]);
    }

    #[test]
    fn a_manager_that_says_when_to_come_back_is_believed_within_reason() {
        let busy = |seconds| ClientError::Busy {
            refusal: Box::new(trouble()),
            retry_after: Duration::from_secs(seconds),
        };
        let mut rig = Rig::new();
        assert_eq!(rig.after(0, &busy(60), false, 0.0), 60.0);
        assert_eq!(rig.after(0, &busy(60), false, 1.0), 62.0, "not all at once");
        assert_eq!(rig.after(0, &busy(1_000_000), false, 0.0), 600.0);
    }
}
