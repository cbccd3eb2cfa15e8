//! A worker as its holder sees it: a process to talk to, to watch and to end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::fuse::Blame;
use crate::handover::{Channel, ChannelError, FromWorker, Packet};
use crate::host::logging;
use crate::role::Role;

/// A child process that is a worker.
#[derive(Debug)]
pub(super) struct Worker {
    pid: Pid,
    process: AsyncFd<OwnedFd>,
    channel: AsyncFd<OwnedChannel>,
    /// Whether the channel has more to say.
    talks: bool,
    pub(super) stage: Stage,
    /// Since when it is in this stage.
    pub(super) since: Instant,
    /// It has said that it serves.
    pub(super) serves: bool,
    /// When it was killed because it did not show that it lives.
    pub(super) hung: Option<Instant>,
}

/// How long the end of a process is waited for that has been killed, when it is of no more use.
const GRACE: Duration = Duration::from_secs(1);

/// How far a worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// It prepares.
    Starting,
    /// It can serve at any time.
    Ready {
        /// Its version.
        version: String,
    },
    /// It serves, or has been told to.
    Active,
}

/// What happens with a worker.
pub(super) enum Event {
    /// It says something.
    Said(Packet),
    /// It has ended, and all that it had said was heard before.
    Ended(Death),
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Death {
    /// The signal that ended it, if one did.
    pub(super) signal: Option<i32>,
    /// Its exit code, if it had one.
    pub(super) code: Option<i32>,
    /// Whether it had been killed for hanging.
    pub(super) hung: bool,
}

/// [`AsyncFd`] wants a raw descriptor's owner.
#[derive(Debug)]
struct OwnedChannel(Channel);

impl AsRawFd for OwnedChannel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Worker {
    /// Starts a process. It waits for its first message.
    ///
    /// # Errors
    /// What the system says: no such program, no such user, no process left.
    pub(super) fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        let mut command = Role::Worker.command(program);
        // Nothing of what is in the environment of a daemon concerns a worker, but for its log.
        command.env_clear().envs(logging::variables());
        // What a terminal sends to all in front of it, such as Ctrl-C, is for the holder.
        command.process_group(0);
        let child = command.stdin(theirs.into_socket()).spawn()?;
        let pid = Pid::from_child(&child);
        // The child is reaped through this, so the standard library's handle is of no use.
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self {
            pid,
            process: watch(process)?,
            channel: watch(OwnedChannel(ours))?,
            talks: true,
            stage: Stage::Starting,
            since: Instant::now(),
            serves: false,
            hung: None,
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Goes over to another stage.
    pub(super) fn enter(&mut self, stage: Stage) {
        (self.stage, self.since) = (stage, Instant::now());
    }

    /// Says something. One that does not listen for so long that there is no room left is killed.
    pub(super) fn say(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) {
        match self.channel.get_ref().0.try_send(message, descriptors) {
            Ok(()) | Err(ChannelError::Ended) => {}
            Err(error) => {
                tracing::error!(
                    pid = self.pid(),
                    error = &error as &dyn std::error::Error,
                    "a worker does not listen"
                );
                self.kill();
            }
        }
    }

    /// Ends it at once. Its [`Event::Ended`] comes later.
    pub(super) fn kill(&self) {
        // It may have ended by itself; the descriptor is no other process's.
        let _ = rustix::process::pidfd_send_signal(self.process.get_ref(), Signal::KILL);
    }

    /// Waits for what happens next. May be dropped while it waits.
    pub(super) async fn event(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                guard = self.channel.readable(), if self.talks => {
                    let Ok(mut guard) = guard else { self.talks = false; continue };
                    match guard.get_inner().0.try_receive() {
                        Ok(packet) => return Event::Said(packet),
                        Err(ChannelError::WouldBlock) => guard.clear_ready(),
                        // It has ended, or says what nobody understands.
                        Err(_) => {
                            drop(guard);
                            self.talks = false;
                        }
                    }
                }
                _ = self.process.readable() => {
                    // What it said before it ended is heard first.
                    if self.talks && let Ok(packet) = self.channel.get_ref().0.try_receive() {
                        return Event::Said(packet);
                    }
                    return Event::Ended(self.reap());
                }
            }
        }
    }

    fn reap(&self) -> Death {
        let id = WaitId::PidFd(self.process.get_ref().as_fd());
        let status = rustix::process::waitid(id, WaitIdOptions::EXITED).ok().flatten();
        Death {
            signal: status.as_ref().and_then(WaitIdStatus::terminating_signal),
            code: status.as_ref().and_then(WaitIdStatus::exit_status),
            hung: self.hung.is_some(),
        }
    }

    /// Whether it ends by then, and is reaped.
    pub(super) fn ends_within(&self, limit: Duration) -> bool {
        let mut process = [PollFd::new(self.process.get_ref(), PollFlags::IN)];
        let limit = Timespec::try_from(limit).ok();
        let ended = rustix::event::poll(&mut process, limit.as_ref()).is_ok_and(|ended| ended > 0);
        if ended {
            self.reap();
        }
        ended
    }
}

impl Drop for Worker {
    /// Nobody is left behind, neither running nor as a zombie, if it can be helped: one that waits in
    /// the kernel for a lock ends when the lock is free.
    fn drop(&mut self) {
        self.kill();
        self.ends_within(GRACE);
    }
}

/// Signals that somebody sends, the kernel when memory ends included. No crash sends them.
const FROM_OUTSIDE: [Signal; 5] = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

impl Death {
    /// Whether what the worker was doing may be the reason.
    pub(super) fn blame(&self) -> Blame {
        match self.signal {
            Some(signal) if FROM_OUTSIDE.iter().any(|outside| outside.as_raw() == signal) && !self.hung => {
                Blame::Nobody
            }
            // It wanted to.
            None if self.code == Some(0) => Blame::Nobody,
            _ => Blame::Requests,
        }
    }
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.hung, self.signal, self.code) {
            (true, ..) => f.write_str("hung and was killed"),
            (false, Some(signal), _) => write!(f, "ended by signal {signal}"),
            (false, None, Some(code)) => write!(f, "ended with code {code}"),
            (false, None, None) => f.write_str("ended"),
        }
    }
}

/// Waits for what can be read of it.
#[allow(
    deprecated,
    reason = "what replaces it is unsafe, since an owner might change its descriptor; ours cannot"
)]
pub(super) fn watch<T: AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, Interest::READABLE)
}

/// What a worker said, as a message.
pub(super) fn read(packet: &Packet) -> Option<FromWorker> {
    packet.read().map_err(|error| tracing::error!(%error, "a worker says what nobody understands")).ok()
}
