use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secretfs_wire::api::{JoinRequest, Joined, RenewRequest, Renewed};
use secretfs_wire::envelope::NodePublicKey;
use secretfs_wire::{HOST_MAX_ADDRESSES, NodeId, NodeName, TokenId, TokenSecret};

use super::{App, now};
use crate::authn::NodeIdentity;
use crate::ca::{CaError, CertificateRequest};
use crate::error::Error;
use crate::store::{NewNode, OpenToken, StoreError};

/// A token that is shown by a host, and is good.
pub(crate) struct Shown {
    digest: [u8; 32],
    pub(crate) token: OpenToken,
}

impl App {
    /// What a host that joins has to show for it.
    pub(crate) async fn shown_token(&self, secret: &str) -> Result<Shown, Error> {
        let secret: TokenSecret = secret.parse().map_err(|_| StoreError::TokenRefused)?;
        let digest = secret.digest();
        Ok(Shown { digest, token: self.store.open_token(&digest, now()).await? })
    }

    /// Takes a node in. Everything that the node sent is checked before its token is used up, and
    /// the token is used up in the transaction that creates the node.
    pub(crate) async fn join(
        &self,
        shown: Shown,
        asked: JoinRequest,
        address: Option<IpAddr>,
    ) -> Result<Joined, Error> {
        let name = shown.name(asked.name, asked.fallback_name)?;
        let request = CertificateRequest::from_pem(&asked.certificate_request)?;
        let envelope_key = STANDARD
            .decode(&asked.envelope_key)
            .map_err(|_| Error::Invalid("envelope_key is not base64".to_owned()))?;
        NodePublicKey::from_der(&envelope_key).map_err(|error| Error::Invalid(error.to_string()))?;
        if asked.host.addresses.len() > HOST_MAX_ADDRESSES {
            return Err(Error::Invalid(format!("a host tells {HOST_MAX_ADDRESSES} addresses at most")));
        }

        let (now, id) = (now(), NodeId::random());
        let Shown { digest, token: OpenToken { environment, .. } } = shown;
        let lifetime = self.config.node_certificate_lifetime;
        let (certificate, certificate_expires) =
            self.authority.issue_node(&environment, &name, id, &request, now, lifetime)?;
        let node = NewNode { id, name, envelope_key, certificate_expires, address, host: asked.host };
        let node = self.store.join(&digest, node, now).await?;
        tracing::info!(
            environment = %node.environment, node = %node.name, state = ?node.state,
            fingerprint = %node.fingerprint, address = address.map(tracing::field::display), "a node joined"
        );
        Ok(Joined { id, environment: node.environment, name: node.name, certificate, state: node.state })
    }

    /// Makes out a certificate for a node's next key.
    pub(crate) async fn renew(&self, node: &NodeIdentity, asked: &RenewRequest) -> Result<Renewed, Error> {
        let request = CertificateRequest::from_pem(&asked.certificate_request)?;
        let NodeIdentity { environment, name, id } = node;
        let lifetime = self.config.node_certificate_lifetime;
        let (certificate, expires) =
            self.authority.issue_node(environment, name, *id, &request, now(), lifetime)?;
        self.store.renewed(node.id, expires).await?;
        Ok(Renewed { certificate })
    }
}

impl Shown {
    /// The name that the node gets: the token's, or else the one that it asks for, or its host's.
    fn name(&self, asked: Option<NodeName>, fallback: Option<NodeName>) -> Result<NodeName, Error> {
        match (self.token.name.clone(), asked) {
            (Some(name), Some(asked)) if asked != name => Err(Error::TokenForAnother { name }),
            (Some(name), _) | (None, Some(name)) => Ok(name),
            (None, None) => fallback.ok_or_else(|| {
                Error::Invalid(
                    "neither the token nor the host has a name for the node; add --name".to_owned(),
                )
            }),
        }
    }
}

/// For the record of a join.
impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {}", TokenId::of_digest(&self.digest))?;
        match &self.token.name {
            Some(name) => write!(f, " for {name}"),
            None => Ok(()),
        }
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
