use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::TemplateDetails;
use secretfs_wire::template::Template;
use secretfs_wire::{EnvironmentName, Ownership, ServiceName, TargetName};

use super::StoreError;

/// A template to be set.
pub(crate) struct NewTemplate<'a> {
    pub(crate) target: &'a TargetName,
    pub(crate) template: &'a Template,
    pub(crate) ownership: Ownership,
}

/// Files of a service that are made from what is attached to it.
#[async_trait]
pub(crate) trait Templates: Send + Sync {
    async fn template(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        target: &TargetName,
    ) -> Result<TemplateDetails, StoreError>;

    /// Creates or replaces it. One that is already as asked keeps its time. Refused when one of its
    /// inputs is not attached, or when its target is.
    async fn set_template(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        new: NewTemplate<'_>,
        now: Timestamp,
    ) -> Result<TemplateDetails, StoreError>;

    async fn remove_template(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        target: &TargetName,
    ) -> Result<(), StoreError>;
}
