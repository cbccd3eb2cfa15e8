//! What the service manager that started this daemon, such as systemd, is told.

use sd_notify::NotifyState;

/// The service manager, if one listens (`NOTIFY_SOCKET`, sd_notify(3)).
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    told_ready: bool,
}

impl ServiceManager {
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
