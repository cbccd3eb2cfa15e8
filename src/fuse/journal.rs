//! Which requests a worker has in hand, so that the one that kills workers can be told from those
//! that were only there.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::fs::RequestId;
use crate::host::shared_memory::Words;

/// A request that has killed this many workers is answered EIO instead of being tried again.
const TRIES: u64 = 2;
/// Requests that wait for the manager, as far as there is room; more are served all the same.
const WAITING: usize = 256;
const SUSPECTS: usize = 64;

/// The requests of one mount that a worker has begun and not answered.
///
/// One thread of a worker handles requests, so at most one is in hand; those that wait for the
/// manager are in tasks. After a crash the holder makes a suspect of the one in hand, or, where there
/// is none, of all that waited. The next worker gets them again and looks here first.
#[derive(Debug, Clone)]
pub(crate) struct Journal(Words);

/// What a death tells of the requests that the dead worker had in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It crashed or hung: one of them may be the reason.
    Requests,
    /// It was killed from outside: none of them is.
    Nobody,
}

/// A request in hand. Dropped when it is answered.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    journal: &'a Journal,
    request: u64,
    suspect: bool,
}

/// A request in a task. Dropped when it is answered.
#[derive(Debug)]
pub(crate) struct WaitingEntry {
    journal: Journal,
    place: Option<usize>,
    request: u64,
    suspect: bool,
}

impl Journal {
    /// How many words one has.
    pub(crate) const WORDS: usize = 1 + WAITING + 2 * SUSPECTS;

    /// A journal in `words`, which may have a former worker's entries.
    pub(crate) fn over(words: Words) -> Self {
        Self(words)
    }

    /// A journal that no other process sees.
    #[cfg(test)]
    pub(crate) fn private() -> Self {
        Self(Words::private(Self::WORDS).expect("memory"))
    }

    /// Takes a request in hand, unless it has killed too many workers.
    pub(crate) fn enter(&self, request: RequestId) -> Option<Entry<'_>> {
        let RequestId { number, repeated } = request;
        // Only a request that was sent again can be a suspect, so all others do not look.
        let suspect = repeated && self.tries(number) > 0;
        if suspect && self.tries(number) >= TRIES {
            self.acquit(number);
            return None;
        }
        self.in_hand().store(number, Release);
        Some(Entry { journal: self, request: number, suspect })
    }

    /// After a death, by the holder: who is suspected, and nothing is in hand any more. Gives back the
    /// numbers of the requests that were not answered.
    pub(crate) fn settle(&self, blame: Blame) -> Vec<u64> {
        let in_hand = self.in_hand().swap(0, Relaxed);
        let mut unanswered: Vec<u64> = self.waiting().iter().map(|word| word.swap(0, Relaxed)).collect();
        unanswered.retain(|request| *request != 0);
        if blame == Blame::Requests {
            let suspected = if in_hand == 0 { unanswered.as_slice() } else { &[in_hand] };
            suspected.iter().for_each(|request| self.suspect(*request));
        }
        unanswered.extend((in_hand != 0).then_some(in_hand));
        unanswered
    }

    /// The request that is in hand now, or 0. The same one for long is a worker that hangs.
    pub(crate) fn now(&self) -> u64 {
        self.in_hand().load(Relaxed)
    }

    fn tries(&self, request: u64) -> u64 {
        self.suspects()
            .find(|[of, _]| of.load(Acquire) == request)
            .map_or(0, |[_, tries]| tries.load(Relaxed))
    }

    fn suspect(&self, request: u64) {
        let known = self.suspects().find(|[of, _]| of.load(Relaxed) == request);
        // Without room the oldest evidence is as good to lose as any: it costs one more crash.
        let row = known.or_else(|| self.suspects().find(|[of, _]| of.load(Relaxed) == 0));
        let Some([of, tries]) = row.or_else(|| self.suspects().next()) else { return };
        let before = if of.load(Relaxed) == request { tries.load(Relaxed) } else { 0 };
        tries.store(before + 1, Relaxed);
        of.store(request, Release);
    }

    fn acquit(&self, request: u64) {
        if let Some([of, _]) = self.suspects().find(|[of, _]| of.load(Relaxed) == request) {
            of.store(0, Release);
        }
    }

    fn in_hand(&self) -> &AtomicU64 {
        &self.0[0]
    }

    fn waiting(&self) -> &[AtomicU64] {
        &self.0[1..=WAITING]
    }

    fn suspects(&self) -> impl Iterator<Item = &[AtomicU64; 2]> {
        self.0[1 + WAITING..Self::WORDS].as_chunks().0.iter()
    }
}

impl Entry<'_> {
    /// Goes on with the request in a task; the thread is free for the next one.
    pub(crate) fn into_waiting(self) -> WaitingEntry {
        let take = |word: &AtomicU64| word.compare_exchange(0, self.request, Release, Relaxed).is_ok();
        let place = self.journal.waiting().iter().position(take);
        // The suspicion, if there is one, goes along.
        let suspect = self.suspect;
        let (journal, request) = (self.journal.clone(), self.request);
        journal.in_hand().store(0, Release);
        std::mem::forget(self);
        WaitingEntry { journal, place, request, suspect }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.journal.in_hand().store(0, Release);
        if self.suspect {
            self.journal.acquit(self.request);
        }
    }
}

impl Drop for WaitingEntry {
    fn drop(&mut self) {
        if let Some(word) = self.place.and_then(|place| self.journal.waiting().get(place)) {
            word.store(0, Release);
        }
        if self.suspect {
            self.journal.acquit(self.request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: u64, repeated: bool) -> RequestId {
        RequestId { number, repeated }
    }

    /// A worker dies with these in hand.
    fn die(journal: &Journal, requests: &[(u64, bool)], blame: Blame) {
        for (number, repeated) in requests {
            std::mem::forget(journal.enter(request(*number, *repeated)).expect("it is tried"));
        }
        journal.settle(blame);
        assert_eq!(journal.now(), 0);
    }

    #[test]
    fn a_request_that_kills_two_workers_is_not_tried_again() {
        let journal = Journal::private();
        die(&journal, &[(8, false)], Blame::Requests);
        die(&journal, &[(8, true)], Blame::Requests);
        assert!(journal.enter(request(8, true)).is_none());
        assert!(
            journal.enter(request(8, true)).is_some(),
            "it was answered, and numbers come again some day"
        );
    }

    #[test]
    fn who_is_killed_from_outside_blames_nobody() {
        let journal = Journal::private();
        for _ in 0..10 {
            die(&journal, &[(8, true)], Blame::Nobody);
        }
        assert!(journal.enter(request(8, true)).is_some());
    }

    #[test]
    fn a_request_that_was_answered_is_no_suspect_any_more() {
        let journal = Journal::private();
        die(&journal, &[(8, false)], Blame::Requests);
        drop(journal.enter(request(8, true)).expect("a second try"));
        die(&journal, &[(8, true)], Blame::Requests);
        assert!(journal.enter(request(8, true)).is_some(), "one death in a row");
    }

    #[test]
    fn those_that_wait_are_blamed_only_when_none_is_in_hand() {
        let journal = Journal::private();
        for _ in 0..2 {
            std::mem::forget(journal.enter(request(8, true)).expect("a try").into_waiting());
            die(&journal, &[(10, true)], Blame::Requests);
        }
        assert!(journal.enter(request(10, true)).is_none());
        assert!(journal.enter(request(8, true)).is_some());
        for _ in 0..2 {
            std::mem::forget(journal.enter(request(8, true)).expect("a try").into_waiting());
            journal.settle(Blame::Requests);
        }
        assert!(journal.enter(request(8, true)).is_none());
    }

    #[test]
    fn more_than_there_is_room_for_are_served_all_the_same() {
        let journal = Journal::private();
        let many: Vec<_> = (1..=WAITING as u64 + 5)
            .map(|number| journal.enter(request(number, false)).expect("served").into_waiting())
            .collect();
        drop(many);
        for number in 1..=SUSPECTS as u64 + 5 {
            die(&journal, &[(number, false)], Blame::Requests);
        }
        assert!(journal.enter(request(SUSPECTS as u64, true)).is_some());
    }
}
