use std::time::Duration;

use secretfs_wire::Action;
use secretfs_wire::audit::{Actor, Event, Outcome, SignedCheckpoint};

use super::{Draft, Writer};
use crate::app::now;
use crate::audit::error::AuditError;
use crate::audit::key::SigningKey;
use crate::store::Head;

impl Writer {
    /// Signs for all that is written.
    pub(super) async fn checkpoint(&mut self) -> Result<(), AuditError> {
        self.find_out().await?;
        if self.signed == self.head.sequence {
            return Ok(());
        }
        let signed = Some(self.sign(self.head)?);
        self.commit(Draft { signed, durable: true, ..Draft::default() }).await
    }

    fn sign(&self, head: Head) -> Result<SignedCheckpoint, AuditError> {
        let signed = self.key.sign(self.chain, head, now());
        signed.map_err(|error| AuditError::Unwritable(error.to_string()))
    }

    pub(super) fn is_key_old(&self) -> bool {
        let age = Duration::try_from(now().duration_since(self.key.made)).unwrap_or_default();
        age > self.settings.key_lifetime
    }

    /// Another key from now on: a record names it, and the last checkpoint under the old one signs that.
    pub(super) async fn rotate(&mut self) -> Result<(), AuditError> {
        let made = SigningKey::make(&self.authority, &self.root, self.chain, now());
        let key = made.map_err(|error| AuditError::Unwritable(crate::error::chain(&error)))?;
        self.find_out().await?;
        let event = Event::new(Action::AuditRotate, Outcome::Done, Actor::Manager);
        let record = self.next(self.head, event, Some(key.0.fingerprint()))?;
        let mut draft = Draft { records: vec![record], durable: true, ..Draft::default() };
        draft.signed = Some(self.sign(self.head_of(&draft))?);
        draft.key = Some(key);
        self.commit(draft).await
    }
}
