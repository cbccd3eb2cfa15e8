//! The directory of the arena: for each value an entry that says where it is and in which state.
//!
//! It is written so that whoever finds it after a kill, at whatever instruction, can tell what is
//! whole and what must be wiped. A kill cuts a thread's stores off at some point in their order, and
//! the successor begins after the kernel has reported the death, so it sees all stores before that
//! point and none behind it. All that is needed is that the compiler keeps the order:
//!
//! - a `Release` store stays behind all stores before it: what an entry says is there before its state
//!   is, and the value before `Used`;
//! - a `Release` fence keeps all stores behind it from moving before the state: no byte of a value is
//!   written, or wiped, under an entry that does not say so yet.

use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use secretfs_wire::SECRET_MAX_BYTES;

use super::packing;
use crate::cache::Key;
use crate::host::shared_memory::Words;

/// How many values an arena holds at most.
pub(super) const ENTRIES: u32 = 1 << 14;

// The header is a line of the processor's cache. Its first word is the high-water mark.
const HEADER: usize = 8;
const MARK: usize = 0;

// The words of an entry.
const STATE: usize = 0;
const OFFSET: usize = 1;
const LENGTHS: usize = 2;
const VERSION: usize = 3;
const ENTRY: usize = 4;

/// What an entry's first word says. Zeroed memory is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum State {
    /// Nothing is there. The rest of the entry means nothing.
    Free,
    /// A part of the value may be there.
    Writing,
    /// The value is there.
    Used,
    /// A part of the value may still be there.
    Wiping,
}

/// What an entry says: where a value is and how long, with the names before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// The first word, in the data behind the directory.
    pub(super) offset: usize,
    /// Bytes of the service's name.
    pub(super) service: usize,
    /// Bytes of the target's name, which follows at once.
    pub(super) target: usize,
    /// Bytes of the value, which begins with a word of its own.
    pub(super) value: usize,
    /// The id of the version.
    pub(super) version: u64,
}

pub(super) struct Directory(Words);

impl Directory {
    /// How many words it has.
    pub(super) const WORDS: usize = HEADER + ENTRIES as usize * ENTRY;

    pub(super) const fn over(words: Words) -> Self {
        Self(words)
    }

    /// All entries from here on are free and have never been touched.
    pub(super) fn mark(&self) -> u32 {
        self.0[MARK].load(Acquire).min(ENTRIES.into()) as u32
    }

    /// For who has looked at all entries and found the last that is in use.
    pub(super) fn lower_mark(&self, mark: u32) {
        self.0[MARK].store(mark.into(), Release);
    }

    /// Announces a value: from now on the record is wiped if it does not come to
    /// [`finish`](Self::finish).
    pub(super) fn begin(&self, entry: u32, record: &Record) {
        // First of all: nobody looks at an entry beyond the mark.
        self.0[MARK].fetch_max(u64::from(entry) + 1, Release);
        self.word(entry, OFFSET).store(record.offset as u64, Relaxed);
        self.word(entry, LENGTHS).store(record.lengths(), Relaxed);
        self.word(entry, VERSION).store(record.version, Relaxed);
        self.enter(entry, State::Writing);
    }

    /// The value is whole.
    pub(super) fn finish(&self, entry: u32) {
        self.word(entry, STATE).store(State::Used as u64, Release);
    }

    /// The value is about to be wiped.
    pub(super) fn retire(&self, entry: u32) {
        self.enter(entry, State::Wiping);
    }

    /// Nothing is left of the value.
    pub(super) fn free(&self, entry: u32) {
        self.word(entry, STATE).store(State::Free as u64, Release);
    }

    /// The state, or `None` for a word that is none.
    pub(super) fn state(&self, entry: u32) -> Option<State> {
        let state = self.word(entry, STATE).load(Acquire);
        [State::Free, State::Writing, State::Used, State::Wiping].into_iter().find(|s| *s as u64 == state)
    }

    /// What an entry says, whether or not it makes sense.
    pub(super) fn record(&self, entry: u32) -> Record {
        let word = |word| self.word(entry, word).load(Relaxed);
        let lengths = word(LENGTHS);
        Record {
            offset: word(OFFSET) as usize,
            service: (lengths >> 48) as u8 as usize,
            target: (lengths >> 32) as u8 as usize,
            value: lengths as u32 as usize,
            version: word(VERSION),
        }
    }

    fn enter(&self, entry: u32, state: State) {
        self.word(entry, STATE).store(state as u64, Release);
        fence(Release);
    }

    fn word(&self, entry: u32, word: usize) -> &AtomicU64 {
        &self.0[HEADER + entry as usize * ENTRY + word]
    }
}

impl Record {
    /// The record of a value, except for its place.
    pub(super) fn new(key: &Key, value: usize) -> Self {
        Self {
            offset: 0,
            service: key.service.as_str().len(),
            target: key.target.as_str().len(),
            value,
            version: key.version.as_u64(),
        }
    }

    const fn lengths(&self) -> u64 {
        (self.service as u64) << 48 | (self.target as u64) << 32 | self.value as u64
    }

    /// All its words, as far as there are `size`.
    pub(super) fn range(&self, size: usize) -> Range<usize> {
        let start = self.offset.min(size);
        start..start.saturating_add(self.words()).min(size)
    }

    /// The words of its names.
    pub(super) const fn names(&self) -> Range<usize> {
        self.offset..self.offset + packing::words(self.service + self.target)
    }

    /// The words of its value.
    pub(super) const fn bytes(&self) -> Range<usize> {
        let start = self.names().end;
        start..start + packing::words(self.value)
    }

    /// How many words it has.
    pub(super) const fn words(&self) -> usize {
        packing::words(self.service + self.target) + packing::words(self.value)
    }

    /// Whether a value can have this size and lies within `size` words.
    pub(super) fn is_sound(&self, size: usize) -> bool {
        (1..=SECRET_MAX_BYTES).contains(&self.value)
            && self.offset.checked_add(self.words()).is_some_and(|end| end <= size)
    }
}
