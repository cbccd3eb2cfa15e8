//! What nodes come for: a session, and envelopes under it.

use std::time::Instant;

use secretfs_wire::api::{EnvelopeRequest, Session};
use secretfs_wire::envelope::{DeliveryContext, NodePublicKey, SessionKey};
use secretfs_wire::{EnvironmentName, SecretBytes, SecretName};

use super::App;
use crate::authn::NodeIdentity;
use crate::error::Error;
use crate::keys::{self, KeyError, SealedVersion, VersionContext};
use crate::store::Delivery;

/// A version, sealed for one request, and which it is.
pub(crate) struct Envelope {
    pub(crate) sealed: Vec<u8>,
    pub(crate) secret: SecretName,
    pub(crate) version: u64,
}

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
    ) -> Result<Envelope, Error> {
        let session =
            self.sessions.key(node.id, asked.session, Instant::now()).ok_or(Error::SessionUnknown)?;
        let (delivery, value) = self.delivered(node, asked).await?;
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
        let sealed = session.seal(asked.salt, context, &value).map_err(Error::internal)?;
        Ok(Envelope { sealed, secret: delivery.secret, version: delivery.number })
    }

    /// What is at a target now, and its value.
    pub(super) async fn delivered(
        &self,
        node: &NodeIdentity,
        asked: &EnvelopeRequest,
    ) -> Result<(Delivery, SecretBytes), Error> {
        match self.look_up(node, asked).await {
            // Between the look-up and the unwrapping its data key was moved and the key retired.
            // Once more, then: to be retired again takes longer than a look-up.
            Err(Error::Key(KeyError::Missing(_))) => self.look_up(node, asked).await,
            delivered => delivered,
        }
    }

    async fn look_up(
        &self,
        node: &NodeIdentity,
        asked: &EnvelopeRequest,
    ) -> Result<(Delivery, SecretBytes), Error> {
        let delivery = self
            .store
            .delivery(&node.environment, node.id, &asked.service, &asked.target)
            .await?
            .ok_or(Error::NotVisible)?;
        if delivery.id != asked.version_id {
            return Err(Error::Superseded);
        }
        let Delivery { secret, number, sealed, .. } = &delivery;
        let value = self.open(&node.environment, secret, *number, sealed).await?;
        Ok((delivery, value))
    }

    /// Opens a stored version, and says so when it is not one of that place.
    pub(super) async fn open(
        &self,
        environment: &EnvironmentName,
        secret: &SecretName,
        number: u64,
        sealed: &SealedVersion,
    ) -> Result<SecretBytes, Error> {
        let context = VersionContext { environment, secret, number };
        match keys::open(&self.keys, context, sealed).await {
            Err(error @ KeyError::Refused) => {
                self.report_damage(environment, secret, number, &error).await?;
                Err(Error::Damaged { secret: secret.clone(), version: number })
            }
            opened => Ok(opened?),
        }
    }

    /// Somebody has changed the store beside the manager, or it is damaged.
    pub(super) async fn report_damage(
        &self,
        environment: &EnvironmentName,
        secret: &SecretName,
        version: u64,
        error: &KeyError,
    ) -> Result<(), Error> {
        self.metrics.refused_versions.inc();
        tracing::error!(%environment, %secret, version, %error, "a stored version is refused");
        self.record_damage(environment, secret, version).await
    }
}
