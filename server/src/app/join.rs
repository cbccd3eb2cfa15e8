use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secretfs_wire::api::{JoinRequest, Joined, RenewRequest, Renewed};
use secretfs_wire::envelope::NodePublicKey;
use secretfs_wire::{HOST_MAX_ADDRESSES, NodeId, TokenSecret};

use super::{App, now};
use crate::authn::NodeIdentity;
use crate::ca::{CaError, CertificateRequest, Subject};
use crate::error::Error;
use crate::store::{NewNode, StoreError};

impl App {
    /// Takes a node in. Everything that the node sent is checked before its token is used up, and
    /// the token is used up in the transaction that creates the node.
    pub(crate) async fn join(&self, asked: JoinRequest, address: Option<IpAddr>) -> Result<Joined, Error> {
        let secret: TokenSecret = asked.token.parse().map_err(|_| StoreError::TokenRefused)?;
        let request = CertificateRequest::from_pem(&asked.certificate_request)?;
        let envelope_key = STANDARD
            .decode(&asked.envelope_key)
            .map_err(|_| Error::Invalid("envelope_key is not base64".to_owned()))?;
        NodePublicKey::from_der(&envelope_key).map_err(|error| Error::Invalid(error.to_string()))?;
        if asked.host.addresses.len() > HOST_MAX_ADDRESSES {
            return Err(Error::Invalid(format!("a host tells {HOST_MAX_ADDRESSES} addresses at most")));
        }

        let (now, digest, id) = (now(), secret.digest(), NodeId::random());
        let environment = self.store.token_environment(&digest, now).await?;
        let subject = Subject::Node { environment, name: asked.name.clone(), id };
        let lifetime = self.config.node_certificate_lifetime;
        let (certificate, certificate_expires) =
            self.authority.issue_node(&subject, &request, now, lifetime)?;
        let node =
            NewNode { id, name: asked.name, envelope_key, certificate_expires, address, host: asked.host };
        let node = self.store.join(&digest, node, now).await?;
        tracing::info!(
            environment = %node.environment, node = %node.name, state = ?node.state,
            fingerprint = %node.fingerprint, address = address.map(tracing::field::display), "a node joined"
        );
        Ok(Joined { id, environment: node.environment, certificate, state: node.state })
    }

    /// Makes out a certificate for a node's next key.
    pub(crate) async fn renew(&self, node: &NodeIdentity, asked: &RenewRequest) -> Result<Renewed, Error> {
        let request = CertificateRequest::from_pem(&asked.certificate_request)?;
        let subject =
            Subject::Node { environment: node.environment.clone(), name: node.name.clone(), id: node.id };
        let lifetime = self.config.node_certificate_lifetime;
        let (certificate, expires) = self.authority.issue_node(&subject, &request, now(), lifetime)?;
        self.store.renewed(node.id, expires).await?;
        Ok(Renewed { certificate })
    }
}

impl From<CaError> for Error {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Request | CaError::RequestKey => Self::Invalid(error.to_string()),
            CaError::Malformed | CaError::Mismatch | CaError::Issue(_) => Self::internal(error),
        }
    }
}
