//! Keeps somebody serving: an active worker, a standby for when it ends, and one that refuses for
//! when none lives.

mod upgrade;
mod watch;

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::upgrade::{Candidate, Program};
use super::control::{Control, HolderStatus};
use super::estate::Estate;
use super::mending::Mending;
use super::policy::{CrashPolicy, StartPolicy};
use super::pulse::Pulse;
use super::service_manager::ServiceManager;
use super::worker::{self, Death, Event, Stage, Worker};
use super::{HolderError, inheritance};
use crate::fuse::Blame;
use crate::handover::{Activation, Duty, FromHolder, FromWorker, Packet, User};
use crate::node::{Config, StateDirectory};
use crate::role::THIS_PROGRAM;

/// How often the active worker's pulse is felt.
const PULSE_INTERVAL: Duration = Duration::from_millis(100);
/// How long a worker may take to take over before its successor is started all the same.
const TAKEOVER: Duration = Duration::from_millis(50);

/// The holder's business.
pub(super) struct Supervisor {
    config: Config,
    state: StateDirectory,
    user: Option<User>,
    /// What workers are started from. Held open, so that it stays the same when the file is replaced.
    program: Program,
    estate: Estate,
    control: Control,
    mending: Mending,
    active: Option<Worker>,
    /// Killed, replaced, and not ended yet.
    leaving: Vec<Worker>,
    standby: Option<Worker>,
    /// Answers with errors while no other worker may serve.
    refusing: Option<Worker>,
    /// The first worker of a new program, and who waits to hear of it.
    candidate: Option<Candidate>,
    crashes: CrashPolicy,
    starts: StartPolicy,
    /// No standby is started before.
    next_start: Instant,
    unserved_since: Option<Instant>,
    pulse: Pulse,
    service_manager: ServiceManager,
    predecessors: u64,
    last_end: Option<String>,
    /// Whether a worker has ever been ready: before, a failure to start is the user's to mend.
    proven: bool,
}

/// Which worker something happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Post {
    Active,
    Standby,
    Refusing,
    Candidate,
}

impl Supervisor {
    pub(super) fn new(
        config: Config,
        user: Option<User>,
        estate: Estate,
        control: Control,
        mending: Mending,
    ) -> Self {
        let state = StateDirectory::at(&config.state_dir);
        Self {
            config,
            state,
            user,
            program: Program::this(),
            estate,
            control,
            mending,
            active: None,
            leaving: Vec::new(),
            standby: None,
            refusing: None,
            candidate: None,
            crashes: CrashPolicy::default(),
            starts: StartPolicy::default(),
            next_start: Instant::now(),
            unserved_since: None,
            pulse: Pulse::new(),
            service_manager: ServiceManager::new(),
            predecessors: 0,
            last_end: None,
            proven: false,
        }
    }

    /// Supervises until `shutdown`, then unmounts.
    ///
    /// # Errors
    /// When no worker has ever been able to start.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), HolderError> {
        let mut tick = tokio::time::interval(PULSE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.staff()?;
            tokio::select! {
                biased;
                event = event_of(&mut self.active) => self.happened(Post::Active, event)?,
                event = event_of(&mut self.standby) => self.happened(Post::Standby, event)?,
                event = event_of(&mut self.refusing) => self.happened(Post::Refusing, event)?,
                event = event_of_candidate(&mut self.candidate) => self.happened(Post::Candidate, event)?,
                order = self.control.next() => self.carry_out(order),
                () = self.mending.done() => {}
                () = self.estate.notifying.ended() => {}
                () = self.estate.witnessing.ended() => {}
                _ = tick.tick() => self.feel_pulse(),
                () = shutdown.cancelled() => break,
            }
        }
        self.stop();
        Ok(())
    }

    /// Sees to it that every post is filled that should be.
    fn staff(&mut self) -> Result<(), HolderError> {
        let now = Instant::now();
        self.estate.staff_notifier(now);
        self.estate.witnessing.staff(now);
        if self.active.is_none() && self.crashes.wait(now).is_zero() {
            self.promote();
        }
        if self.active.is_some() {
            self.unserved_since = None;
        } else {
            let since = *self.unserved_since.get_or_insert(now);
            let waits = !self.crashes.wait(now).is_zero()
                || now.duration_since(since) >= self.config.serve.deadline / 2;
            // Before the first worker there is nobody to refuse anything to.
            if waits && self.refusing.is_none() && self.predecessors > 0 {
                tracing::error!(
                    "no worker lives long enough; requests are answered with errors until one does"
                );
                self.refusing = self.start(THIS_PROGRAM.as_ref(), Duty::Refuse).ok();
            }
        }
        // Starting a process takes the processor from the one that is about to serve.
        let taking_over = |worker: &Worker| !worker.serves && worker.since.elapsed() < TAKEOVER;
        if self.standby.is_none() && now >= self.next_start && !self.active.as_ref().is_some_and(taking_over)
        {
            match self.start(&self.program.path, Duty::Serve) {
                Ok(worker) => self.standby = Some(worker),
                Err(error) if !self.proven => return Err(error),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "no worker can be started");
                    self.next_start = now + self.starts.failed();
                }
            }
        }
        Ok(())
    }

    fn start(&self, program: &Path, duty: Duty) -> Result<Worker, HolderError> {
        let worker = Worker::start(program).map_err(HolderError::Start)?;
        self.estate.hand_to(&worker, duty, self.user, &self.config, &self.state)?;
        Ok(worker)
    }

    /// Lets the standby serve, if it is ready.
    fn promote(&mut self) {
        let Some(mut worker) = self.standby.take_if(|worker| matches!(worker.stage, Stage::Ready { .. }))
        else {
            return;
        };
        // Two must never serve at once.
        if let Some(refusing) = self.refusing.take() {
            drop(refusing);
            self.estate.recover(Blame::Nobody);
        }
        worker.say(&FromHolder::Activate(Activation { predecessors: self.predecessors }), &[]);
        worker.enter(Stage::Active);
        self.pulse.restart(&self.estate);
        self.predecessors += 1;
        self.active = Some(worker);
    }

    fn happened(&mut self, post: Post, event: Event) -> Result<(), HolderError> {
        match event {
            Event::Said(packet) => self.heard(post, packet),
            Event::Ended(death) => self.ended(post, death),
        }
    }

    fn heard(&mut self, post: Post, mut packet: Packet) -> Result<(), HolderError> {
        match worker::read(&packet) {
            None => {}
            Some(FromWorker::Ready { version, format }) => self.ready(post, version, format),
            Some(FromWorker::Failed { reason }) => {
                if !self.proven {
                    return Err(HolderError::Worker(reason));
                }
                tracing::error!(reason, "a worker cannot serve");
                if post == Post::Candidate
                    && let Some(candidate) = self.candidate.take()
                {
                    candidate.order.refuse(&reason);
                }
            }
            Some(FromWorker::Serving) => {
                tracing::info!("a worker serves");
                if let Some(active) = self.active.as_mut().filter(|_| post == Post::Active) {
                    active.serves = true;
                }
                // It has what a former holder left.
                if self.estate.manifests.last().is_some() {
                    self.files_are_there();
                }
            }
            Some(FromWorker::Manifest(sequence)) => {
                if let Some(memory) = packet.descriptors.next() {
                    inheritance::leave_manifest(self.estate.manifests.last(), sequence, &memory);
                    self.estate.manifests.add(sequence, memory);
                    for worker in self.waiting() {
                        self.estate.manifests.tell_last(worker);
                    }
                    self.files_are_there();
                }
            }
            Some(FromWorker::Announced(sequence)) => {
                self.estate.manifests.announce(sequence);
                self.estate.ledger.announce(sequence);
                for worker in self.waiting() {
                    worker.say(&FromHolder::Announced(sequence), &[]);
                }
            }
            Some(FromWorker::Renewed { certificate, key }) => {
                match self.state.save_certificate(&certificate, &key) {
                    // The standby has the old one.
                    Ok(()) => drop(self.standby.take()),
                    Err(error) => {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "the renewed certificate is not kept"
                        );
                    }
                }
            }
        }
        Ok(())
    }

    fn files_are_there(&mut self) {
        self.service_manager.ready();
        self.mending.begin();
    }

    /// Those who learn what the active worker learns.
    fn waiting(&self) -> impl Iterator<Item = &Worker> {
        self.standby.iter().chain(self.candidate.as_ref().map(|candidate| &candidate.worker))
    }

    fn ready(&mut self, post: Post, version: String, format: u32) {
        self.proven = true;
        self.starts.succeeded();
        match post {
            Post::Standby => {
                if let Some(worker) = &mut self.standby {
                    worker.enter(Stage::Ready { version });
                }
            }
            Post::Refusing => {
                if let Some(worker) = &mut self.refusing {
                    self.estate.recover(Blame::Nobody);
                    worker.say(&FromHolder::Activate(Activation::default()), &[]);
                    worker.enter(Stage::Active);
                }
            }
            Post::Candidate => self.replace_by_candidate(version, format),
            Post::Active => {}
        }
    }

    fn ended(&mut self, post: Post, death: Death) -> Result<(), HolderError> {
        let now = Instant::now();
        match post {
            Post::Active => {
                let blame = death.blame();
                // In this order: what the dead one had begun is sent again, and somebody reads it.
                self.estate.recover(blame);
                let dead = self.active.take();
                if blame == Blame::Requests {
                    self.crashes.crashed(now);
                }
                if self.crashes.wait(now).is_zero() {
                    self.promote();
                }
                // Readers wait no more; now there is time for words.
                let pid = dead.map(|worker| worker.pid());
                tracing::warn!(pid, "the active worker {death}");
                self.last_end = Some(death.to_string());
            }
            Post::Standby => {
                let ready = self.standby.take().is_some_and(|worker| worker.stage != Stage::Starting);
                if !self.proven {
                    return Err(HolderError::Worker(death.to_string()));
                }
                if !ready || death.blame() == Blame::Requests {
                    self.next_start = now + self.starts.failed();
                }
                tracing::warn!("the standby {death}");
            }
            Post::Refusing => {
                self.refusing = None;
                self.estate.recover(Blame::Nobody);
            }
            Post::Candidate => {
                if let Some(candidate) = self.candidate.take() {
                    candidate.order.refuse(&format!("its worker {death}"));
                }
            }
        }
        Ok(())
    }

    fn status(&self) -> HolderStatus {
        let version = |worker: &Worker| match &worker.stage {
            Stage::Ready { version } => Some(version.clone()),
            Stage::Starting | Stage::Active => None,
        };
        HolderStatus {
            version: crate::VERSION.to_owned(),
            pid: std::process::id(),
            active: self.active.as_ref().map(Worker::pid),
            standby: self.standby.as_ref().filter(|worker| version(worker).is_some()).map(Worker::pid),
            standby_version: self.standby.as_ref().and_then(version),
            notifier: self.estate.notifying.pid(),
            witness: self.estate.witnessing.pid(),
            refusing: self.refusing.is_some(),
            replaced: self.predecessors.saturating_sub(1),
            last_end: self.last_end.clone(),
            values_survive: self.estate.arena.is_some(),
            requests_survive: self.estate.mounts.iter().all(|held| held.mount.connection().can_resend()),
        }
    }

    /// Unmounts, which gives open files a moment, and ends the workers.
    fn stop(self) {
        let Self { mut estate, active, .. } = self;
        let (mounts, manifest) = (estate.mounts.len(), estate.manifests.last());
        estate.unmount();
        // While somebody lives who sends them.
        estate.wait_until_told(active.is_some());
        drop(active);
        inheritance::revoke(mounts, manifest);
    }
}

async fn event_of(worker: &mut Option<Worker>) -> Event {
    match worker {
        Some(worker) => worker.event().await,
        None => std::future::pending().await,
    }
}

async fn event_of_candidate(candidate: &mut Option<Candidate>) -> Event {
    match candidate {
        Some(candidate) => candidate.worker.event().await,
        None => std::future::pending().await,
    }
}
