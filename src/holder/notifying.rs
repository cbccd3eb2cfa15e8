//! The notifier as its holder sees it: a process to start, and to start again.
//!
//! Its end is never waited for without a bound. It makes requests that a worker answers, and while
//! there is none, not even SIGKILL ends it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::policy::StartPolicy;
use super::process::Process;
use crate::fuse::{EventReceiver, EventSender, Mount, MountTable, MountTableWatch, Stage, event_queue};
use crate::handover::Channel;
use crate::notifier::Assignment;
use crate::role::Role;

/// How long it takes until it is looked again whether there is anything to do.
const NOTHING_TO_DO: Duration = Duration::from_secs(5);

/// The notifier, and what outlives each one.
#[derive(Debug)]
pub(super) struct Notifying {
    stage: Stage,
    memory: OwnedFd,
    /// Both ends: what is in the queue survives those who use it.
    sender: EventSender,
    receiver: EventReceiver,
    running: Option<Running>,
    table: MountTableWatch,
    starts: StartPolicy,
    next_start: Instant,
}

#[derive(Debug)]
struct Running {
    process: Process,
    /// The places of its mounts.
    mounts: Vec<usize>,
}

impl Notifying {
    pub(super) fn new() -> io::Result<Self> {
        let memory = Stage::create()?;
        let stage = Stage::map(memory.as_fd())?;
        let (sender, receiver) = event_queue()?;
        let next_start = Instant::now();
        let starts = StartPolicy::default();
        let table = MountTableWatch::new()?;
        Ok(Self { stage, memory, sender, receiver, running: None, table, starts, next_start })
    }

    /// What workers need of it: the stage, and the end of the queue where events go in.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.memory.as_fd(), self.sender.as_fd()]
    }

    /// Its process id, while there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.process.pid())
    }

    /// Starts one for these mounts, if there is none and there should be. Each has its place.
    ///
    /// One that has a mount which somebody else has taken away is ended first: its mounts would keep
    /// the file system there, with nobody to see it.
    pub(super) fn staff<'a>(&mut self, mounts: impl Iterator<Item = (usize, &'a Mount)>, now: Instant) {
        if let Some(running) = &self.running {
            if self.table.has_changed() && !running.is_of_use(mounts) {
                running.process.kill();
            }
            return;
        }
        let mut mounts = mounts.peekable();
        if now < self.next_start || mounts.peek().is_none() {
            return;
        }
        let Ok(table) = MountTable::read() else { return };
        let in_place = mounts.filter(|(_, mount)| mount.is_in_place(&table));
        let again: Vec<_> =
            in_place.filter_map(|(place, mount)| Some((place, mount.again().ok()?))).collect();
        if again.is_empty() {
            self.next_start = now + NOTHING_TO_DO;
            return;
        }
        match self.start(&again) {
            Ok(running) => self.running = Some(running),
            Err(error) => {
                tracing::error!(%error, "no notifier can be started");
                self.next_start = now + self.starts.failed();
            }
        }
    }

    fn start(&self, mounts: &[(usize, OwnedFd)]) -> io::Result<Running> {
        let (ours, theirs) = Channel::pair()?;
        let process = Process::start(Role::Notifier, theirs.into_socket())?;
        // Before it hears what to do: its first request is known for its own.
        self.stage.appoint(process.pid());
        let places: Vec<_> = mounts.iter().map(|(place, _)| *place).collect();
        let assignment = Assignment { mounts: places.clone() };
        let mut descriptors = vec![self.memory.as_fd(), self.receiver.as_fd()];
        descriptors.extend(mounts.iter().map(|(_, mount)| mount.as_fd()));
        ours.try_send(&assignment, &descriptors).map_err(io::Error::other)?;
        Ok(Running { process, mounts: places })
    }

    /// Waits for its end, after which there should be another one. May be dropped while it waits.
    pub(super) async fn ended(&mut self) {
        match &self.running {
            Some(running) => running.process.ended().await,
            None => std::future::pending().await,
        }
        let Some(Running { process, .. }) = self.running.take() else { return };
        // Its number may be another's as soon as it is reaped.
        self.stage.dismiss();
        tracing::warn!(pid = process.pid(), "the notifier has ended; another one is started");
        self.next_start = process.bury(&mut self.starts);
    }

    /// Ends it, and with it what it has mounted.
    pub(super) fn stop(&mut self) {
        let Some(Running { process, .. }) = self.running.take() else { return };
        process.stop();
        self.stage.dismiss();
        process.reap();
    }
}

impl Drop for Notifying {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    /// Whether all that it has mounted is still to be seen.
    fn is_of_use<'a>(&self, mut mounts: impl Iterator<Item = (usize, &'a Mount)>) -> bool {
        let Ok(table) = MountTable::read() else { return true };
        mounts.all(|(place, mount)| !self.mounts.contains(&place) || mount.is_in_place(&table))
    }
}
