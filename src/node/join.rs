//! Joining: a token becomes a node with keys of its own.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use secretfs_wire::api::{JoinRequest, NodeState};
use secretfs_wire::envelope::{EnvelopeError, NodePrivateKey};
use secretfs_wire::{JoinToken, KeyFingerprint, NodeName};
use url::Url;

use super::facts::host_facts;
use super::identity::{About, NodeIdentity};
use crate::client::{self, CertificateRequest, ClientError, Credentials};

/// How long the manager may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a join needs.
pub(crate) struct JoinOptions {
    /// The manager's URL.
    pub(crate) manager: Url,
    /// The token.
    pub(crate) token: JoinToken,
    /// The name that the node asks for.
    pub(crate) name: Option<NodeName>,
    /// The name that it takes if neither it nor the token says one.
    pub(crate) fallback_name: Option<NodeName>,
}

/// What is worth knowing of a join beside who joined.
pub(crate) struct JoinOutcome {
    /// Whether the node is let in.
    pub(crate) state: NodeState,
    /// How far this host's clock is ahead of the manager's, if that is much.
    pub(crate) clock_ahead: Option<SignedDuration>,
    /// What an operator compares before this node is approved.
    pub(crate) fingerprint: KeyFingerprint,
}

/// Why a join failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The node's RSA key could not be made.
    #[error("cannot make the node's envelope key")]
    EnvelopeKey(#[source] EnvelopeError),
    /// The node's TLS key or its certificate request could not be made.
    #[error("cannot make the node's TLS key")]
    TlsKey(#[source] rcgen::Error),
    /// The manager was not reached, was not the token's, or refused.
    #[error(transparent)]
    Manager(#[from] ClientError),
}

/// Makes the node's keys, proves the manager by the token's pin and asks it for a certificate.
/// Nothing is written down here. A [`NodeState::Pending`] node is refused until it is approved.
pub(crate) async fn join(options: JoinOptions) -> Result<(NodeIdentity, JoinOutcome), JoinError> {
    let envelope_key = NodePrivateKey::generate().map_err(JoinError::EnvelopeKey)?;
    let public = envelope_key.public_key().map_err(JoinError::EnvelopeKey)?;
    let tls = CertificateRequest::new().map_err(JoinError::TlsKey)?;
    let request = JoinRequest {
        token: options.token.secret.expose_text().to_string(),
        name: options.name,
        fallback_name: options.fallback_name,
        certificate_request: tls.request,
        envelope_key: STANDARD.encode(public.as_der()),
        host: host_facts(&options.manager).await,
    };
    let client::Admission { answer: joined, ca, clock } =
        client::join(options.manager.clone(), &options.token, &request, TIMEOUT).await?;
    let identity = NodeIdentity {
        about: About {
            manager: options.manager,
            environment: joined.environment,
            name: joined.name,
            id: joined.id,
        },
        credentials: Credentials { certificate: joined.certificate, key: tls.key, ca },
        envelope_key,
    };
    let (clock_ahead, fingerprint) = (clock.host_ahead(), public.fingerprint());
    Ok((identity, JoinOutcome { state: joined.state, clock_ahead, fingerprint }))
}
