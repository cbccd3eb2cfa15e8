//! What a sealed manager makes of the keys and shares that it is given, one after the other. No input
//! and no output of its own, and the time is given to it.

use std::time::{Duration, Instant};

use super::progress::{Refusal, UnlockProgress};
use super::shares::Share;
use super::slots::SealedRoot;
use super::unlock_key::UnlockKey;
use crate::keys::RootKey;

/// So many wrong keys, or sets of shares, cost no wait.
const FREE_FAILURES: u32 = 3;
/// The first wait; each further failure doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A seal that is about to be opened.
pub(crate) struct Unlocking {
    sealed: SealedRoot,
    /// Of the seal's set, each number once.
    shares: Vec<Share>,
    failures: u32,
    /// Nothing is looked at before.
    closed_until: Option<Instant>,
}

impl Unlocking {
    pub(crate) fn new(sealed: SealedRoot) -> Self {
        Self { sealed, shares: Vec::new(), failures: 0, closed_until: None }
    }

    pub(super) fn sealed(&self) -> &SealedRoot {
        &self.sealed
    }

    /// What people have to give.
    pub(crate) fn means(&self) -> &'static str {
        if self.sealed.share_set().is_some() { "shares" } else { "unlock key" }
    }

    /// How many wrong keys and sets of shares there were.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> UnlockProgress {
        UnlockProgress {
            shares_given: u8::try_from(self.shares.len()).unwrap_or(u8::MAX),
            threshold: self.sealed.share_set().map_or(1, |set| set.threshold),
            is_unlocked: false,
            refusal: None,
            retry_after_seconds: None,
        }
    }

    /// Takes a line with an unlock key or a share; an empty one only asks how far it is. The root key,
    /// once it is open.
    pub(crate) fn give(&mut self, line: &str, now: Instant) -> Result<RootKey, UnlockProgress> {
        if line.trim().is_empty() {
            return Err(self.progress());
        }
        if let Some(left) = self.closed_until.and_then(|until| until.checked_duration_since(now))
            && !left.is_zero()
        {
            return Err(self.refused(Refusal::TooMany, Some(left)));
        }
        if let Some(key) = UnlockKey::from_text(line) {
            return self.sealed.open(&key).ok_or_else(|| self.failed(Refusal::WrongKey, now));
        }
        match Share::from_text(line) {
            Some(share) => self.take(share, now),
            // Not counted as a guess: a guess has its checksum.
            None => Err(self.refused(Refusal::Unreadable, None)),
        }
    }

    fn take(&mut self, share: Share, now: Instant) -> Result<RootKey, UnlockProgress> {
        let Some(set) = self.sealed.share_set().filter(|set| set.has(&share)) else {
            return Err(self.refused(Refusal::OtherSet, None));
        };
        match self.shares.iter().find(|given| given.number() == share.number()) {
            Some(given) if given.is_same(&share) => return Err(self.refused(Refusal::GivenAlready, None)),
            // One of both is wrong, and the right one could never be given any more.
            Some(_) => return Err(self.failed(Refusal::WrongShares, now)),
            None => self.shares.push(share),
        }
        if self.shares.len() < usize::from(set.threshold) {
            return Err(self.progress());
        }
        self.sealed.open_by_shares(&set, &self.shares).ok_or_else(|| self.failed(Refusal::WrongShares, now))
    }

    /// A wrong key or set: nothing of it is kept, and from the third on the next has to wait.
    fn failed(&mut self, refusal: Refusal, now: Instant) -> UnlockProgress {
        if refusal == Refusal::WrongShares {
            self.shares.clear();
        }
        self.failures = self.failures.saturating_add(1);
        let wait = self.failures.checked_sub(FREE_FAILURES).map(|doublings| {
            FIRST_WAIT.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST_WAIT)
        });
        self.closed_until = wait.map(|wait| now + wait);
        self.refused(refusal, wait)
    }

    fn refused(&self, refusal: Refusal, wait: Option<Duration>) -> UnlockProgress {
        // Whole seconds, so that who waits so long is let in.
        let seconds = wait.map(|wait| wait.as_millis().div_ceil(1000));
        let retry_after_seconds = seconds.map(|seconds| u64::try_from(seconds).unwrap_or(u64::MAX));
        UnlockProgress { refusal: Some(refusal), retry_after_seconds, ..self.progress() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Split;
    use super::super::shares::split;
    use super::super::text;
    use super::*;

    struct Rig {
        unlocking: Unlocking,
        now: Instant,
        shares: Vec<String>,
        key: String,
        root: Vec<u8>,
    }

    impl Rig {
        /// Three of five; `key` is what they make.
        fn new() -> Self {
            let root = RootKey::generate().expect("key");
            let key = UnlockKey::generate().expect("key");
            let (set, shares) = split(&key, Split::new(5, 3).expect("a split")).expect("shares");
            let mut sealed = SealedRoot::empty();
            sealed.add_operator(&root, &key, Some(set)).expect("added");
            Self {
                unlocking: Unlocking::new(sealed),
                now: Instant::now(),
                shares: shares.iter().map(|share| share.expose_text().to_string()).collect(),
                key: key.expose_text().to_string(),
                root: root.as_key().expose_secret().to_vec(),
            }
        }

        fn give(&mut self, line: &str) -> UnlockProgress {
            self.unlocking.give(line, self.now).expect_err("still sealed")
        }

        fn opens(&mut self, line: &str) {
            let opened = self.unlocking.give(line, self.now).expect("open");
            assert_eq!(opened.as_key().expose_secret(), self.root);
        }

        /// A share of this set and number that is not one of those that were made.
        fn forged(&self, index: usize) -> String {
            let mut bytes = text::read("sfs1.", &self.shares[index]).expect("a share").to_vec();
            bytes[10] ^= 1;
            text::write("sfs1.", &bytes).to_string()
        }
    }

    fn stranger() -> String {
        UnlockKey::generate().expect("key").expose_text().to_string()
    }

    #[test]
    fn shares_are_counted_and_the_third_opens() {
        let mut rig = Rig::new();
        let [first, second, third] = [4, 0, 2].map(|index| rig.shares[index].clone());
        assert_eq!(rig.give("").shares_given, 0);
        let given = rig.give(&first);
        assert_eq!((given.shares_given, given.threshold, given.refusal), (1, 3, None));
        assert_eq!(rig.give(&first).refusal, Some(Refusal::GivenAlready));
        assert_eq!(rig.give(&second).shares_given, 2);
        assert_eq!(rig.give("").shares_given, 2, "asking is free");
        rig.opens(&third);
    }

    #[test]
    fn the_whole_key_opens_too() {
        let mut rig = Rig::new();
        let key = rig.key.clone();
        rig.opens(&key);
    }

    #[test]
    fn a_typo_and_a_strange_share_cost_nothing() {
        let (mut rig, other) = (Rig::new(), Rig::new());
        let share = rig.shares[0].clone();
        rig.give(&share);
        for typo in text::typos(&rig.shares[1].clone()).chain(text::typos(&stranger())) {
            let answer = rig.give(&typo);
            assert_eq!((answer.refusal, answer.shares_given), (Some(Refusal::Unreadable), 1));
            assert_eq!(answer.retry_after_seconds, None);
        }
        let answer = rig.give(&other.shares[1]);
        assert_eq!((answer.refusal, answer.shares_given), (Some(Refusal::OtherSet), 1));
    }

    #[test]
    fn a_wrong_share_discards_the_set_and_is_not_named() {
        let mut rig = Rig::new();
        let (first, second, wrong) = (rig.shares[0].clone(), rig.shares[1].clone(), rig.forged(2));
        rig.give(&first);
        rig.give(&wrong);
        let answer = rig.give(&second);
        assert_eq!((answer.refusal, answer.shares_given), (Some(Refusal::WrongShares), 0));
        // In place of one that was wrong, the right one is not refused for ever.
        let right = rig.shares[2].clone();
        rig.give(&wrong);
        assert_eq!(rig.give(&right).refusal, Some(Refusal::WrongShares));
        for share in [&first, &second] {
            rig.give(share);
        }
        rig.opens(&right);
    }

    #[test]
    fn wrong_keys_wait_longer_and_longer() {
        let mut rig = Rig::new();
        let mut waits = Vec::new();
        for _ in 0..11 {
            let answer = rig.give(&stranger());
            assert_eq!(answer.refusal, Some(Refusal::WrongKey));
            waits.push(answer.retry_after_seconds.unwrap_or(0));
            rig.now += Duration::from_secs(answer.retry_after_seconds.unwrap_or(0));
        }
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        rig.give(&stranger());
        rig.now += Duration::from_millis(59_001);
        let key = rig.key.clone();
        let early = rig.give(&key);
        assert_eq!((early.refusal, early.retry_after_seconds), (Some(Refusal::TooMany), Some(1)));
        rig.now += Duration::from_secs(1);
        rig.opens(&key);
    }

    #[test]
    fn no_refusal_repeats_what_was_given() {
        let mut rig = Rig::new();
        for line in ["canary".to_owned(), stranger(), rig.forged(1), rig.forged(1)] {
            let answer = rig.give(&line);
            let shown = format!("{answer:?} {}", serde_json::to_string(&answer).expect("JSON"));
            assert!(!shown.contains(&line));
        }
    }
}
