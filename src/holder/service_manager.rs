//! What the service manager that started this daemon, such as systemd, is told.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How long a start may wait for the manager. After that the mount is there and empty, and whoever
/// needs a file that is not there has to wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The service manager, if one listens (`NOTIFY_SOCKET`, sd_notify(3)).
#[derive(Debug)]
pub(super) struct ServiceManager {
    told_ready: bool,
    started: Instant,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        Self { told_ready: false, started: Instant::now() }
    }

    /// Somebody serves, and what it will serve has not come yet.
    pub(super) fn ready_without_files(&mut self) {
        if !self.told_ready && self.started.elapsed() > PATIENCE {
            tracing::warn!("the manager has not answered yet; the mount is there and empty");
            self.ready();
        }
    }

    /// The files are there: what needs them may be started. Said once.
    pub(super) fn ready(&mut self) {
        if !self.told_ready {
            self.told_ready = true;
            tracing::info!("ready");
            tell(&[NotifyState::Ready]);
        }
    }
}

/// Nobody listens where this was started by hand.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager does not hear");
    }
}
