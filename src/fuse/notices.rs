//! Tells the kernel what to forget.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use fuser::{INodeNo, Notifier, PollHandle};

use super::events::{Backlog, Watched};
use crate::fs::{Change, FileSystem, Inode, Kind, Place};

/// How long events wait before there may be room for them.
const RETRY: Duration = Duration::from_millis(20);

/// A thread that writes notifications, one after the other, and then has the notifier tell watchers:
/// what they open when they hear of a change is new.
///
/// A thread of its own: the kernel takes a directory's lock for some of them, and a request that
/// holds that lock may be waiting to be answered. The thread that answers must never wait for it.
pub(super) struct Notices(Sender<Notice>);

struct Notice {
    changes: Vec<Change>,
    /// Dropped when all of them have been told.
    told: Box<dyn Send>,
}

impl Notices {
    /// Starts the thread. It ends when this is dropped.
    pub(super) fn start(
        notifier: Notifier,
        fs: Arc<FileSystem>,
        watched: Option<Watched>,
    ) -> io::Result<Self> {
        let (sender, notices) = mpsc::channel();
        let run = move || tell_all(&notices, &notifier, &fs, Backlog::new(watched));
        thread::Builder::new().name("secretfs-notify".to_owned()).spawn(run)?;
        Ok(Self(sender))
    }

    /// Hands changes to the thread, which drops `told` when the kernel knows of all and the events are
    /// on their way.
    pub(super) fn send(&self, changes: Vec<Change>, told: Box<dyn Send>) {
        // Without the thread the mount is gone, and nobody remembers anything.
        self.0.send(Notice { changes, told }).ok();
    }
}

fn tell_all(notices: &Receiver<Notice>, notifier: &Notifier, fs: &FileSystem, mut backlog: Backlog) {
    let mut waits = false;
    loop {
        let notice = match waits {
            true => notices.recv_timeout(RETRY),
            false => notices.recv().map_err(RecvTimeoutError::from),
        };
        match notice {
            Ok(Notice { changes, told }) => {
                forget_all(&changes, notifier, fs);
                backlog.add(&changes, told);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waits = backlog.flush();
    }
}

fn forget_all(changes: &[Change], notifier: &Notifier, fs: &FileSystem) {
    for change in changes {
        if let Err(error) = tell(change, notifier) {
            // An unmounted file system, or a name that is a mount point or a directory in use. It
            // is forgotten all the same, it only is not reported to watchers.
            tracing::debug!(%error, ?change, "the kernel refused a notification");
        }
        wake_pollers(change.inode(), notifier, fs);
    }
}

/// Wakes all who poll a file. Takes no lock in the kernel that a pending request could hold.
fn wake_pollers(inode: Inode, notifier: &Notifier, fs: &FileSystem) {
    for poller in fs.take_pollers(inode) {
        if let Err(error) = notifier.poll(PollHandle(poller)) {
            tracing::debug!(%error, "a poller could not be woken");
        }
    }
}

fn tell(change: &Change, notifier: &Notifier) -> io::Result<()> {
    let inode = change.inode();
    let Change::Removed { place: Place { parent, name, .. }, kind, .. } = change else {
        return forget(inode, notifier);
    };
    let gone = match kind {
        // Seen by watchers of the file. Who still has it, through a bind mount, asks again.
        Kind::File => notifier.delete(number(*parent), number(inode), name.as_ref()),
        // Not deleted, only forgotten: the kernel marks a deleted directory as dead for ever, and a
        // service that comes back would stay empty in every container that has it bind mounted.
        Kind::Directory => notifier.inval_entry(number(*parent), name.as_ref()),
    };
    forget(inode, notifier).and(gone)
}

/// Attributes, and what of the content is mapped: offset and length 0 mean all of it.
fn forget(inode: Inode, notifier: &Notifier) -> io::Result<()> {
    notifier.inval_inode(number(inode), 0, 0)
}

const fn number(inode: Inode) -> INodeNo {
    INodeNo(inode.as_u64())
}
