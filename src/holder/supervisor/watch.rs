//! Ends workers that are alive and of no use.

use std::time::{Duration, Instant};

use super::super::worker::{Stage, Worker};
use super::Supervisor;
use crate::fuse::Blame;

/// How long a worker may take to become ready.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long a worker that has been killed may take to end before its successor serves all the same.
const END: Duration = Duration::from_millis(200);

impl Supervisor {
    /// Looks at all workers.
    pub(super) fn feel_pulse(&mut self) {
        if self.active.is_some() {
            self.service_manager.ready_without_files();
        }
        match &mut self.active {
            Some(active) if active.hung.is_some_and(|since| since.elapsed() > END) => self.leave_active(),
            Some(active)
                if active.hung.is_none() && !self.pulse.is_felt(&self.estate, self.config.serve.deadline) =>
            {
                tracing::error!(pid = active.pid(), "the active worker does not show that it lives");
                active.hung = Some(Instant::now());
                active.kill();
            }
            _ => {}
        }
        self.leaving.retain(|worker| !worker.ends_within(Duration::ZERO));
        let late =
            |worker: &Worker| worker.stage == Stage::Starting && worker.since.elapsed() > START_DEADLINE;
        let slow = self.standby.iter().chain(&self.refusing).chain(self.candidate.iter().map(|c| &c.worker));
        for worker in slow.filter(|worker| late(worker)) {
            tracing::error!(pid = worker.pid(), "a worker does not become ready");
            worker.kill();
        }
    }

    /// Replaces an active worker that has been killed and does not end.
    ///
    /// One of its threads waits in the kernel for a lock, of a directory for example, that somebody
    /// holds who waits for an answer: so it ends after its successor has begun, or never. Two do not
    /// serve at once, since none of its threads will ever run the program again.
    fn leave_active(&mut self) {
        let Some(worker) = self.active.take() else { return };
        tracing::error!(pid = worker.pid(), "it was killed and does not end; another worker takes over");
        self.last_end = Some("was killed and did not end".to_owned());
        self.estate.recover(Blame::Nobody);
        self.leaving.push(worker);
    }
}
