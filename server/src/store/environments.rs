use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::Environment;
use secretfs_wire::{EnvironmentName, OperatorName};

use super::StoreError;

/// Environments, and the operators over all of them.
#[async_trait]
pub(crate) trait Environments: Send + Sync {
    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;

    async fn create_operator(&self, name: &OperatorName, now: Timestamp) -> Result<(), StoreError>;

    async fn operator_exists(&self, name: &OperatorName) -> Result<bool, StoreError>;

    /// By name.
    async fn environments(&self) -> Result<Vec<Environment>, StoreError>;

    async fn environment(&self, name: &EnvironmentName) -> Result<Environment, StoreError>;

    /// Refuses a name, and a key name, that another environment has.
    async fn create_environment(&self, new: &Environment) -> Result<(), StoreError>;

    /// Refuses one that still has secrets, services or nodes; its join tokens go with it.
    async fn remove_environment(&self, name: &EnvironmentName) -> Result<(), StoreError>;
}
