use async_trait::async_trait;
use secretfs_wire::manifest::RawService;
use secretfs_wire::{EnvironmentName, Labels, NodeId};

use super::{Assignments, StoreError};

/// What an environment has for its nodes at one moment.
pub(crate) struct Published {
    /// Rises with each change of what is in here.
    pub(crate) revision: u64,
    /// Services and their targets, both by name.
    pub(crate) services: Vec<RawService>,
    pub(crate) assignments: Assignments,
}

/// What nodes are shown.
#[async_trait]
pub(crate) trait Publication: Send + Sync {
    async fn published(&self, environment: &EnvironmentName) -> Result<Published, StoreError>;

    /// The labels of exactly this node; `None` when it is not active.
    async fn node_labels(
        &self,
        environment: &EnvironmentName,
        id: NodeId,
    ) -> Result<Option<Labels>, StoreError>;
}
