use std::time::Duration;

use secretfs_wire::api::CreatedEnrolment;
use secretfs_wire::audit::{Actor, Event, Outcome};
use secretfs_wire::{Action, OperatorName};

use super::stopped::{StoppedError, StoppedManager};
use crate::app::{draw_enrolment, now, shown_once};
use crate::audit::{AuditError, Durability};
use crate::config::Config;
use crate::error::Cause;
use crate::manager::{Manager, OpenError};

/// Why nobody was made an administrator.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The seal cannot be opened.
    #[error(transparent)]
    Stopped(#[from] StoppedError),
    /// What the seal protects cannot be opened.
    #[error("cannot open the manager")]
    Open(#[source] OpenError),
    /// The token is to be good for too short or too long.
    #[error("a token is good for 1 second to 30 days")]
    Lifetime,
    /// It cannot be put on record, and so is not done.
    #[error("cannot write the audit log")]
    Audit(#[source] Cause),
    /// The store does not take it.
    #[error("cannot change the store")]
    Store(#[source] Cause),
}

impl StoppedManager {
    /// Makes an operator, who may be there already, an administrator of everything, and a token for them
    /// to log in with: when nobody can log in any more, the seal is proof enough. Whoever opens it has all keys
    /// anyway.
    ///
    /// # Errors
    /// When the seal is not open, or the store cannot be changed.
    pub async fn enroll(
        self,
        config: &Config,
        name: &OperatorName,
        ttl: Duration,
    ) -> Result<CreatedEnrolment, RecoveryError> {
        let (directory, sources, _, root) = self.into_opened()?;
        let manager = Manager::unlocked(config.clone(), directory, root, sources.into_backends(), Vec::new())
            .await
            .map_err(RecoveryError::Open)?;
        let (token, enrolment) = draw_enrolment(manager.authority.pin(), ttl.as_secs(), None)
            .map_err(|_| RecoveryError::Lifetime)?;
        let created = shown_once(config, name, &token, &enrolment);
        let (audit, unrecorded) = (&manager.audit, |error: AuditError| RecoveryError::Audit(error.into()));
        let begun = enrolled(name, Outcome::Begun).into();
        audit.record(vec![begun], Durability::Power).await.map_err(unrecorded)?;
        let recovered = manager.store.recover(name, enrolment, now()).await;
        let outcome = if recovered.is_ok() { Outcome::Done } else { Outcome::Failed };
        audit.close(vec![enrolled(name, outcome)]).await.map_err(unrecorded)?;
        recovered.map_err(|error| RecoveryError::Store(error.into()))?;
        Ok(created)
    }
}

/// Whoever it was has no name: they opened the seal.
fn enrolled(name: &OperatorName, outcome: Outcome) -> Event {
    let mut event = Event::new(Action::OperatorEnroll, outcome, Actor::Manager);
    event.object.operator = Some(name.clone());
    event.reason = Some("by whoever opened the seal".to_owned());
    event
}
