//! The file system: every answer that FUSE needs, and no word of FUSE.
//!
//! Names, attributes and listings come from the last manifest, values from the cache. Only an open
//! whose value is not in the cache waits for the manager, and it has a deadline: no program hangs.

mod answer;
mod change;
mod error;
mod freshness;
mod handles;
mod inode;
#[cfg(test)]
mod model_test;
mod opening;
mod request;
#[cfg(test)]
pub(crate) mod test_manifest;
#[cfg(test)]
pub(crate) mod test_memory;
#[cfg(test)]
pub(crate) mod test_source;
#[cfg(test)]
mod tests;
mod tree;
mod trouble;
mod xattr;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use secretfs_wire::VersionId;
use secretfs_wire::manifest::Manifest;
use tokio::sync::watch;

pub(crate) use self::answer::{Access, Full, Opening, Readiness};
pub(crate) use self::change::{Change, Place};
pub(crate) use self::error::FsError;
pub(crate) use self::freshness::{DEFAULT_MAX_STALE, Freshness};
use self::handles::Opened;
pub(crate) use self::handles::{Handle, Handles};
pub(crate) use self::inode::{Inode, InodeKey};
pub(crate) use self::request::RequestId;
pub(crate) use self::tree::{Attributes, Entry, Kind, Layout};
use self::tree::{Node, Tree};
pub(crate) use self::trouble::Trouble;
use self::trouble::Troubles;
use crate::audit::Auditor;
use crate::cache::{Slice, Value, ValueCache};

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
    auditor: Arc<dyn Auditor>,
    key: InodeKey,
    layout: Layout,
    deadline: Duration,
}

impl FileSystem {
    /// A file system without any file: the first [`update`](Self::update) brings them.
    ///
    /// `deadline` is how long an open may wait for a value, and for its record where that is required.
    pub(crate) fn new(
        cache: Arc<ValueCache>,
        freshness: Arc<Freshness>,
        auditor: Arc<dyn Auditor>,
        handles: Handles,
        key: InodeKey,
        layout: Layout,
        deadline: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            tree: ArcSwap::from_pointee(Tree::before_any()),
            replaced: watch::Sender::new(()),
            updating: Mutex::new(()),
            handles,
            troubles: Troubles::default(),
            cache,
            freshness,
            auditor,
            key,
            layout,
            deadline,
        })
    }

    /// Takes over the files that were opened through a former worker, with what `find` has for an entry
    /// of the arena and a version, and revokes those whose service has been taken away by the last
    /// manifest, if there was one. Called once, before any other request. Tells what the kernel must
    /// forget.
    pub(crate) fn adopt(&self, find: impl Fn(u32, VersionId) -> Option<Arc<Value>>) -> Vec<Change> {
        self.handles.adopt(find);
        let tree = self.tree.load();
        changed(self.handles.revoke(|inode, directory| tree.grants(inode, directory)))
    }

    /// Revokes every open file. Tells what the kernel must forget.
    pub(crate) fn revoke_all(&self) -> Vec<Change> {
        changed(self.handles.revoke(|_, _| false))
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
        let revoked = self.handles.revoke(|inode, directory| new.grants(inode, directory));
        drop(updating);
        self.replaced.send_replace(());
        let mut changes = old.changes_to(&new);
        // Who waits for a file that was removed while no worker ran is in neither tree, and so is an
        // open file whose target went before its service did.
        let mut gone = revoked;
        gone.extend(self.handles.waited_for());
        gone.retain(|inode| old.node(*inode).is_err() && new.node(*inode).is_err());
        changes.extend(changed(gone));
        changes
    }

    /// What a directory has under a name.
    pub(crate) fn lookup(&self, parent: Inode, name: &str) -> Result<Attributes, FsError> {
        Ok(self.shown(self.tree.load().lookup(parent, name)?))
    }

    /// What `stat` shows. Of an open file too it is the current version's.
    pub(crate) fn attributes(&self, inode: Inode) -> Result<Attributes, FsError> {
        Ok(self.shown(self.tree.load().node(inode)?))
    }

    /// What the tree says, and of a template what is known since.
    fn shown(&self, node: &Node) -> Attributes {
        let mut attributes = *node.attributes();
        if let Node::File(file) = node
            && !attributes.settled
            && let Some(size) = self.cache.size(&file.request)
        {
            (attributes.size, attributes.settled) = (size.into(), true);
        }
        attributes
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

    /// Reads what the handle pins, whatever is current by now; past the end there is nothing. Once the
    /// file's service is taken away, reads fail, also of what was open before.
    ///
    /// A file whose value was lost with a former worker is served while the cache has its version.
    pub(crate) fn read(
        &self,
        inode: Inode,
        handle: Handle,
        offset: u64,
        size: u32,
    ) -> Result<Slice, FsError> {
        let value = match self.handles.opened(inode, handle) {
            Some(Opened::Value(value)) => value,
            Some(Opened::Lost(version)) => self.kept(inode, version).ok_or(FsError::HandleLost)?,
            Some(Opened::Revoked) => return Err(FsError::Revoked),
            None => return Err(FsError::HandleLost),
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(value.copy(start..start.saturating_add(size as usize)))
    }

    fn kept(&self, inode: Inode, version: VersionId) -> Option<Arc<Value>> {
        let tree = self.tree.load();
        self.cache.get_version(&tree.file(inode).ok()?.request, version)
    }

    /// Closes an open file. Doing it again changes nothing.
    pub(crate) fn release(&self, inode: Inode, handle: Handle) {
        self.handles.release(inode, handle);
    }

    /// Whether an open file reads the current version. With the kernel's number for the open file, it
    /// is among the [`pollers`](Self::take_pollers) once it no longer does.
    pub(crate) fn poll(&self, inode: Inode, handle: Handle, register: Option<u64>) -> Readiness {
        // Before the look at the version: a change after it finds the poller, and one before it is seen.
        if let Some(poller) = register {
            self.handles.wait(inode, handle, poller);
        }
        match self.handles.version(inode, handle) {
            Some(version) if self.current(inode) == Some(version) => Readiness::Current,
            _ => Readiness::Changed,
        }
    }

    /// The kernel's numbers for the open files that wait for an inode that has changed, so that they
    /// can be woken. They wait no longer.
    pub(crate) fn take_pollers(&self, inode: Inode) -> Vec<u64> {
        self.handles.take_pollers(inode)
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
        let now = self.freshness.check();
        self.troubles.last().filter(|trouble| match &trouble.error {
            // Staleness ends with the outage, not with the next open that has to wait.
            error @ (FsError::Stale | FsError::CertificateEnded) => now.as_ref().err() == Some(error),
            // As soon as it is rendered, which may be ahead of the next open; or when it is gone.
            FsError::Unrendered(_) => {
                self.attributes(trouble.inode).is_ok_and(|attributes| !attributes.settled)
            }
            _ => true,
        })
    }

    /// How many versions are pinned by open files.
    pub(crate) fn pinned(&self) -> usize {
        self.handles.pinned()
    }

    /// In how many open files each version is that an open would not get any more.
    pub(crate) fn held(&self) -> BTreeMap<VersionId, u64> {
        let tree = self.tree.load();
        self.handles.held(|inode, version| tree.version(inode) == Some(version))
    }

    /// How many files are open.
    pub(crate) fn open_files(&self) -> usize {
        self.handles.len()
    }

    /// How many open files are polled for a change, for `node status`.
    pub(crate) fn polled(&self) -> usize {
        self.handles.polled()
    }
}

fn changed(inodes: impl IntoIterator<Item = Inode>) -> Vec<Change> {
    inodes.into_iter().map(|inode| Change::Changed { inode }).collect()
}
