use async_trait::async_trait;
use secretfs_wire::EnvironmentName;
use secretfs_wire::api::Environment;

use super::StoreError;

/// Environments, the scope of everything.
#[async_trait]
pub(crate) trait Environments: Send + Sync {
    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// By name.
    async fn environments(&self) -> Result<Vec<Environment>, StoreError>;

    async fn environment(&self, name: &EnvironmentName) -> Result<Environment, StoreError>;

    /// Refuses a name, and a key name, that another environment has.
    async fn create_environment(&self, new: &Environment) -> Result<(), StoreError>;

    /// Refuses one that still has secrets, services or nodes; its join tokens, and the roles that
    /// operators have in it, go with it.
    async fn remove_environment(&self, name: &EnvironmentName) -> Result<(), StoreError>;
}
