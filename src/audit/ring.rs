//! Records on their way to the manager, in memory that outlives every worker.
//!
//! One process writes at a time, several threads of it; the next worker goes on with what is there. A
//! record counts once the head is behind it, so that whatever instruction a worker is killed at, all
//! records are whole. What there is no room for is dropped and counted: nobody who opens a file waits
//! for room.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustix::fs::fstat;
use secretfs_wire::OpenLogId;

use super::record::{self, Draft, MOST_WORDS};
use crate::host::shared_memory::{self, Words};

/// How many bytes of records are kept by default: some 15,000 opens.
pub(crate) const DEFAULT_BYTES: usize = 4 << 20;
/// Room for two of the largest records beside what is kept for those that are required.
const LEAST_WORDS: usize = (4 * MOST_WORDS).next_power_of_two();

// The header is a line of the processor's cache and a little more.
const HEADER: usize = 16;
/// What the memory is, and in which layout.
const FORMAT: usize = 0;
const LOG: usize = 1;
/// How many words were ever written, and up to which the manager has all.
const HEAD: usize = 2;
const TAIL: usize = 3;
/// How many records were ever written, and how many are no longer there.
const WRITTEN: usize = 4;
const DONE: usize = 5;
const LOST: usize = 6;

const THIS_FORMAT: u64 = u64::from_le_bytes(*b"opens\0\0\x02");

/// Bits of a record's first word, above its length in words.
const REQUIRED: u64 = 1 << 32;
const ACKNOWLEDGED: u64 = 1 << 33;
/// The manager does not have it, and never will.
const GIVEN_UP: u64 = 1 << 34;

/// Where a record is. No other record of the log is ever there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position(u64);

/// A record as it is in the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) position: Position,
    /// Whether somebody may not be answered before the manager has it.
    pub(super) required: bool,
    pub(super) words: Vec<u64>,
}

/// What is in the ring, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Records that the manager does not have yet.
    pub(crate) buffered: u64,
    /// Those that there was no room for, since the memory was made.
    pub(crate) lost: u64,
    /// When the oldest one that the manager does not have was made.
    pub(crate) oldest: Option<Timestamp>,
}

/// The records of a daemon's opens.
#[derive(Debug)]
pub(crate) struct Ring {
    header: Words,
    data: Words,
    // A std mutex: held for some hundred stores, never across an await or a system call.
    writer: Mutex<Writer>,
}

/// Where a record is made, so that nothing is allocated for it.
#[derive(Debug)]
struct Writer(Vec<u64>);

impl Ring {
    /// Makes the memory for so many bytes of records, a few more or less.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn create(bytes: usize) -> io::Result<OwnedFd> {
        shared_memory::create("secretfs-opens", Self::words_for(bytes))
    }

    /// Maps the one that `memory` is, whatever its size.
    ///
    /// # Errors
    /// When it is none, or the system refuses.
    pub(crate) fn map(memory: BorrowedFd<'_>) -> io::Result<Self> {
        let size = usize::try_from(fstat(memory)?.st_size).unwrap_or(0);
        let words = HEADER + (size / size_of::<u64>()).saturating_sub(HEADER);
        Self::over(Words::map(memory, words)?)
    }

    /// One that ends with this process.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn private(bytes: usize) -> io::Result<Self> {
        Self::over(Words::private(Self::words_for(bytes))?)
    }

    fn words_for(bytes: usize) -> usize {
        let wanted = (bytes / size_of::<u64>()).max(LEAST_WORDS);
        // The next lower power of two, or this one.
        HEADER + (1 << wanted.ilog2())
    }

    fn over(words: Words) -> io::Result<Self> {
        let data = words.len() - HEADER;
        let is_new = words[FORMAT].load(Acquire) == 0;
        if !data.is_power_of_two()
            || data < LEAST_WORDS
            || !(is_new || words[FORMAT].load(Relaxed) == THIS_FORMAT)
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this memory holds no records of opens"));
        }
        if is_new {
            words[LOG].store(OpenLogId::random().as_u64(), Relaxed);
            words[FORMAT].store(THIS_FORMAT, Release);
        }
        let (header, data) = (words.part(0..HEADER), words.part(HEADER..HEADER + data));
        Ok(Self { header, data, writer: Mutex::new(Writer(Vec::with_capacity(MOST_WORDS))) })
    }

    /// By what its records are known.
    pub(crate) fn log(&self) -> OpenLogId {
        // One that was overwritten: the records are another log's then, and none is taken for another.
        OpenLogId::from_u64(self.header[LOG].load(Relaxed)).unwrap_or_else(OpenLogId::random)
    }

    /// Takes over what a former worker left. What makes no sense is dropped and counted as lost.
    pub(crate) fn adopt(&self) {
        let _writer = self.lock();
        let (head, tail) = (self.load(HEAD), self.load(TAIL));
        let (done, written) = (self.load(DONE), self.load(WRITTEN));
        let mut count = 0;
        let mut end = tail;
        if head.wrapping_sub(tail) <= self.capacity() {
            for (position, first) in self.walk() {
                count += 1;
                end = position + length(first);
            }
        }
        if end == head {
            self.header[WRITTEN].store(done + count, Relaxed);
            return;
        }
        let lost = written.saturating_sub(done + count).max(1);
        tracing::error!(lost, "records of opens that a former worker left make no sense and are dropped");
        self.header[LOST].fetch_add(lost, Relaxed);
        self.header[WRITTEN].store(done + count, Relaxed);
        self.header[HEAD].store(end, Release);
    }

    /// Writes a record. Tells where it is, or nothing if there is no room for it.
    ///
    /// The record of a request that is sent again is the one that is there, if one is. An eighth of the
    /// room is for those that are `required`: others must not be able to keep them out.
    pub(super) fn push(&self, draft: &Draft<'_>, required: bool, repeated: bool) -> Option<Position> {
        let mut writer = self.lock();
        if repeated && let Some(position) = self.find(draft) {
            return Some(position);
        }
        let Writer(words) = &mut *writer;
        words.clear();
        words.push(0);
        draft.write(words);
        words[0] = words.len() as u64 | if required { REQUIRED } else { 0 };
        let (head, capacity) = (self.load(HEAD), self.capacity());
        let room = capacity.saturating_sub(head.wrapping_sub(self.load(TAIL)));
        let kept_free = if required { 0 } else { capacity / 8 };
        if room < words.len() as u64 + kept_free {
            self.header[LOST].fetch_add(1, Relaxed);
            return None;
        }
        for (place, word) in (head..).zip(words.iter()) {
            self.data[self.index(place)].store(*word, Relaxed);
        }
        self.header[WRITTEN].fetch_add(1, Relaxed);
        self.header[HEAD].store(head + words.len() as u64, Release);
        Some(Position(head))
    }

    fn find(&self, draft: &Draft<'_>) -> Option<Position> {
        let is_it = |&(position, first): &(u64, u64)| {
            let words = [1, 2, 3].map(|place| self.data[self.index(position + place)].load(Relaxed));
            first & GIVEN_UP == 0 && record::is_of(&words, draft.number, draft.details.version_id)
        };
        self.walk().find(is_it).map(|(position, _)| Position(position))
    }

    /// The records that the manager does not have, the oldest first.
    ///
    /// For the one task that also [acknowledges](Self::acknowledge), and not while it does: what it has not
    /// acknowledged nobody overwrites, so that writers need not wait for it.
    pub(super) fn oldest(&self) -> impl Iterator<Item = Kept> {
        let waiting = self.walk().filter(|(_, first)| first & ACKNOWLEDGED == 0);
        waiting.map(|(position, first)| self.copy(position, first))
    }

    /// The records at these positions that the manager does not have; for the same task.
    pub(super) fn at(&self, positions: impl IntoIterator<Item = Position>) -> Vec<Kept> {
        let waiting = positions.into_iter().filter(|position| !self.is_done(*position));
        waiting.map(|Position(position)| self.copy(position, self.first(position))).collect()
    }

    /// The manager has these. For one task, and no other at the same time.
    pub(super) fn acknowledge(&self, positions: impl IntoIterator<Item = Position>) {
        for position in positions {
            if !self.is_done(position) {
                self.data[self.index(position.0)].fetch_or(ACKNOWLEDGED, Relaxed);
            }
        }
        let (mut end, mut count) = (self.load(TAIL), 0);
        for (position, first) in self.walk().take_while(|(_, first)| first & ACKNOWLEDGED != 0) {
            (end, count) = (position + length(first), count + 1);
        }
        self.header[DONE].fetch_add(count, Relaxed);
        self.header[TAIL].store(end, Release);
    }

    /// Gives one up that the manager will never take.
    pub(super) fn give_up(&self, position: Position) {
        self.header[LOST].fetch_add(1, Relaxed);
        if !self.is_done(position) {
            self.data[self.index(position.0)].fetch_or(GIVEN_UP, Relaxed);
        }
        self.acknowledge([position]);
    }

    /// Whether the manager has it. For everybody.
    pub(super) fn is_acknowledged(&self, position: Position) -> bool {
        let _writer = self.lock();
        self.is_done(position)
    }

    /// Those that there was no room for, since the memory was made.
    pub(crate) fn lost(&self) -> u64 {
        self.header[LOST].load(Relaxed)
    }

    /// Whether the manager has all.
    pub(crate) fn is_empty(&self) -> bool {
        self.header[TAIL].load(Acquire) == self.header[HEAD].load(Acquire)
    }

    /// Whether half of the room is taken.
    pub(super) fn is_half_full(&self) -> bool {
        self.load(HEAD).wrapping_sub(self.load(TAIL)) > self.capacity() / 2
    }

    /// What is in it.
    pub(crate) fn backlog(&self) -> Backlog {
        // Nobody overwrites what is looked at here.
        let _writer = self.lock();
        let oldest = self.oldest().next().and_then(|kept| record::time_of(&kept.words));
        let buffered = self.load(WRITTEN).saturating_sub(self.load(DONE));
        Backlog { buffered, lost: self.lost(), oldest }
    }

    /// The records from the tail on, each with its first word, as far as they make sense.
    fn walk(&self) -> impl Iterator<Item = (u64, u64)> {
        let (mut next, head) = (self.load(TAIL), self.load(HEAD));
        std::iter::from_fn(move || {
            if next >= head {
                return None;
            }
            let (position, first) = (next, self.first(next));
            let fits = (1..=MOST_WORDS as u64 + 1).contains(&length(first));
            next = position.checked_add(length(first)).filter(|end| fits && *end <= head)?;
            Some((position, first))
        })
        .fuse()
    }

    fn copy(&self, position: u64, first: u64) -> Kept {
        let words = position + 1..position + length(first).clamp(1, self.capacity());
        Kept {
            position: Position(position),
            required: first & REQUIRED != 0,
            words: words.map(|place| self.data[self.index(place)].load(Relaxed)).collect(),
        }
    }

    fn is_done(&self, Position(position): Position) -> bool {
        position < self.load(TAIL) || self.first(position) & ACKNOWLEDGED != 0
    }

    fn first(&self, position: u64) -> u64 {
        self.data[self.index(position)].load(Relaxed)
    }

    fn load(&self, word: usize) -> u64 {
        self.header[word].load(Acquire)
    }

    fn capacity(&self) -> u64 {
        self.data.len() as u64
    }

    fn index(&self, place: u64) -> usize {
        (place % self.capacity()) as usize
    }

    /// A panic ends the process, and so nobody ever sees what one would have left.
    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The length of a record in words, of its first word.
const fn length(first: u64) -> u64 {
    first & (u32::MAX as u64)
}

#[cfg(test)]
mod tests;
