//! A worker: the process that has the values, and nothing else.
//!
//! It becomes an unprivileged user, gives up what is left to it, prepares everything and then waits as
//! the standby. When the active worker ends, in whatever way, it serves in its place at once: on the
//! same connections, from the same memory.

mod given;
mod sandbox;
mod standby;

use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use secretfs_wire::manifest::RawManifest;
use tokio::runtime::Runtime;

use self::given::Given;
use self::sandbox::Sandbox;
use self::standby::Standby;
use crate::fuse::PreparedRefusal;
use crate::handover::{
    Activation, Begin, Channel, ChannelError, Duty, FORMAT, FromHolder, FromWorker, Ledger, Outbox, document,
};
use crate::host;
use crate::host::process_title::ProcessTitle;
use crate::node::{NodeIdentity, Parts, Prepared};

/// What `ps` shows of the worker that serves.
const ACTIVE: &str = "secretfs: worker (active)";
const REFUSING: &str = "secretfs: worker (refusing)";

/// How often a worker shows that it is alive.
const BEAT: Duration = Duration::from_millis(100);

/// How often it looks whether files of name resolution have been replaced.
const LOOK_WAITING: Duration = Duration::from_secs(1);
const LOOK_SERVING: Duration = Duration::from_secs(5);

const OOM_SCORE: i16 = -500;

/// Threads of the runtime. What they do is wait for the manager.
const THREADS: usize = 2;

/// Why a worker ends before its time.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("the holder speaks format {0} and this worker {FORMAT}")]
    Format(u32),
    #[error("the holder did not say what to do")]
    Channel(#[from] ChannelError),
    #[error("the holder left something out")]
    Incomplete,
    #[error(transparent)]
    Hardening(#[from] host::HardeningError),
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxError),
    #[error("what outlives a worker cannot be mapped")]
    Memory(#[source] std::io::Error),
    #[error(transparent)]
    Identity(#[from] crate::node::StateError),
    #[error(transparent)]
    Prepare(#[from] crate::node::PrepareError),
    #[error("the system gave no thread or no socket")]
    Start(#[source] std::io::Error),
}

/// Runs as a worker, with the channel to the holder as standard input, until it is killed or the
/// holder is gone.
pub(crate) fn main() -> ExitCode {
    // Found while /proc can be read.
    let title = ProcessTitle::find();
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let channel = Arc::new(Channel::over(socket));
    match work(&channel, title) {
        // The holder has gone, or wants this worker no more.
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = host::error_chain(&error);
            tracing::error!(reason, "this worker cannot serve");
            Outbox::new(channel).send(&FromWorker::Failed { reason });
            ExitCode::FAILURE
        }
    }
}

fn work(channel: &Arc<Channel>, title: Option<ProcessTitle>) -> Result<(), WorkerError> {
    // The holder may never be killed for want of memory; a worker may, if need be.
    host::set_oom_score(OOM_SCORE);
    let Given { begin, ledger, listener, identity, connections, arena, notifier, audit } =
        Given::unpack(channel.receive()?)?;
    let duty = begin.duty;
    protect(&begin)?;
    let identity = match duty {
        Duty::Serve => Some(identity.read()?),
        // Whatever ends other workers, it is kept out of this one.
        Duty::Refuse => None,
    };
    let sandbox = confine(identity.as_ref())?;

    // After the sandbox: a thread may do what the one that started it might.
    let runtime = runtime().map_err(WorkerError::Start)?;
    let mut standby = match identity {
        None => refuse(&begin, &ledger)?,
        Some(identity) => {
            let (config, mounts, outbox) = (begin.config, begin.mounts, Outbox::new(channel.clone()));
            let ledger = ledger.clone();
            let parts = Parts { identity, config, mounts, ledger, arena, notifier, audit, outbox };
            Standby::Serve(Box::new(Prepared::new(parts, runtime.handle())?))
        }
    };
    let serving = Arc::new(AtomicBool::new(false));
    runtime.spawn(end_when_outdated(sandbox, serving.clone()));
    channel.send(&FromWorker::Ready { version: crate::VERSION.to_owned(), format: FORMAT }, &[])?;

    let Some(activation) = wait_for_turn(channel, &mut standby)? else { return Ok(()) };
    // This thread was waiting and goes on at once; no other has to be woken.
    serving.store(true, Relaxed);
    standby.activate(&connections, activation, listener, &runtime)?;
    channel.send(&FromWorker::Serving, &[])?;
    runtime.spawn(beat(ledger));
    if let Some(title) = title {
        title.set(match duty {
            Duty::Serve => ACTIVE,
            Duty::Refuse => REFUSING,
        });
    }
    // Nothing more is said to a worker that serves; it only sees the end of its holder.
    while !matches!(channel.receive(), Err(ChannelError::Ended)) {}
    // At once, as if it were killed: dropping the values would wipe them, and a service manager may
    // have kept the memory that they are in for the next holder.
    std::process::exit(0)
}

/// Becomes unprivileged, and keeps what will be in memory there. Before anything secret is.
fn protect(begin: &Begin) -> Result<(), WorkerError> {
    if let Some(user) = begin.user {
        sandbox::drop_privileges(user)?;
    }
    // After that, since it ends with a change of user.
    host::die_with_parent()?;
    match host::harden() {
        Err(error) if begin.config.unlocked => tracing::warn!("{error}"),
        other => other?,
    }
    Ok(())
}

fn confine(identity: Option<&NodeIdentity>) -> Result<Sandbox, WorkerError> {
    let manager_port = identity.and_then(|identity| identity.about.manager.port_or_known_default());
    let sandbox = Sandbox::new(manager_port);
    let enforced = sandbox.enter()?;
    match enforced.missing().as_slice() {
        [] => tracing::debug!(%enforced, "confined"),
        missing => tracing::warn!(%enforced, ?missing, "this kernel confines a worker in part only"),
    }
    Ok(sandbox)
}

fn refuse(begin: &Begin, ledger: &Ledger) -> Result<Standby, WorkerError> {
    let mounts = begin.mounts.iter().enumerate();
    let refusals = mounts.map(|(place, mount)| PreparedRefusal::new(mount.agreement, ledger.handles(place)));
    Ok(Standby::Refuse(refusals.collect::<Result<_, _>>().map_err(WorkerError::Start)?))
}

/// Learns what the active worker learns, until it is this one's turn. `None` when the holder has
/// gone, or does not want this worker any more.
fn wait_for_turn(channel: &Channel, standby: &mut Standby) -> Result<Option<Activation>, WorkerError> {
    loop {
        let mut packet = match channel.receive() {
            Err(ChannelError::Ended) => return Ok(None),
            other => other?,
        };
        match packet.read()? {
            FromHolder::Manifest(sequence) => {
                let memory = packet.descriptors.next().ok_or(WorkerError::Incomplete)?;
                let manifest: RawManifest = document::read(&memory.into()).map_err(WorkerError::Memory)?;
                standby.learn(sequence, manifest);
            }
            FromHolder::Announced(sequence) => standby.announced(sequence),
            FromHolder::Activate(activation) => return Ok(Some(activation)),
        }
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()
}

/// Ends a worker that could not resolve the manager's name any more: a file that tells how has been
/// replaced, as a DHCP client does, and the sandbox lets this worker read only the old one. A new
/// worker reads the new one. The standby looks more often, so that a new one is there first.
async fn end_when_outdated(sandbox: Sandbox, serving: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(if serving.load(Relaxed) { LOOK_SERVING } else { LOOK_WAITING }).await;
        if let Some(file) = sandbox.outdated() {
            tracing::info!(file = %file.display(), "replaced; a new worker reads it");
            std::process::exit(0);
        }
    }
}

/// Shows the holder that the runtime runs. That the thread which answers the kernel does not hang is
/// in the journal.
async fn beat(ledger: Ledger) {
    let mut beats = tokio::time::interval(BEAT);
    loop {
        beats.tick().await;
        ledger.beat();
    }
}
