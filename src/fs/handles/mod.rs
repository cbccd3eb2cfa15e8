//! Open files: each pins the version that it was opened on, whichever worker opened it, until it is
//! closed or its service is taken away.

mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secretfs_wire::VersionId;

use self::rows::{ROWS, Row, Rows};
use super::error::FsError;
use super::inode::Inode;
use super::request::RequestId;
use crate::cache::Value;
use crate::host::shared_memory::Words;

/// What the kernel keeps for one open file and shows with every read.
///
/// It says in which row the open file is, and has a tag that no other open file of the mount ever has,
/// so that one that is closed is never taken for another. It means the same to every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Handle(u64);

impl Handle {
    const ROW_BITS: u32 = u16::BITS;

    /// Tags end after 2^48 open files; one that would be zero is the last.
    fn new(tag: u64, row: u16) -> Self {
        let tag = Some(tag << Self::ROW_BITS).filter(|tag| *tag != 0);
        Self(tag.unwrap_or(u64::MAX << Self::ROW_BITS) | u64::from(row))
    }

    /// The handle that the kernel shows.
    pub(crate) const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// What the kernel keeps.
    pub(crate) const fn as_u64(self) -> u64 {
        self.0
    }

    const fn row(self) -> u16 {
        self.0 as u16
    }
}

/// The open files of one mount, in memory that all workers share that ever serve it.
///
/// The last release drops the value, and a value that neither an open file nor the cache holds is
/// wiped by its drop.
pub(crate) struct Handles {
    rows: Rows,
    // A std mutex: held for a few accesses, never across an await. One for all, because the file
    // system is served by one thread.
    open: Mutex<Open>,
}

/// What this worker knows of the rows beyond what they say.
#[derive(Default)]
struct Open {
    /// By row: what it pins. Nothing for a version that was lost with a former worker.
    values: Vec<Option<Arc<Value>>>,
    /// Rows that are empty, below the first that was never used.
    empty: Vec<u16>,
    /// Rows that wait for their inode to change.
    waiting: HashMap<Inode, HashSet<u16>>,
    /// Whether the rows are this worker's to write.
    serving: bool,
}

/// What an open file reads.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Its version.
    Value(Arc<Value>),
    /// Its version, whose value was lost with a former worker.
    Lost(VersionId),
    /// Nothing any more.
    Revoked,
}

impl Handles {
    /// How many words of memory the open files of a mount have.
    pub(crate) const fn words() -> usize {
        Rows::WORDS
    }

    /// The open files in a memory, zeroed or left behind by a former worker. Only looks at it once it
    /// is told to [`adopt`](Self::adopt): until then that worker may still be at work.
    ///
    /// # Panics
    /// When there are fewer than [`words`](Self::words).
    pub(crate) fn over(words: Words) -> Self {
        Self { rows: Rows::over(words), open: Mutex::default() }
    }

    /// Takes over what a former worker left behind, before anything is opened: its open files pin what
    /// `find` has for an entry of the arena and a version. If that is nothing the file stays open,
    /// since the kernel has it open. Rows that make no sense are cleared.
    pub(crate) fn adopt(&self, find: impl Fn(u32, VersionId) -> Option<Arc<Value>>) {
        let mut open = Open { serving: true, ..Open::default() };
        for row in self.rows.all() {
            match self.rows.row(row) {
                Some(opened) => {
                    open.pin(row, opened.version.and_then(|version| find(opened.entry, version)));
                    // Whether it still waits only the kernel knows. It is woken once too often at most.
                    if self.rows.poller(row).is_some() {
                        open.waiting.entry(opened.inode).or_default().insert(row);
                    }
                }
                None => self.rows.clear(row),
            }
        }
        let end = self.rows.all().rfind(|row| !self.rows.is_empty(*row));
        let end = end.map_or(0, |last| usize::from(last) + 1);
        self.rows.lower_mark(end);
        open.empty.extend(self.rows.all().filter(|row| self.rows.is_empty(*row)));
        *self.lock() = open;
    }

    /// Opens a file of a service's directory once more.
    pub(crate) fn pin(
        &self,
        inode: Inode,
        directory: Inode,
        version: VersionId,
        value: Arc<Value>,
        request: RequestId,
    ) -> Result<Handle, FsError> {
        let mut open = self.lock();
        let row = match open.empty.pop() {
            Some(row) => row,
            None => match self.rows.mark() {
                ROWS => return Err(FsError::TooManyOpenFiles),
                mark => mark as u16,
            },
        };
        let (version, directory) = (Some(version), Some(directory));
        let opened = Row { inode, directory, version, entry: value.entry(), request: request.number };
        let handle = self.rows.fill(row, &opened);
        open.serving = true;
        open.pin(row, Some(value));
        Ok(handle)
    }

    /// Closes the file that a killed worker had opened for a request, before it could say so. Only
    /// requests that are repeated may have one.
    pub(crate) fn undo(&self, request: RequestId) {
        if !request.repeated {
            return;
        }
        let mut open = self.lock();
        let is_its = |row: &u16| self.rows.row(*row).is_some_and(|opened| opened.request == request.number);
        let undone = self.rows.all().filter(is_its);
        let dropped: Vec<_> = undone.map(|row| open.close(&self.rows, row)).collect();
        drop(open);
        drop(dropped);
    }

    /// What an open file reads, or nothing if it is not open.
    pub(crate) fn opened(&self, inode: Inode, handle: Handle) -> Option<Opened> {
        let open = self.lock();
        if !self.rows.is(inode, handle) {
            return None;
        }
        // The value goes when the file is revoked, so that the rest of the row need not be read.
        if let Some(Some(value)) = open.values.get(usize::from(handle.row())) {
            return Some(Opened::Value(value.clone()));
        }
        Some(self.rows.row(handle.row())?.version.map_or(Opened::Revoked, Opened::Lost))
    }

    /// The version that an open file was opened on. None if it is revoked.
    pub(crate) fn version(&self, inode: Inode, handle: Handle) -> Option<VersionId> {
        let _open = self.lock();
        if !self.rows.is(inode, handle) {
            return None;
        }
        self.rows.row(handle.row())?.version
    }

    /// Revokes every open file that is not granted any more, which is asked with its inode and its
    /// service's directory, and lets go of what it pins. For good: granted again, it must be opened
    /// again. Tells the inodes.
    pub(crate) fn revoke(&self, is_granted: impl Fn(Inode, Option<Inode>) -> bool) -> HashSet<Inode> {
        let mut open = self.lock();
        let (mut inodes, mut dropped) = (HashSet::new(), Vec::new());
        // A standby learns of manifests too. The rows are still the active worker's then.
        if !open.serving {
            return inodes;
        }
        for row in self.rows.all() {
            let Some(opened) = self.rows.row(row).filter(|opened| opened.version.is_some()) else { continue };
            if !is_granted(opened.inode, opened.directory) {
                self.rows.revoke(row);
                dropped.extend(open.values.get_mut(usize::from(row)).and_then(Option::take));
                inodes.insert(opened.inode);
            }
        }
        // Wiped where nobody waits for it.
        drop(open);
        drop(dropped);
        inodes
    }

    /// Closes an open file. One that is closed stays so: a killed worker may have done it before it
    /// could say so.
    pub(crate) fn release(&self, inode: Inode, handle: Handle) {
        let mut open = self.lock();
        let value = self.rows.is(inode, handle).then(|| open.close(&self.rows, handle.row()));
        // Wiping up to 1 MiB is nothing to keep readers waiting for.
        drop(open);
        drop(value);
    }

    /// Remembers the kernel's number for an open file that waits until its inode changes.
    pub(crate) fn wait(&self, inode: Inode, handle: Handle, poller: u64) {
        let mut open = self.lock();
        if self.rows.is(inode, handle) {
            self.rows.set_poller(handle.row(), poller);
            open.waiting.entry(inode).or_default().insert(handle.row());
        }
    }

    /// The kernel's numbers for the open files that wait for this inode. They no longer do.
    pub(crate) fn take_pollers(&self, inode: Inode) -> Vec<u64> {
        // The rows keep the numbers: should this worker be killed before it has woken all, the next
        // one does.
        let rows = self.lock().waiting.remove(&inode).unwrap_or_default();
        rows.into_iter().filter_map(|row| self.rows.poller(row)).collect()
    }

    /// The inodes that an open file waits for.
    pub(crate) fn waited_for(&self) -> Vec<Inode> {
        self.lock().waiting.keys().copied().collect()
    }

    /// How many open files wait.
    pub(crate) fn polled(&self) -> usize {
        self.lock().waiting.values().map(HashSet::len).sum()
    }

    /// How many files are open.
    pub(crate) fn len(&self) -> usize {
        let open = self.lock();
        self.rows.mark() - open.empty.len()
    }

    /// How many versions are pinned by open files.
    pub(crate) fn pinned(&self) -> usize {
        let open = self.lock();
        let pinned = (0..=u16::MAX).zip(&open.values).filter(|(_, value)| value.is_some());
        let versions = pinned.filter_map(|(row, _)| self.rows.row(row));
        versions.map(|opened| (opened.inode, opened.version)).collect::<HashSet<_>>().len()
    }

    /// In how many open files each version is that is not the current one of its inode.
    pub(crate) fn held(&self, is_current: impl Fn(Inode, VersionId) -> bool) -> BTreeMap<VersionId, u64> {
        let open = self.lock();
        let pinned = (0..=u16::MAX).zip(&open.values).filter(|(_, value)| value.is_some());
        let mut held = BTreeMap::new();
        for opened in pinned.filter_map(|(row, _)| self.rows.row(row)) {
            if let Some(version) = opened.version.filter(|version| !is_current(opened.inode, *version)) {
                *held.entry(version).or_default() += 1;
            }
        }
        held
    }

    /// No half-done state is visible between two statements, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").field("open", &self.len()).finish_non_exhaustive()
    }
}

impl Open {
    fn pin(&mut self, row: u16, value: Option<Arc<Value>>) {
        let row = usize::from(row);
        if self.values.len() <= row {
            self.values.resize(row + 1, None);
        }
        self.values[row] = value;
    }

    /// Empties a row. What it pinned is returned only when the row no longer says so: a value that is
    /// wiped must not be looked for.
    fn close(&mut self, rows: &Rows, row: u16) -> Option<Arc<Value>> {
        if rows.poller(row).is_some()
            && let Some(opened) = rows.row(row)
            && let Some(waiting) = self.waiting.get_mut(&opened.inode)
        {
            waiting.remove(&row);
            if waiting.is_empty() {
                self.waiting.remove(&opened.inode);
            }
        }
        rows.clear(row);
        self.empty.push(row);
        self.values.get_mut(usize::from(row)).and_then(Option::take)
    }
}
