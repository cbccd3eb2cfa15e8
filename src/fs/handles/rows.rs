//! Open files as rows of words, in memory that outlives the worker that fills it.
//!
//! A row counts once its first word, the handle, is there, and no longer once that word is zero. So
//! the handle is stored last, with `Release`, and cleared first, before a `Release` fence: whatever
//! instruction a worker is killed at, a row that counts is whole. More than the order of the stores is
//! not needed, since the next worker begins when the kernel has reported the death.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use secretfs_wire::VersionId;

use super::Handle;
use crate::fs::inode::Inode;
use crate::host::shared_memory::Words;

/// How many files of one mount are open at most.
pub(super) const ROWS: usize = 1 << Handle::ROW_BITS;

// The header is a line of the processor's cache.
const HEADER: usize = 8;
const MARK: usize = 0;
const LAST_TAG: usize = 1;

// The words of a row.
const HANDLE: usize = 0;
const INODE: usize = 1;
const VERSION: usize = 2;
const ENTRY: usize = 3;
const REQUEST: usize = 4;
const POLLER: usize = 5;
const DIRECTORY: usize = 6;
/// The handle that the directory is of. A worker of an older version neither writes nor clears the
/// two, and what it leaves in them is another file's.
const DIRECTORY_OF: usize = 7;
const ROW: usize = 8;

/// In the place of a version.
const REVOKED: u64 = 0;

/// An open file, as far as it is known to all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) inode: Inode,
    /// The directory of the service that it was opened for. Nothing if a worker of an older version
    /// opened it, which did not say.
    pub(super) directory: Option<Inode>,
    /// Nothing once the open file is revoked. A worker of an older version takes such a row for
    /// nonsense, and so does not read it either.
    pub(super) version: Option<VersionId>,
    /// Where in the arena the value is.
    pub(super) entry: u32,
    /// The number of the request that opened it.
    pub(super) request: u64,
}

pub(super) struct Rows(Words);

impl Rows {
    /// How many words all rows have.
    pub(super) const WORDS: usize = HEADER + ROWS * ROW;

    pub(super) fn over(words: Words) -> Self {
        Self(words.part(0..Self::WORDS))
    }

    /// All rows from here on are empty and have never been used.
    pub(super) fn mark(&self) -> usize {
        self.0[MARK].load(Acquire).min(ROWS as u64) as usize
    }

    /// For who has looked at all rows and found the last that is not empty.
    pub(super) fn lower_mark(&self, mark: usize) {
        self.0[MARK].store(mark as u64, Release);
    }

    /// The rows below the mark.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = u16> {
        (0..self.mark()).map(|row| row as u16)
    }

    /// Opens a file in a row that is empty. Its handle is one that no other ever had.
    pub(super) fn fill(&self, row: u16, opened: &Row) -> Handle {
        let tag = self.0[LAST_TAG].fetch_add(1, Relaxed).wrapping_add(1);
        let handle = Handle::new(tag, row);
        // First of all: nobody looks at a row beyond the mark.
        self.0[MARK].fetch_max(u64::from(row) + 1, Release);
        self.word(row, INODE).store(opened.inode.as_u64(), Relaxed);
        self.word(row, VERSION).store(opened.version.map_or(REVOKED, VersionId::as_u64), Relaxed);
        self.word(row, ENTRY).store(u64::from(opened.entry) + 1, Relaxed);
        self.word(row, REQUEST).store(opened.request, Relaxed);
        self.word(row, POLLER).store(0, Relaxed);
        self.word(row, DIRECTORY).store(opened.directory.map_or(0, Inode::as_u64), Relaxed);
        self.word(row, DIRECTORY_OF).store(handle.as_u64(), Relaxed);
        self.word(row, HANDLE).store(handle.as_u64(), Release);
        handle
    }

    pub(super) fn clear(&self, row: u16) {
        self.word(row, HANDLE).store(0, Release);
        fence(Release);
        for word in [INODE, VERSION, ENTRY, REQUEST, POLLER, DIRECTORY, DIRECTORY_OF] {
            self.word(row, word).store(0, Relaxed);
        }
    }

    /// Revokes an open file for every worker: it has no version any more, and never again.
    pub(super) fn revoke(&self, row: u16) {
        self.word(row, VERSION).store(REVOKED, Release);
    }

    /// Whether this open file is in its row.
    pub(super) fn is(&self, inode: Inode, handle: Handle) -> bool {
        let row = handle.row();
        // Zero is in the rows that are empty, and is no handle.
        handle.as_u64() != 0
            && self.word(row, HANDLE).load(Acquire) == handle.as_u64()
            && self.word(row, INODE).load(Relaxed) == inode.as_u64()
    }

    /// Whether a row is empty.
    pub(super) fn is_empty(&self, row: u16) -> bool {
        self.word(row, HANDLE).load(Acquire) == 0
    }

    /// What a row says, unless that makes no sense.
    pub(super) fn row(&self, row: u16) -> Option<Row> {
        let word = |word| self.word(row, word).load(Relaxed);
        let handle = Handle::from_u64(self.word(row, HANDLE).load(Acquire));
        if handle.as_u64() == 0 || handle.row() != row {
            return None;
        }
        Some(Row {
            inode: Inode::from_u64(word(INODE)),
            directory: Some(word(DIRECTORY))
                .filter(|directory| *directory != 0 && word(DIRECTORY_OF) == handle.as_u64())
                .map(Inode::from_u64),
            version: match word(VERSION) {
                REVOKED => None,
                version => Some(VersionId::from_u64(version)?),
            },
            entry: u32::try_from(word(ENTRY).checked_sub(1)?).ok()?,
            request: word(REQUEST),
        })
    }

    /// The kernel's number for an open file, if it was ever polled: it stays the same.
    pub(super) fn poller(&self, row: u16) -> Option<u64> {
        Some(self.word(row, POLLER).load(Relaxed)).filter(|poller| *poller != 0)
    }

    pub(super) fn set_poller(&self, row: u16, poller: u64) {
        self.word(row, POLLER).store(poller, Relaxed);
    }

    fn word(&self, row: u16, word: usize) -> &AtomicU64 {
        &self.0[HEADER + usize::from(row) * ROW + word]
    }
}
