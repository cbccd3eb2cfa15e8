//! The notifier: makes the system calls that those see who watch files with inotify(7).
//!
//! The kernel makes inotify events of system calls and of nothing else, so somebody has to make some.
//! Not a worker: one that is killed while it waits for its own answer would never end, and its
//! successor would never begin. Not the holder, which waits for nobody. So it is a process of its own,
//! for whose end nobody waits. When no worker answers it stands still, and when the next one does it
//! goes on.
//!
//! It has mounts of its own, the only ones that can be written to, and writes nothing that is kept. It
//! sees no value.

mod perform;
mod sandbox;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use backon::{BlockingRetryable as _, ConstantBuilder};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use self::perform::perform;
use self::sandbox::SandboxError;
use crate::fuse::{Event, EventReceiver, Stage};
use crate::handover::{Channel, ChannelError};
use crate::host;

/// How often the same events are begun with, when a notifier has ended each time.
const MOST_TRIES: u64 = 3;
/// How long a worker that refuses everything is asked again, and how often. Longer than one refuses.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(200);

/// The kernel may rather kill a notifier than a worker, and rather others than either.
const OOM_SCORE: i16 = -400;

/// The one message that a notifier gets, with these descriptors: the stage, the queue, and a mount for
/// each of these places.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// The places of the mounts among those of the daemon.
    pub(crate) mounts: Vec<usize>,
}

/// Why a notifier ends.
#[derive(Debug, thiserror::Error)]
enum NotifierError {
    #[error("the holder did not say what to do")]
    Channel(#[from] ChannelError),
    #[error("the holder left something out")]
    Incomplete,
    #[error(transparent)]
    Hardening(#[from] host::HardeningError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("what the notifier does cannot be shown")]
    Stage(#[source] io::Error),
    #[error("the queue cannot be read")]
    Queue(#[source] io::Error),
}

/// Runs as a notifier, with the channel to the holder as standard input, until it is killed or nobody
/// is left who could have anything to tell.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = host::error_chain(&error), "watchers are told nothing");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), NotifierError> {
    host::set_oom_score(OOM_SCORE);
    host::die_with_parent()?;
    host::forbid_dumps()?;
    let channel = io::stdin().as_fd().try_clone_to_owned().map(Channel::over);
    let mut packet = channel.map_err(NotifierError::Stage)?.receive()?;
    let Assignment { mounts } = packet.read()?;
    let mut next = || packet.descriptors.next().ok_or(NotifierError::Incomplete);
    let stage = Stage::map(next()?.as_fd()).map_err(NotifierError::Stage)?;
    let queue = EventReceiver::over(next()?);
    let mounts: Vec<(usize, OwnedFd)> =
        mounts.into_iter().map(|place| Ok((place, next()?))).collect::<Result<_, NotifierError>>()?;
    sandbox::enter(mounts.iter().map(|(_, mount)| mount))?;
    loop {
        let events = match queue.peek() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other.map_err(NotifierError::Queue)?,
        };
        match stage.count_try() {
            ..=MOST_TRIES => events.iter().for_each(|event| notify(event, &mounts, &stage)),
            _ => tracing::error!(?events, "several notifiers have ended with these; watchers are not told"),
        }
        // Not before: who is killed meanwhile leaves them to the next one.
        queue.take().map_err(NotifierError::Queue)?;
        stage.forget_tries();
    }
}

fn notify(event: &Event, mounts: &[(usize, OwnedFd)], stage: &Stage) {
    let Some((_, mount)) = mounts.iter().find(|(place, _)| *place == event.mount) else { return };
    let began = Instant::now();
    // From a worker that refuses everything until another one lives long enough.
    let is_refused = |error: &Errno| *error == Errno::IO && began.elapsed() < PATIENCE;
    let again = ConstantBuilder::default().with_delay(RETRY).without_max_times();
    match (|| perform(event, mount, stage)).retry(again).when(is_refused).call() {
        Ok(()) => tracing::debug!(?event, "watchers are told"),
        Err(error) => tracing::warn!(%error, ?event, "watchers are not told"),
    }
}
