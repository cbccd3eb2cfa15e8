//! What is on record without anybody's call: what happens to the manager, and what it finds.

use secretfs_wire::audit::{Actor, Event, Outcome};
use secretfs_wire::{Action, EnvironmentName, SecretName};

use super::App;
use crate::audit::{Durability, Entry};
use crate::error::Error;

impl App {
    /// Records that the manager begins to serve, and what opened its seal.
    pub(crate) async fn record_start(&self, unlocked: Vec<Event>) {
        let start = Event::new(Action::ManagerStart, Outcome::Done, Actor::Manager);
        let entries = unlocked.into_iter().chain([start]).map(Entry::from).collect();
        if let Err(error) = self.audit.record(entries, Durability::Power).await {
            tracing::error!(%error, "the start of the manager is not recorded");
        }
    }

    /// Records that the manager ends, and signs for all that was recorded.
    pub(crate) async fn record_stop(&self) {
        let stop = Event::new(Action::ManagerStop, Outcome::Done, Actor::Manager);
        if let Err(error) = self.audit.close(vec![stop]).await {
            tracing::error!(%error, "the end of the manager is not recorded");
        }
    }

    /// Records a stored version that does not open where it is.
    pub(crate) async fn record_damage(
        &self,
        environment: &EnvironmentName,
        secret: &SecretName,
        version: u64,
    ) -> Result<(), Error> {
        let mut event = Event::new(Action::SecretDamaged, Outcome::Failed, Actor::Manager);
        event.environment = Some(environment.clone());
        (event.object.secret, event.object.version) = (Some(secret.clone()), Some(version));
        Ok(self.audit.record(vec![event.into()], Durability::Power).await?)
    }

    /// Records what was found and nobody asked for, so that nothing is to be refused if it cannot be.
    pub(super) async fn note(&self, event: Event) {
        let action = event.action;
        if let Err(error) = self.audit.record(vec![event.into()], Durability::Power).await {
            tracing::error!(%error, %action, "what was found is not recorded");
        }
    }
}
