//! Open files: each pins the version that it was opened on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secretfs_wire::{SecretBytes, VersionId};

use super::inode::Inode;

/// What the kernel keeps for an open file and shows with every read: the id of the pinned version.
///
/// It is not an index into a table of this process, so that it means the same to a worker that
/// replaces this one. All handles of one version of one file are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Handle(u64);

impl Handle {
    /// The handle that pins a version.
    pub(crate) const fn of(version: VersionId) -> Self {
        Self(version.as_u64())
    }

    /// The handle that the kernel shows.
    pub(crate) const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// What the kernel keeps.
    pub(crate) const fn as_u64(self) -> u64 {
        self.0
    }

    /// The version that it pins, unless the number was never a handle.
    pub(crate) const fn version(self) -> Option<VersionId> {
        VersionId::from_u64(self.0)
    }
}

/// The versions that are pinned by open files, with how many hold each.
///
/// The last release drops the value, and a value that neither a handle nor the cache holds is wiped
/// by its drop.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    // A std mutex: held for one map access, never across an await.
    pinned: Mutex<HashMap<(Inode, Handle), Pinned>>,
}

#[derive(Debug)]
struct Pinned {
    value: Arc<SecretBytes>,
    count: u64,
}

impl Handles {
    /// Counts one more open file.
    pub(crate) fn pin(&self, inode: Inode, version: VersionId, value: Arc<SecretBytes>) -> Handle {
        let handle = Handle::of(version);
        self.lock().entry((inode, handle)).or_insert(Pinned { value, count: 0 }).count += 1;
        handle
    }

    /// The pinned value, or `None` for a handle that a former process opened.
    pub(crate) fn get(&self, inode: Inode, handle: Handle) -> Option<Arc<SecretBytes>> {
        self.lock().get(&(inode, handle)).map(|pinned| pinned.value.clone())
    }

    /// Counts one open file less. A handle that was never pinned here, because a former process
    /// opened it, is none of the counted ones.
    pub(crate) fn release(&self, inode: Inode, handle: Handle) {
        let mut pinned = self.lock();
        let last = match pinned.entry((inode, handle)) {
            Entry::Vacant(_) => None,
            Entry::Occupied(entry) if entry.get().count <= 1 => Some(entry.remove()),
            Entry::Occupied(mut entry) => {
                entry.get_mut().count -= 1;
                None
            }
        };
        // Wiping up to 1 MiB is nothing to keep readers waiting for.
        drop(pinned);
        drop(last);
    }

    /// How many versions are pinned.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// A map of counters has no state between two statements that could be half done.
    fn lock(&self) -> MutexGuard<'_, HashMap<(Inode, Handle), Pinned>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> Arc<SecretBytes> {
        Arc::new(SecretBytes::new(bytes.to_vec()).expect("a secret"))
    }

    #[test]
    fn the_last_release_drops_the_value() {
        let handles = Handles::default();
        let inode = Inode::from_u64(7);
        let version = VersionId::random();
        let first = value(b"v1");
        let watch = Arc::downgrade(&first);
        let handle = handles.pin(inode, version, first);
        handles.pin(inode, version, value(b"v1"));
        handles.release(inode, handle);
        assert_eq!(handles.get(inode, handle).expect("pinned").expose_secret(), b"v1");
        handles.release(inode, handle);
        assert!(handles.get(inode, handle).is_none());
        assert!(watch.upgrade().is_none(), "somebody still holds the cleartext");
        assert_eq!(handles.len(), 0);
    }

    #[test]
    fn two_versions_of_one_file_are_apart() {
        let handles = Handles::default();
        let inode = Inode::from_u64(7);
        let old = handles.pin(inode, VersionId::random(), value(b"old"));
        let new = handles.pin(inode, VersionId::random(), value(b"new"));
        handles.release(inode, new);
        assert_eq!(handles.get(inode, old).expect("pinned").expose_secret(), b"old");
        assert!(handles.get(inode, new).is_none());
    }

    #[test]
    fn releasing_what_a_former_process_opened_changes_nothing() {
        let handles = Handles::default();
        handles.release(Inode::from_u64(7), Handle::of(VersionId::random()));
        assert_eq!(handles.len(), 0);
    }
}
