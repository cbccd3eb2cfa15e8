//! inotify, for the names of a directory: a file that appears has nobody who polls it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// One directory, watched for whatever may change a file of it.
pub(super) struct NameWatch {
    /// Nothing where the system has none left (`fs.inotify.max_user_instances`).
    inotify: Option<OwnedFd>,
    watched: Option<i32>,
}

impl NameWatch {
    pub(super) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let inotify = inotify.inspect_err(
            |error| tracing::warn!(%error, "no inotify: a new file is seen within 30 s, not at once"),
        );
        Self { inotify: inotify.ok(), watched: None }
    }

    /// Watches this directory from now on, and no other. Called with every look: another mount may
    /// have taken its place.
    pub(super) fn watch(&mut self, directory: &Path) {
        let Some(inotify) = &self.inotify else { return };
        // Not IN_OPEN or IN_ACCESS, which our own looks would cause.
        let events = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        let watched = inotify::add_watch(inotify, directory, events).ok();
        if let Some(before) = self.watched
            && self.watched != watched
        {
            // It may have ended by itself, together with its directory.
            let _ = inotify::remove_watch(inotify, before);
        }
        self.watched = watched;
    }

    /// What to poll.
    pub(super) fn poll(&self) -> Option<PollFd<'_>> {
        self.inotify.as_ref().map(|inotify| PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN))
    }

    /// Forgets what happened: whoever was woken looks for itself.
    pub(super) fn drain(&self) {
        let Some(inotify) = &self.inotify else { return };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(inotify, &mut buffer);
        while events.next().is_ok() {}
    }
}
