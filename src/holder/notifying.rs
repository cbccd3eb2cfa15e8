//! The notifier as its holder sees it: a process to start, and to start again.
//!
//! Its end is never waited for without a bound. It makes requests that a worker answers, and while
//! there is none, not even SIGKILL ends it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

use super::policy::StartPolicy;
use super::worker::watch;
use crate::fuse::{EventReceiver, EventSender, Mount, Stage, event_queue};
use crate::handover::Channel;
use crate::host::logging;
use crate::notifier::Assignment;
use crate::role::{Role, THIS_PROGRAM};

/// One that lived for so long was no failed start.
const LONG: Duration = Duration::from_secs(1);
/// How long its end is waited for when everything ends.
const GRACE: Duration = Duration::from_millis(500);

/// The notifier, and what outlives each one.
#[derive(Debug)]
pub(super) struct Notifying {
    stage: Stage,
    memory: OwnedFd,
    /// Both ends: what is in the queue survives those who use it.
    sender: EventSender,
    receiver: EventReceiver,
    running: Option<Process>,
    starts: StartPolicy,
    next_start: Instant,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    descriptor: AsyncFd<OwnedFd>,
    since: Instant,
}

impl Notifying {
    pub(super) fn new() -> io::Result<Self> {
        let memory = Stage::create()?;
        let stage = Stage::map(memory.as_fd())?;
        let (sender, receiver) = event_queue()?;
        let next_start = Instant::now();
        let starts = StartPolicy::default();
        Ok(Self { stage, memory, sender, receiver, running: None, starts, next_start })
    }

    /// What workers need of it: the stage, and the end of the queue where events go in.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.memory.as_fd(), self.sender.as_fd()]
    }

    /// Its process id, while there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|process| number(process.pid))
    }

    /// Starts one for these mounts, if there is none and there should be. Each has its place.
    pub(super) fn staff<'a>(&mut self, mounts: impl Iterator<Item = (usize, &'a Mount)>, now: Instant) {
        if self.running.is_some() || now < self.next_start {
            return;
        }
        // A mount that somebody else has taken away is no reason not to tell of the others.
        let again: Vec<_> = mounts.filter_map(|(place, mount)| Some((place, mount.again().ok()?))).collect();
        if again.is_empty() {
            return;
        }
        match self.start(&again) {
            Ok(process) => self.running = Some(process),
            Err(error) => {
                tracing::error!(%error, "no notifier can be started");
                self.next_start = now + self.starts.failed();
            }
        }
    }

    fn start(&self, mounts: &[(usize, OwnedFd)]) -> io::Result<Process> {
        let (ours, theirs) = Channel::pair()?;
        let mut command = Role::Notifier.command(THIS_PROGRAM.as_ref());
        command.env_clear().envs(logging::variables()).process_group(0);
        let child = command.stdin(theirs.into_socket()).spawn()?;
        let pid = Pid::from_child(&child);
        let descriptor = watch(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)?;
        // Before it hears what to do: its first request is known for its own.
        self.stage.appoint(number(pid));
        let assignment = Assignment { mounts: mounts.iter().map(|(place, _)| *place).collect() };
        let mut descriptors = vec![self.memory.as_fd(), self.receiver.as_fd()];
        descriptors.extend(mounts.iter().map(|(_, mount)| mount.as_fd()));
        ours.try_send(&assignment, &descriptors).map_err(io::Error::other)?;
        Ok(Process { pid, descriptor, since: Instant::now() })
    }

    /// Waits for its end, after which there should be another one. May be dropped while it waits.
    pub(super) async fn ended(&mut self) {
        match &self.running {
            // Ended, or no end will ever be heard of.
            Some(process) => drop(process.descriptor.readable().await),
            None => std::future::pending().await,
        }
        let Some(process) = self.running.take() else { return };
        // Its number may be another's as soon as it is reaped.
        self.stage.dismiss();
        process.reap();
        self.next_start = Instant::now();
        if process.since.elapsed() < LONG {
            self.next_start += self.starts.failed();
        } else {
            self.starts.succeeded();
        }
        tracing::warn!(pid = number(process.pid), "the notifier has ended; another one is started");
    }

    /// Ends it, and with it what it has mounted.
    pub(super) fn stop(&mut self) {
        let Some(process) = self.running.take() else { return };
        let _ = rustix::process::pidfd_send_signal(process.descriptor.get_ref(), Signal::KILL);
        let mut ended = [PollFd::new(process.descriptor.get_ref(), PollFlags::IN)];
        let limit = Timespec::try_from(GRACE).ok();
        let _ = rustix::event::poll(&mut ended, limit.as_ref());
        self.stage.dismiss();
        process.reap();
    }
}

impl Drop for Notifying {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Process {
    /// If it has ended. If not, it does with its mounts, and is not ours any more.
    fn reap(&self) {
        let id = WaitId::PidFd(self.descriptor.get_ref().as_fd());
        let _ = rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
