//! The memory that outlives a worker and holds no value: who is alive, what is open, what is in hand.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use secretfs_wire::InstanceId;

use super::message::Sequence;
use crate::fs::{Freshness, Handles};
use crate::fuse::Journal;
use crate::host::shared_memory::{self, Words};

/// The first words: how often a worker has shown that it is alive, up to which manifest the kernel has been
/// told of all changes, and which run of the daemon this is.
const BEATS: usize = 0;
const ANNOUNCED: usize = 1;
const INSTANCE: usize = 2;
const HEADER: usize = 8;
const OUTAGE: std::ops::Range<usize> = HEADER..HEADER + Freshness::WORDS;
/// Where the mounts' parts begin, on a cache line of their own.
const MOUNTS: usize = OUTAGE.end.next_multiple_of(8);

const JOURNAL: usize = Journal::WORDS.next_multiple_of(8);
const HANDLES: usize = Handles::words();

/// One memory for all mounts of a daemon, mapped by the holder and by its workers.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(Words);

impl Ledger {
    /// Makes an empty one for so many mounts. Memory is used only where it is written.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn create(mounts: usize) -> io::Result<OwnedFd> {
        shared_memory::create("secretfs-ledger", Self::words(mounts))
    }

    /// Maps the one that `memory` is.
    ///
    /// # Errors
    /// When it is not for so many mounts, or the system refuses.
    pub(crate) fn map(memory: BorrowedFd<'_>, mounts: usize) -> io::Result<Self> {
        Words::map(memory, Self::words(mounts)).map(Self)
    }

    fn words(mounts: usize) -> usize {
        MOUNTS + mounts * (JOURNAL + HANDLES)
    }

    /// Shows that this process is alive.
    pub(crate) fn beat(&self) {
        self.0[BEATS].fetch_add(1, Relaxed);
    }

    /// Changes for as long as a worker is alive.
    pub(crate) fn beats(&self) -> u64 {
        self.0[BEATS].load(Relaxed)
    }

    /// Notes up to which manifest the kernel has been told of all changes, for another holder.
    pub(crate) fn announce(&self, sequence: Sequence) {
        self.0[ANNOUNCED].fetch_max(sequence.0, Relaxed);
    }

    /// Up to which manifest that is.
    pub(crate) fn announced(&self) -> Option<Sequence> {
        Some(Sequence(self.0[ANNOUNCED].load(Relaxed))).filter(|sequence| sequence.0 > 0)
    }

    /// Which run of the daemon this is: drawn by the first worker that asks, and the same for all that come
    /// after it, also under a holder that has inherited this memory.
    pub(crate) fn instance(&self) -> InstanceId {
        let drawn = InstanceId::random();
        let word = &self.0[INSTANCE];
        let before = word.compare_exchange(0, drawn.as_u64(), Relaxed, Relaxed);
        // What is no id was never written by a worker that was well.
        before.err().and_then(InstanceId::from_u64).unwrap_or(drawn)
    }

    /// When an outage of the manager began.
    pub(crate) fn outage(&self) -> Words {
        self.0.part(OUTAGE)
    }

    /// The requests of a mount that are in hand.
    pub(crate) fn journal(&self, mount: usize) -> Journal {
        let begin = Self::begin(mount);
        Journal::over(self.0.part(begin..begin + JOURNAL))
    }

    /// The open files of a mount.
    pub(crate) fn handles(&self, mount: usize) -> Handles {
        let begin = Self::begin(mount) + JOURNAL;
        Handles::over(self.0.part(begin..begin + HANDLES))
    }

    const fn begin(mount: usize) -> usize {
        MOUNTS + mount * (JOURNAL + HANDLES)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fs::RequestId;

    #[test]
    fn the_parts_of_two_mounts_are_apart() {
        let memory = Ledger::create(2).expect("memory");
        let ledger = Ledger::map(memory.as_fd(), 2).expect("a mapping");
        ledger.outage()[0].store(1, Relaxed);
        let _in_hand =
            ledger.journal(1).enter(RequestId { number: 3, repeated: false }).map(std::mem::forget);
        assert_eq!((ledger.beats(), ledger.journal(0).now(), ledger.journal(1).now()), (0, 0, 3));
        assert_eq!((ledger.handles(0).len(), ledger.handles(1).len()), (0, 0));
        ledger.beat();
        assert_eq!(ledger.announced(), None);
        [2, 7, 3].map(Sequence).into_iter().for_each(|sequence| ledger.announce(sequence));
        assert_eq!(ledger.announced(), Some(Sequence(7)));
        let again = Ledger::map(memory.as_fd(), 2).expect("another");
        assert_eq!(again.beats(), 1);
        assert_eq!(again.instance(), ledger.instance());
        let other = Ledger::create(2).expect("memory");
        let other = Ledger::map(other.as_fd(), 2).expect("a mapping");
        assert_ne!(other.instance(), ledger.instance());
        assert!(Ledger::map(memory.as_fd(), 3).is_err());
    }
}
