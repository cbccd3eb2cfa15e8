use std::net::IpAddr;

use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::{ChangeLabels, Duplicate, NodeState};
use secretfs_wire::{EnvironmentName, HostFacts, KeyFingerprint, Labels, NodeId, NodeName, ServiceName};

use super::StoreError;

/// A node that asks to join. Its state, environment and labels are the token's to say.
pub(crate) struct NewNode {
    pub(crate) id: NodeId,
    pub(crate) name: NodeName,
    /// SubjectPublicKeyInfo DER.
    pub(crate) envelope_key: Vec<u8>,
    pub(crate) certificate_expires: Timestamp,
    /// From where it asks.
    pub(crate) address: Option<IpAddr>,
    /// What its host says of itself.
    pub(crate) host: HostFacts,
}

/// A node as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRecord {
    pub(crate) id: NodeId,
    pub(crate) environment: EnvironmentName,
    pub(crate) name: NodeName,
    pub(crate) state: NodeState,
    pub(crate) labels: Labels,
    /// The services assigned to it, by name.
    pub(crate) services: Vec<ServiceName>,
    pub(crate) joined: Timestamp,
    pub(crate) certificate_expires: Timestamp,
    /// Of its envelope key.
    pub(crate) fingerprint: KeyFingerprint,
    /// From where it joined.
    pub(crate) address: Option<IpAddr>,
    pub(crate) host: HostFacts,
    pub(crate) duplicate: Option<Duplicate>,
}

/// Nodes, and how they join.
#[async_trait]
pub(crate) trait Nodes: Send + Sync {
    /// Uses a token up and creates the node, both or neither. The name has to be the token's, if that is
    /// for one. The name of a revoked node is free; that of any other is not.
    async fn join(&self, digest: &[u8; 32], node: NewNode, now: Timestamp) -> Result<NodeRecord, StoreError>;

    /// By name.
    async fn nodes(&self, environment: &EnvironmentName) -> Result<Vec<NodeRecord>, StoreError>;

    async fn node(&self, environment: &EnvironmentName, name: &NodeName) -> Result<NodeRecord, StoreError>;

    /// The state of exactly this node, or `None` when there is none: asked at each of its requests.
    async fn node_state(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
        id: NodeId,
    ) -> Result<Option<NodeState>, StoreError>;

    /// SubjectPublicKeyInfo DER.
    async fn envelope_key(&self, id: NodeId) -> Result<Option<Vec<u8>>, StoreError>;

    /// Makes a pending node active; an active one stays so, and a revoked one is refused, as is one whose
    /// certificate ended while it waited. It is no duplicate any more. Refused when its key has another
    /// fingerprint than the one that is given.
    async fn approve(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
        fingerprint: Option<KeyFingerprint>,
        now: Timestamp,
    ) -> Result<NodeRecord, StoreError>;

    /// Notes that several daemons speak as a node. Since when stays what it was if that was known.
    async fn flag_duplicate(&self, id: NodeId, found: &Duplicate) -> Result<(), StoreError>;

    /// How many nodes are flagged so and not revoked, over all environments.
    async fn duplicate_nodes(&self) -> Result<u64, StoreError>;

    async fn revoke(&self, environment: &EnvironmentName, name: &NodeName) -> Result<NodeRecord, StoreError>;

    /// The id that it had.
    async fn remove_node(&self, environment: &EnvironmentName, name: &NodeName)
    -> Result<NodeId, StoreError>;

    async fn change_labels(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
        change: &ChangeLabels,
    ) -> Result<NodeRecord, StoreError>;

    async fn renewed(&self, id: NodeId, certificate_expires: Timestamp) -> Result<(), StoreError>;
}
