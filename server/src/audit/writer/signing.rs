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
        if self.signed == self.head.sequence || self.status.is_broken() {
            return Ok(());
        }
        let signed = self.sign(self.head)?;
        self.commit(Draft { durable: true, ..Draft::default() }, Some(signed), None).await
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
        let (key, kept) = made.map_err(|error| AuditError::Unwritable(crate::error::chain(&error)))?;
        self.find_out().await?;
        let event = Event::new(Action::AuditRotate, Outcome::Done, Actor::Manager);
        let record = self.next(self.head, event, Some(key.fingerprint()))?;
        let draft = Draft { records: vec![record], durable: true, ..Draft::default() };
        let signed = self.sign(self.head_of(&draft))?;
        let rotated = self.commit(draft, Some(signed), Some(kept)).await;
        match &rotated {
            Ok(()) => {
                tracing::info!(key = %key.fingerprint(), "the audit log has another key");
                self.key = key;
            }
            Err(error) => self.fail(error),
        }
        rotated
    }
}
