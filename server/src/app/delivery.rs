//! What nodes come for: a session, and envelopes under it.

use std::time::Instant;

use secretfs_wire::api::{EnvelopeRequest, Session};
use secretfs_wire::envelope::{DeliveryContext, NodePublicKey, SessionKey};

use super::App;
use crate::authn::NodeIdentity;
use crate::error::Error;
use crate::keys::{self, VersionContext};

impl App {
    /// Begins a session: a fresh key, wrapped to the key that the node joined with.
    pub(crate) async fn open_session(&self, node: &NodeIdentity) -> Result<Session, Error> {
        let public_key = self
            .store
            .envelope_key(node.id)
            .await?
            .ok_or(Error::Unauthenticated("this node is no longer known here"))?;
        let public_key = NodePublicKey::from_der(&public_key).map_err(Error::internal)?;
        let key = SessionKey::generate().map_err(Error::internal)?;
        let wrapped_key = key.wrap_for(&public_key).map_err(Error::internal)?;
        Ok(Session {
            session: self.sessions.open(node.id, key, Instant::now()),
            wrapped_key,
            expires_in_seconds: self.sessions.lifetime().as_secs(),
        })
    }

    /// Seals the current version of a target for one request of one node.
    pub(crate) async fn envelope(
        &self,
        node: &NodeIdentity,
        asked: &EnvelopeRequest,
    ) -> Result<Vec<u8>, Error> {
        let session =
            self.sessions.key(node.id, asked.session, Instant::now()).ok_or(Error::SessionUnknown)?;
        let delivery = self
            .store
            .delivery(&node.environment, node.id, &asked.service, &asked.target)
            .await?
            .ok_or(Error::NotVisible)?;
        if delivery.id != asked.version_id {
            return Err(Error::Superseded);
        }
        let stored = VersionContext {
            environment: &node.environment,
            secret: &delivery.secret,
            number: delivery.number,
        };
        let value = keys::open(self.keys.as_ref(), stored, &delivery.sealed).await?;
        let context = DeliveryContext {
            environment: &node.environment,
            node: &node.name,
            service: &asked.service,
            target: &asked.target,
            secret: &delivery.secret,
            version: delivery.number,
            version_id: delivery.id,
            ownership: delivery.ownership,
        };
        session.seal(asked.salt, context, &value).map_err(Error::internal)
    }
}
