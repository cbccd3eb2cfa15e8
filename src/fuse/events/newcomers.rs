//! Names that have appeared and of which watchers have not been told.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::fs::{Change, Inode};

/// Who of them has been looked up already.
///
/// To be seen to be made, a name that the kernel knows would have to be forgotten first. Whoever has
/// mounted the file elsewhere would then have one that counts as deleted: readable, but nothing could
/// be mounted in its place should this daemon die. All look-ups are answered by one thread, so that
/// this misses none that the same worker has answered; what a former one has, the notifier asks the
/// kernel.
#[derive(Debug, Default)]
pub(in crate::fuse) struct Newcomers(Mutex<HashMap<Inode, bool>>);

impl Newcomers {
    /// Learns of what has changed.
    pub(in crate::fuse) fn learn(&self, changes: &[Change]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Added { inode, .. } => drop(all.insert(*inode, false)),
                Change::Removed { inode, .. } => drop(all.remove(inode)),
                Change::Modified { .. } | Change::Changed { .. } => {}
            }
        }
    }

    /// Somebody has been told that it is there.
    pub(in crate::fuse) fn see(&self, inode: Inode) {
        if let Some(seen) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&inode) {
            *seen = true;
        }
    }

    /// Watchers are about to be told: whether it has been seen. It is none of them any more.
    pub(in crate::fuse) fn take(&self, inode: Inode) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&inode).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Kind, Place};

    #[test]
    fn only_who_has_come_and_not_been_told_of_is_seen() {
        let (newcomers, inode, kind) = (Newcomers::default(), Inode::from_u64(9), Kind::File);
        let place = || Place { parent: Inode::ROOT, directory: None, name: "db".into() };
        newcomers.see(inode);
        newcomers.learn(&[Change::Added { place: place(), inode, kind }]);
        assert!(!newcomers.take(inode), "it was seen before it came");
        newcomers.learn(&[Change::Added { place: place(), inode, kind }]);
        newcomers.see(inode);
        assert!(newcomers.take(inode));
        assert!(!newcomers.take(inode), "once");
        newcomers.learn(&[Change::Added { place: place(), inode, kind }]);
        newcomers.see(inode);
        newcomers.learn(&[Change::Removed { place: place(), inode, kind }]);
        assert!(!newcomers.take(inode), "it has gone meanwhile");
    }
}
