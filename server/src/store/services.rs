use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::{Assignment, Attachment, Service, ServiceDetails};
use secretfs_wire::{EnvironmentName, SecretName, ServiceName, TargetName};

use super::StoreError;

/// Services with their attachments and assignments.
#[async_trait]
pub(crate) trait Services: Send + Sync {
    /// By name.
    async fn services(&self, environment: &EnvironmentName) -> Result<Vec<Service>, StoreError>;

    async fn service(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
    ) -> Result<ServiceDetails, StoreError>;

    async fn create_service(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
        now: Timestamp,
    ) -> Result<Service, StoreError>;

    /// Removes it with its attachments and assignments.
    async fn remove_service(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
    ) -> Result<(), StoreError>;

    /// Attaches, or changes the ownership and the audit mode of the same secret on the same target. An attachment that
    /// is already as asked keeps its time.
    async fn attach(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        attachment: &Attachment,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Takes a secret from one target, or from all.
    async fn detach(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        secret: &SecretName,
        target: Option<&TargetName>,
    ) -> Result<(), StoreError>;

    /// Whether it is new.
    async fn assign(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        assignment: &Assignment,
    ) -> Result<bool, StoreError>;

    async fn unassign(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        assignment: &Assignment,
    ) -> Result<(), StoreError>;
}
