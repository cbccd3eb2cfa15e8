//! Tells the kernel what to forget.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use fuser::{INodeNo, Notifier};

use super::pollers::Pollers;
use crate::fs::{Change, Inode, Kind};

/// A thread that writes notifications, one after the other.
///
/// A thread of its own: the kernel takes a directory's lock for some of them, and a request that
/// holds that lock may be waiting to be answered. The thread that answers must never wait for it.
pub(super) struct Notices(Sender<Vec<Change>>);

impl Notices {
    /// Starts the thread. It ends when this is dropped.
    pub(super) fn start(notifier: Notifier, pollers: Arc<Pollers>) -> io::Result<Self> {
        let (sender, changes) = mpsc::channel();
        let run = move || tell_all(&changes, &notifier, &pollers);
        thread::Builder::new().name("secretfs-notify".to_owned()).spawn(run)?;
        Ok(Self(sender))
    }

    /// Hands changes to the thread.
    pub(super) fn send(&self, changes: Vec<Change>) {
        // Without the thread the mount is gone, and nobody remembers anything.
        self.0.send(changes).ok();
    }
}

fn tell_all(changes: &Receiver<Vec<Change>>, notifier: &Notifier, pollers: &Pollers) {
    for change in changes.iter().flatten() {
        if let Err(error) = tell(&change, notifier) {
            // An unmounted file system, or a name that is a mount point or a directory in use. It is
            // forgotten all the same, it only is not reported to watchers.
            tracing::debug!(%error, ?change, "the kernel refused a notification");
        }
        let (Change::Changed { inode } | Change::Removed { inode, .. }) = change;
        pollers.wake(inode);
    }
}

fn tell(change: &Change, notifier: &Notifier) -> io::Result<()> {
    match change {
        Change::Changed { inode } => forget(*inode, notifier),
        Change::Removed { parent, inode, name, kind: Kind::File } => {
            // Seen by watchers of the file. Who still has it, through a bind mount, asks again.
            let deleted = notifier.delete(number(*parent), number(*inode), name.as_ref());
            forget(*inode, notifier).and(deleted)
        }
        // Not deleted, only forgotten: the kernel marks a deleted directory as dead for ever, and a
        // service that comes back would stay empty in every container that has it bind mounted.
        Change::Removed { parent, inode, name, kind: Kind::Directory } => {
            let forgotten = notifier.inval_entry(number(*parent), name.as_ref());
            forget(*inode, notifier).and(forgotten)
        }
    }
}

/// Attributes, and what of the content is mapped: offset and length 0 mean all of it.
fn forget(inode: Inode, notifier: &Notifier) -> io::Result<()> {
    notifier.inval_inode(number(inode), 0, 0)
}

const fn number(inode: Inode) -> INodeNo {
    INodeNo(inode.as_u64())
}
