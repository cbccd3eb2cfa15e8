use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::envelope::{Salt, WrappedSessionKey};
use crate::{
    EnvironmentName, HostFacts, InstanceId, KeyFingerprint, Labels, NodeId, NodeName, ServiceName, SessionId,
    TargetName, VersionId,
};

/// A host that joined an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Node {
    /// Its name, unique in its environment.
    pub name: NodeName,
    /// Its id.
    pub id: NodeId,
    /// Whether it is served.
    pub state: NodeState,
    /// Whether its change stream is up at this manager.
    pub connected: bool,
    /// Its labels, as operators set them.
    pub labels: Labels,
    /// The services assigned to it.
    pub services: Vec<ServiceName>,
    /// When it joined.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub joined: Timestamp,
    /// When its certificate ends, unless it renews it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub certificate_expires: Timestamp,
    /// Whether that was before now, so that it has to join again.
    #[serde(default)]
    pub certificate_ended: bool,
    /// The fingerprint of its envelope key, which it prints as well.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub fingerprint: KeyFingerprint,
    /// From where it joined, as the manager saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// What its host said of itself when it joined. Nobody has checked it.
    #[serde(default, skip_serializing_if = "HostFacts::is_empty")]
    pub host: HostFacts,
    /// That two daemons speak as this node, until an operator approves it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Duplicate>,
}

/// Daemons that speak as one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Duplicate {
    /// Since when that is known.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// Those that were heard, each after another one had been; a few at most.
    pub instances: Vec<HeardInstance>,
}

/// A daemon that speaks as a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeardInstance {
    /// Which one it is, or none if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// From where it was heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// When it was heard last.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub last_heard: Timestamp,
}

impl std::fmt::Display for HeardInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.instance {
            Some(instance) => write!(f, "{instance}")?,
            None => f.write_str("unnamed")?,
        }
        match self.address {
            Some(address) => write!(f, " at {address}"),
            None => Ok(()),
        }
    }
}

/// Lets a node that waits be served, and takes note that a duplicate was looked into.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApproveNode {
    /// What the fingerprint of its key has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub fingerprint: Option<KeyFingerprint>,
}

/// Whether a node is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NodeState {
    /// It joined with a token that demands approval, and waits for it.
    Pending,
    /// It is served.
    Active,
    /// It is refused, for good.
    Revoked,
}

/// Labels to set and to take away, in this order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeLabels {
    /// Labels to set.
    #[serde(default)]
    pub set: Labels,
    /// Keys to take away.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A new node's first words, and the only call without a client certificate.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JoinRequest {
    /// The secret part of the join token.
    pub token: String,
    /// The name that the node asks for. Refused if the token is for another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub name: Option<NodeName>,
    /// The name that it takes if neither it nor the token says one: its host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub fallback_name: Option<NodeName>,
    /// A PKCS #10 certificate request for the node's TLS key, as PEM. Only its key and its proof of
    /// possession count; the manager writes the names.
    pub certificate_request: String,
    /// The node's RSA-3072 public key, SubjectPublicKeyInfo DER as base64.
    pub envelope_key: String,
    /// What helps a human to recognise the host.
    #[serde(default, skip_serializing_if = "HostFacts::is_empty")]
    pub host: HostFacts,
}

/// What a node is told when it has joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Joined {
    /// The node's id.
    pub id: NodeId,
    /// The environment it joined.
    pub environment: EnvironmentName,
    /// Its name there.
    pub name: NodeName,
    /// Its certificate, as PEM.
    pub certificate: String,
    /// Whether it is served, or waits for approval.
    pub state: NodeState,
}

/// Asks for a certificate for a new TLS key, under the old one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewRequest {
    /// A PKCS #10 certificate request for the new key, as PEM.
    pub certificate_request: String,
}

/// A renewed certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renewed {
    /// The certificate, as PEM.
    pub certificate: String,
}

/// A session: the key under which envelopes are sealed, wrapped to the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    /// Names the session in requests for envelopes.
    pub session: SessionId,
    /// The session key, which only the node can open.
    pub wrapped_key: WrappedSessionKey,
    /// For how many seconds the manager keeps it.
    pub expires_in_seconds: u64,
}

/// Asks for the current version of one target. The response's body is an
/// [envelope](crate::envelope).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnvelopeRequest {
    /// The session under which it is to be sealed.
    pub session: SessionId,
    /// Makes the reply a reply to this request.
    pub salt: Salt,
    /// The service.
    pub service: ServiceName,
    /// The target in that service.
    pub target: TargetName,
    /// The version that the node's manifest names. When it is no longer current, the answer is
    /// [`ErrorCode::Superseded`](super::ErrorCode::Superseded), and the new manifest is on its way.
    pub version_id: VersionId,
}
