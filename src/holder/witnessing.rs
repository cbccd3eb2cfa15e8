//! The witness as its holder sees it: a process to start, and to start again.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Instant;

use super::policy::StartPolicy;
use super::process::Process;
use crate::handover::Channel;
use crate::role::Role;

/// The witness, and what outlives each one.
#[derive(Debug)]
pub(super) struct Witnessing {
    /// Both ends: a question survives the witness that has not answered it.
    asking: Channel,
    answering: Channel,
    running: Option<Process>,
    starts: StartPolicy,
    next_start: Instant,
}

impl Witnessing {
    pub(super) fn new() -> io::Result<Self> {
        let (asking, answering) = Channel::pair()?;
        let (starts, next_start) = (StartPolicy::default(), Instant::now());
        Ok(Self { asking, answering, running: None, starts, next_start })
    }

    /// What a worker asks through.
    pub(super) fn asking(&self) -> BorrowedFd<'_> {
        self.asking.as_fd()
    }

    /// Its process id, while there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Process::pid)
    }

    /// Starts one, if there is none.
    pub(super) fn staff(&mut self, now: Instant) {
        if self.running.is_some() || now < self.next_start {
            return;
        }
        let socket = self.answering.as_fd().try_clone_to_owned();
        match socket.and_then(|socket| Process::start(Role::Witness, socket)) {
            Ok(process) => self.running = Some(process),
            Err(error) => {
                tracing::error!(%error, "no witness can be started: opens are recorded without the program");
                self.next_start = now + self.starts.failed();
            }
        }
    }

    /// Waits for its end, after which there should be another one. May be dropped while it waits.
    pub(super) async fn ended(&mut self) {
        match &self.running {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
        let Some(process) = self.running.take() else { return };
        tracing::warn!(pid = process.pid(), "the witness has ended; another one is started");
        self.next_start = process.bury(&mut self.starts);
    }
}

impl Drop for Witnessing {
    fn drop(&mut self) {
        if let Some(process) = self.running.take() {
            process.stop();
            process.reap();
        }
    }
}
