//! How old the manager's last word is, and whether it could still be heard.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use super::error::FsError;
use crate::host::shared_memory::Words;

/// For how long last known good values are used by default: 12 hours.
pub(crate) const DEFAULT_MAX_STALE: Duration = Duration::from_secs(12 * 60 * 60);

/// When the outage began, in nanoseconds since the machine was started, time asleep included; 0 while
/// there is none. Measures the age: the wall clock may be set.
const BEGAN: usize = 0;
/// When the outage began, in seconds of the wall clock. Shown to people.
const SINCE: usize = 1;

/// Whether the change stream from the manager is up, and if not, since when.
///
/// While it is up, what is cached is current by definition. While it is down, what is cached is last
/// known good for `max_stale` and then no longer served. Shared by the node, which tells, and the
/// file system, which asks on every open: asking takes no lock. In memory that outlives a worker, or
/// else each new worker would give the manager another `max_stale`.
#[derive(Debug)]
pub(crate) struct Freshness {
    outage: Words,
    max_stale: Duration,
    /// Whether the node's certificate has ended. Each worker knows it from the certificate.
    ended: AtomicBool,
}

impl Freshness {
    /// How many words of memory it has.
    pub(crate) const WORDS: usize = 2;

    /// What a memory says, zeroed or left behind by a former worker. Call [`begin`](Self::begin) before
    /// anybody asks.
    ///
    /// # Panics
    /// When there are fewer than [`WORDS`](Self::WORDS).
    pub(crate) fn over(words: Words, max_stale: Duration) -> Self {
        Self { outage: words.part(0..Self::WORDS), max_stale, ended: AtomicBool::new(false) }
    }

    /// This worker begins its work: disconnected as of now, since nobody has said otherwise yet, or for
    /// as long as its predecessor was.
    pub(crate) fn begin(&self) {
        self.begin_at(uptime());
    }

    fn begin_at(&self, now: u64) {
        // Not left by a worker of ours. Believed, it would hold back the end of its age.
        if self.outage[BEGAN].load(Acquire) > now {
            self.connected();
        }
        self.disconnected_at(now, Timestamp::now());
    }

    /// The change stream is up and the manifest that opened it is in place: call it after
    /// [`FileSystem::update`](super::FileSystem::update).
    pub(crate) fn connected(&self) {
        self.outage[BEGAN].store(0, Release);
    }

    /// The change stream is down. Only the first of several calls begins an outage.
    pub(crate) fn disconnected(&self) {
        self.disconnected_at(uptime(), Timestamp::now());
    }

    fn disconnected_at(&self, now: u64, since: Timestamp) {
        if self.outage[BEGAN].load(Acquire) == 0 {
            // First, so that whoever sees the outage sees its time. Of two calls at once either will do.
            self.outage[SINCE].store(since.as_second().cast_unsigned(), Relaxed);
            let _ = self.outage[BEGAN].compare_exchange(0, now.max(1), Release, Relaxed);
        }
    }

    /// Since when values are last known good rather than current.
    pub(crate) fn stale_since(&self) -> Option<Timestamp> {
        if self.outage[BEGAN].load(Acquire) == 0 {
            return None;
        }
        let seconds = self.outage[SINCE].load(Relaxed).cast_signed();
        Some(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// Says whether the node's certificate has ended, and tells whether that is news.
    pub(crate) fn set_certificate_ended(&self, ended: bool) -> bool {
        self.ended.swap(ended, SeqCst) != ended
    }

    /// Whether the node's certificate has ended. Nothing is served then: the manager hears nothing of
    /// this node any more, nor this node that it was revoked.
    pub(crate) fn is_certificate_ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    /// Whether values may still be served.
    ///
    /// # Errors
    /// Why they may not.
    pub(crate) fn check(&self) -> Result<(), FsError> {
        if self.is_certificate_ended() {
            return Err(FsError::CertificateEnded);
        }
        // The clock is read only in an outage.
        match self.outage[BEGAN].load(Acquire) {
            0 => Ok(()),
            began if self.tolerates(began, uptime()) => Ok(()),
            _ => Err(FsError::Stale),
        }
    }

    /// How long values are served in an outage.
    pub(crate) fn max_stale(&self) -> Duration {
        self.max_stale
    }

    fn tolerates(&self, began: u64, now: u64) -> bool {
        Duration::from_nanos(now.saturating_sub(began)) < self.max_stale
    }
}

/// Nanoseconds since the machine was started, which every worker counts alike.
fn uptime() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    fn memory() -> Words {
        Words::private(Freshness::WORDS).expect("memory")
    }

    fn freshness(max_stale: Duration) -> Freshness {
        let freshness = Freshness::over(memory(), max_stale);
        freshness.begin();
        freshness
    }

    #[test]
    fn last_known_good_ends_after_max_stale() {
        let freshness = freshness(Duration::from_secs(60));
        freshness.connected();
        freshness.disconnected_at(5, Timestamp::UNIX_EPOCH);
        let began = freshness.outage[BEGAN].load(Relaxed);
        assert!(freshness.tolerates(began, 5 + MINUTE - 1));
        assert!(!freshness.tolerates(began, 5 + MINUTE));
    }

    #[test]
    fn an_outage_begins_with_its_first_sign_and_ends_at_once() {
        let freshness = freshness(DEFAULT_MAX_STALE);
        assert!(freshness.stale_since().is_some(), "nobody has connected yet");
        freshness.connected();
        assert_eq!(freshness.stale_since(), None);
        freshness.disconnected_at(uptime(), Timestamp::UNIX_EPOCH);
        freshness.disconnected();
        assert_eq!(freshness.stale_since(), Some(Timestamp::UNIX_EPOCH));
        freshness.connected();
        assert!(freshness.stale_since().is_none() && freshness.check().is_ok());
    }

    #[test]
    fn without_tolerance_nothing_is_served_in_an_outage() {
        assert_eq!(freshness(Duration::ZERO).check(), Err(FsError::Stale));
    }

    #[test]
    fn nothing_is_served_without_a_certificate_until_it_is_renewed() {
        let freshness = freshness(DEFAULT_MAX_STALE);
        assert!(!freshness.set_certificate_ended(false), "no news");
        assert!(freshness.set_certificate_ended(true) && !freshness.set_certificate_ended(true));
        freshness.connected();
        assert_eq!(freshness.check(), Err(FsError::CertificateEnded));
        assert!(freshness.set_certificate_ended(false) && freshness.check().is_ok());
    }

    #[test]
    fn an_outage_outlives_the_worker_that_saw_it_begin() {
        let memory = memory();
        let former = Freshness::over(memory.clone(), DEFAULT_MAX_STALE);
        former.begin_at(5);
        former.connected();
        former.disconnected_at(7, Timestamp::UNIX_EPOCH);
        let next = Freshness::over(memory.clone(), DEFAULT_MAX_STALE);
        next.begin_at(9);
        assert_eq!((memory[BEGAN].load(Relaxed), next.stale_since()), (7, Some(Timestamp::UNIX_EPOCH)));
        next.connected();
        let last = Freshness::over(memory.clone(), DEFAULT_MAX_STALE);
        last.begin_at(11);
        assert_eq!(memory[BEGAN].load(Relaxed), 11, "the next one begins disconnected");
    }

    #[test]
    fn what_no_worker_can_have_left_is_not_believed() {
        let memory = memory();
        memory[BEGAN].store(u64::MAX, Relaxed);
        memory[SINCE].store(u64::MAX << 1 >> 1, Relaxed);
        let freshness = Freshness::over(memory.clone(), DEFAULT_MAX_STALE);
        assert_eq!(freshness.stale_since(), Some(Timestamp::UNIX_EPOCH));
        freshness.begin_at(9);
        assert_eq!(memory[BEGAN].load(Relaxed), 9);
    }
}
