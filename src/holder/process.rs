//! A child that helps, and for whose end nobody waits without a bound: a process to start, to watch and to
//! end.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

use super::policy::StartPolicy;
use super::worker::watch;
use crate::host::logging;
use crate::role::{Role, THIS_PROGRAM};

/// One that lived for so long was no failed start.
const LONG: Duration = Duration::from_secs(1);
/// How long its end is waited for when everything ends.
const GRACE: Duration = Duration::from_millis(500);

/// A running child.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    descriptor: AsyncFd<OwnedFd>,
    since: Instant,
}

impl Process {
    /// Starts one in a role, with a socket as its standard input.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(role: Role, socket: OwnedFd) -> io::Result<Self> {
        let mut command = role.command(THIS_PROGRAM.as_ref());
        // Nothing of what is in the environment of a daemon concerns it, but for its log; and what a
        // terminal sends to all in front of it, such as Ctrl-C, is for the holder.
        command.env_clear().envs(logging::variables()).process_group(0);
        let child = command.stdin(socket).spawn()?;
        let pid = Pid::from_child(&child);
        let descriptor = watch(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)?;
        Ok(Self { pid, descriptor, since: Instant::now() })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for its end. May be dropped while it waits.
    pub(super) async fn ended(&self) {
        // Ended, or no end will ever be heard of.
        let _ = self.descriptor.readable().await;
    }

    /// Takes note of its end. Tells when the next one may be started.
    pub(super) fn bury(self, starts: &mut StartPolicy) -> Instant {
        let lived = self.since.elapsed();
        self.reap();
        let now = Instant::now();
        if lived < LONG {
            return now + starts.failed();
        }
        starts.succeeded();
        now
    }

    /// Ends it.
    pub(super) fn kill(&self) {
        // It may have ended by itself; the descriptor is no other process's.
        let _ = rustix::process::pidfd_send_signal(self.descriptor.get_ref(), Signal::KILL);
    }

    /// Ends it, and waits a little for that. It is still to be reaped.
    pub(super) fn stop(&self) {
        self.kill();
        let mut ended = [PollFd::new(self.descriptor.get_ref(), PollFlags::IN)];
        let limit = Timespec::try_from(GRACE).ok();
        let _ = rustix::event::poll(&mut ended, limit.as_ref());
    }

    /// Reaps it, if it has ended. If not, it does with what it has, and is not ours any more.
    pub(super) fn reap(self) {
        let id = WaitId::PidFd(self.descriptor.get_ref().as_fd());
        let _ = rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}
