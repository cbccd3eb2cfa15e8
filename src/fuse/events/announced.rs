//! Answers to the notifier, whose system calls are there to be seen and change nothing.
//!
//! Everybody else is refused what could change something, root too: the superblock can be written to
//! so that the notifier has its mount, and whoever may mount can have another one.

use std::sync::Arc;
use std::time::Duration;

use fuser::{INodeNo, ReplyEntry, Request};
use jiff::Timestamp;

use super::super::adapter::{Adapter, GENERATION, TTL, errno, file_attr};
use super::event::Deed;
use super::newcomers::Newcomers;
use super::stage::{Doing, Stage};
use crate::fs::{Attributes, FsError, Inode, Kind};

/// How a mount's adapter knows the notifier.
#[derive(Debug)]
pub(in crate::fuse) struct Announced {
    pub(in crate::fuse) stage: Stage,
    /// The mount's place among those of the daemon.
    pub(in crate::fuse) mount: usize,
    pub(in crate::fuse) newcomers: Arc<Newcomers>,
}

/// Not at all: what is answered so is the notifier's alone, and everybody else asks for himself.
const NOT_REMEMBERED: Duration = Duration::ZERO;

impl Adapter {
    /// What the notifier is doing, if it is the one who asks.
    pub(in crate::fuse) fn doing(&self, request: &Request) -> Option<Doing> {
        let Announced { stage, mount, .. } = self.announced.as_ref()?;
        stage.doing(*mount, request.pid(), request.uid())
    }

    /// What is answered to a look-up that has `found` this, and how long it may be remembered.
    pub(in crate::fuse) fn looked_up(
        &self,
        request: &Request,
        parent: Inode,
        found: Result<Attributes, FsError>,
    ) -> (Result<Attributes, FsError>, Duration) {
        let Some(Announced { newcomers, .. }) = &self.announced else { return (found, TTL) };
        match self.doing(request) {
            Some(doing) => doing.instead(parent, found, newcomers),
            None => {
                if let Ok(attributes) = &found {
                    newcomers.see(attributes.inode);
                }
                (found, TTL)
            }
        }
    }

    /// Refuses what does not belong to this deed of the notifier's.
    pub(in crate::fuse) fn allow(
        &self,
        request: &Request,
        allowed: impl Fn(&Doing) -> bool,
    ) -> Result<(), FsError> {
        self.doing(request).is_some_and(|doing| allowed(&doing)).then_some(()).ok_or(FsError::ReadOnly)
    }

    /// Makes what is there: a file that the notifier announces.
    pub(in crate::fuse) fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: Option<&str>,
        deed: Deed,
        reply: ReplyEntry,
    ) {
        let parent = Inode::from_u64(parent.0);
        let allowed = self.allow(request, |doing| doing.deed == deed && doing.parent == parent);
        let found = allowed.and_then(|()| self.fs.lookup(parent, name.ok_or(FsError::NotFound)?));
        match found {
            Ok(attributes) => reply.entry(&TTL, &file_attr(&attributes), GENERATION),
            Err(error) => reply.error(errno(&error)),
        }
    }
}

impl Doing {
    /// What the notifier is told of a name in `parent` instead of what is `found`: what it is about to
    /// make is not there, unless somebody has seen it, and what it is about to remove is, with the directory that leads to it.
    ///
    /// Nobody else can see these answers. The kernel has the directory locked from this look-up to the
    /// end of the call; on the way there, what others find is not remembered, so that they ask again.
    fn instead(
        &self,
        parent: Inode,
        found: Result<Attributes, FsError>,
        newcomers: &Newcomers,
    ) -> (Result<Attributes, FsError>, Duration) {
        let last = parent == self.parent;
        match (self.deed, found) {
            (Deed::Create | Deed::CreateDirectory, _) if last && !newcomers.take(self.inode) => {
                (Err(FsError::NotFound), NOT_REMEMBERED)
            }
            (Deed::Remove, Err(FsError::NotFound)) if last => {
                (Ok(gone(self.inode, Kind::File)), NOT_REMEMBERED)
            }
            (Deed::Remove, Err(FsError::NotFound)) if parent == Inode::ROOT => {
                (Ok(gone(self.parent, Kind::Directory)), NOT_REMEMBERED)
            }
            (_, found) => (found, TTL),
        }
    }

    /// The attributes of what the notifier is about to remove, and of the directory that leads to it,
    /// when there is neither any more.
    pub(in crate::fuse) fn gone(&self, inode: Inode) -> Option<(Attributes, Duration)> {
        let kind = match self.deed {
            Deed::Remove if inode == self.inode => Kind::File,
            Deed::Remove if inode == self.parent => Kind::Directory,
            _ => return None,
        };
        Some((gone(inode, kind), NOT_REMEMBERED))
    }
}

/// What is not there any more and has a name for once.
const fn gone(inode: Inode, kind: Kind) -> Attributes {
    let (mode, links) = match kind {
        Kind::File => (0, 1),
        Kind::Directory => (0o555, 2),
    };
    Attributes {
        inode,
        kind,
        size: 0,
        settled: true,
        uid: 0,
        gid: 0,
        mode,
        links,
        modified: Timestamp::UNIX_EPOCH,
    }
}
