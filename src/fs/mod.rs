//! The file system: every answer that FUSE needs, and no word of FUSE.
//!
//! Names, attributes and listings come from the last manifest, values from the cache. Only an open
//! whose value is not in the cache waits for the manager, and it has a deadline: no program hangs.

mod change;
mod error;
mod freshness;
mod handles;
mod inode;
#[cfg(test)]
mod model_test;
#[cfg(test)]
pub(crate) mod test_manifest;
#[cfg(test)]
pub(crate) mod test_source;
#[cfg(test)]
mod tests;
mod tree;
mod trouble;
mod xattr;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use secretfs_wire::SecretBytes;
use secretfs_wire::manifest::Manifest;
use tokio::sync::watch;

pub(crate) use self::change::Change;
pub(crate) use self::error::FsError;
pub(crate) use self::freshness::{DEFAULT_MAX_STALE, Freshness};
pub(crate) use self::handles::Handle;
use self::handles::Handles;
pub(crate) use self::inode::{Inode, InodeKey};
pub(crate) use self::tree::{Attributes, Entry, Kind, Layout};
use self::tree::{File, Tree};
pub(crate) use self::trouble::Trouble;
use self::trouble::Troubles;
use crate::cache::ValueCache;
use crate::source::SourceError;

/// How long an open waits for a value by default: 2 seconds.
pub(crate) const DEFAULT_DEADLINE: Duration = Duration::from_secs(2);

/// One mounted view of what a node may see.
pub(crate) struct FileSystem {
    tree: ArcSwap<Tree>,
    /// Tells waiting opens that there is another tree.
    replaced: watch::Sender<()>,
    // A std mutex: one update at a time, never across an await; readers do not take it.
    updating: Mutex<()>,
    handles: Handles,
    troubles: Troubles,
    cache: Arc<ValueCache>,
    freshness: Arc<Freshness>,
    key: InodeKey,
    layout: Layout,
    deadline: Duration,
}

/// An answer to an open.
pub(crate) enum Opening {
    /// The value is here.
    Ready(Handle),
    /// The value must be fetched. Ends by itself, at the latest with the deadline; must be polled
    /// in a tokio runtime and to its end, or else the handle is never released.
    Wait(BoxFuture<'static, Result<Handle, FsError>>),
}

/// What an open asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// `O_RDONLY`.
    Read,
    /// Anything else.
    Write,
}

/// A part of a pinned value.
#[derive(Debug)]
pub(crate) struct Slice {
    value: Arc<SecretBytes>,
    range: Range<usize>,
}

/// What there is to poll for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The handle reads the current version.
    Current,
    /// The file has another version now, or is gone: open it again.
    Changed,
}

impl FileSystem {
    /// A file system without any file: the first [`update`](Self::update) brings them.
    ///
    /// `deadline` is how long an open may wait for a value.
    pub(crate) fn new(
        cache: Arc<ValueCache>,
        freshness: Arc<Freshness>,
        key: InodeKey,
        layout: Layout,
        deadline: Duration,
    ) -> Arc<Self> {
        let empty = Tree::new(&Manifest::default(), &layout, &key);
        Arc::new(Self {
            tree: ArcSwap::from_pointee(empty),
            replaced: watch::Sender::new(()),
            updating: Mutex::new(()),
            handles: Handles::default(),
            troubles: Troubles::default(),
            cache,
            freshness,
            key,
            layout,
            deadline,
        })
    }

    /// Shows another manifest from now on, and tells what the kernel must forget.
    pub(crate) fn update(&self, manifest: &Arc<Manifest>) -> Vec<Change> {
        let new = Arc::new(Tree::new(manifest, &self.layout, &self.key));
        for name in new.left_out() {
            tracing::error!(name, "left out: its inode number is taken by another file");
        }
        let updating = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.tree.swap(new.clone());
        // After the swap: nobody asks for the old values any more. A new value that lands before
        // this line is not kept and will be fetched again, which is rare and harmless.
        self.cache.retain(manifest);
        drop(updating);
        self.replaced.send_replace(());
        old.changes_to(&new)
    }

    /// What a directory has under a name.
    pub(crate) fn lookup(&self, parent: Inode, name: &str) -> Result<Attributes, FsError> {
        Ok(*self.tree.load().lookup(parent, name)?.attributes())
    }

    /// What `stat` shows. Of an open file too it is the current version's.
    pub(crate) fn attributes(&self, inode: Inode) -> Result<Attributes, FsError> {
        Ok(*self.tree.load().node(inode)?.attributes())
    }

    /// Hands the entries of a directory behind `place` to `each`, with their places, until it says
    /// that it is full. Place 0 is the beginning; `.` and `..` come first.
    pub(crate) fn list(
        &self,
        inode: Inode,
        place: u64,
        mut each: impl FnMut(Inode, u64, Kind, &str) -> Full,
    ) -> Result<(), FsError> {
        let tree = self.tree.load();
        let directory = tree.directory(inode)?;
        let dots = [(1, inode, "."), (2, directory.parent, "..")];
        for (at, inode, name) in dots.into_iter().filter(|(at, ..)| *at > place) {
            if each(inode, at, Kind::Directory, name) == Full::Yes {
                return Ok(());
            }
        }
        for Entry { inode, name, kind } in directory.entries_after(place) {
            if each(*inode, inode.as_u64(), *kind, name) == Full::Yes {
                break;
            }
        }
        Ok(())
    }

    /// Opens a file: pins its current version.
    pub(crate) fn open(self: &Arc<Self>, inode: Inode, access: Access) -> Result<Opening, FsError> {
        let tree = self.tree.load();
        let file = tree.file(inode)?;
        if access != Access::Read {
            return Err(FsError::ReadOnly);
        }
        if !self.freshness.is_usable() {
            return Err(self.troubles.record(inode, FsError::Stale));
        }
        match self.cache.get_ready(&file.request) {
            Some(value) => Ok(Opening::Ready(self.pin(file, value))),
            None => Ok(Opening::Wait(self.clone().open_cold(inode).boxed())),
        }
    }

    async fn open_cold(self: Arc<Self>, inode: Inode) -> Result<Handle, FsError> {
        let fetched = tokio::time::timeout(self.deadline, self.fetch(inode)).await;
        match fetched.unwrap_or(Err(FsError::TimedOut)) {
            Ok((file, value)) => {
                self.troubles.clear(inode);
                Ok(self.pin(&file, value))
            }
            // Removed while it was waited for, which is no trouble.
            Err(FsError::NotFound) => Err(FsError::NotFound),
            Err(error) => Err(self.troubles.record(inode, error)),
        }
    }

    /// Fetches until what came is what the tree names. Bounded by the deadline of the caller.
    async fn fetch(&self, inode: Inode) -> Result<(Arc<File>, Arc<SecretBytes>), FsError> {
        let mut replaced = self.replaced.subscribe();
        loop {
            let file = self.tree.load().file(inode)?.clone();
            match self.cache.get(file.request.clone()).await {
                Ok(value) if self.is_current(&file) => return Ok((file, value)),
                // Rotated or removed on the way: the tree says which.
                Ok(_) => {}
                // The manager is ahead of our tree, which a failed sender could not replace either.
                Err(SourceError::Superseded) => {
                    replaced.changed().await.map_err(|_| FsError::NotFound)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_current(&self, file: &File) -> bool {
        let version = file.request.details.version_id;
        self.current(file.attributes.inode).is_some_and(|current| current == Handle::of(version))
    }

    /// The handle that an open would get now.
    fn current(&self, inode: Inode) -> Option<Handle> {
        let tree = self.tree.load();
        tree.file(inode).ok().map(|file| Handle::of(file.request.details.version_id))
    }

    fn pin(&self, file: &File, value: Arc<SecretBytes>) -> Handle {
        self.handles.pin(file.attributes.inode, file.request.details.version_id, value)
    }

    /// Reads what the handle pins, whatever is current by now; past the end there is nothing.
    ///
    /// A handle that a former process opened is pinned nowhere: it is served while the cache has its
    /// version.
    pub(crate) fn read(
        &self,
        inode: Inode,
        handle: Handle,
        offset: u64,
        size: u32,
    ) -> Result<Slice, FsError> {
        let pinned = self.handles.get(inode, handle);
        let value = pinned.or_else(|| self.taken_over(inode, handle)).ok_or(FsError::HandleLost)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(value.len());
        let end = start.saturating_add(size as usize).min(value.len());
        Ok(Slice { value, range: start..end })
    }

    fn taken_over(&self, inode: Inode, handle: Handle) -> Option<Arc<SecretBytes>> {
        let tree = self.tree.load();
        self.cache.get_version(&tree.file(inode).ok()?.request, handle.version()?)
    }

    /// Closes an open file.
    pub(crate) fn release(&self, inode: Inode, handle: Handle) {
        self.handles.release(inode, handle);
    }

    /// Whether an open file reads the current version.
    pub(crate) fn poll(&self, inode: Inode, handle: Handle) -> Readiness {
        if self.current(inode) == Some(handle) { Readiness::Current } else { Readiness::Changed }
    }

    /// The value of an extended attribute.
    pub(crate) fn xattr(&self, inode: Inode, name: &[u8]) -> Result<String, FsError> {
        xattr::get(self.tree.load().node(inode)?, &self.freshness, name)
    }

    /// The names of the extended attributes, each ended by a zero byte.
    pub(crate) fn xattrs(&self, inode: Inode) -> Result<Vec<u8>, FsError> {
        Ok(xattr::list(self.tree.load().node(inode)?, &self.freshness))
    }

    /// Why opens fail, as far as the last ones show.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        // Staleness ends with the outage, not with the next open that has to wait.
        let over = |error: &FsError| *error == FsError::Stale && self.freshness.is_usable();
        self.troubles.last().filter(|trouble| !over(&trouble.error))
    }

    /// How many versions are pinned by open files.
    pub(crate) fn pinned(&self) -> usize {
        self.handles.len()
    }
}

impl Slice {
    /// The cleartext.
    pub(crate) fn expose_secret(&self) -> &[u8] {
        self.value.expose_secret().get(self.range.clone()).unwrap_or_default()
    }
}

/// Whether whoever takes directory entries has room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// This entry did not fit any more.
    Yes,
    /// Go on.
    No,
}
