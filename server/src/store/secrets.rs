use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::{Secret, SecretDetails};
use secretfs_wire::{
    EnvironmentName, Labels, NodeId, Ownership, SecretName, ServiceName, TargetName, VersionId,
};

use super::StoreError;
use crate::keys::SealedVersion;

/// A secret to be created with its first version.
pub(crate) struct NewSecret {
    pub(crate) name: SecretName,
    pub(crate) labels: Labels,
    pub(crate) version: NewVersion,
}

/// A version to be added, sealed under its number.
pub(crate) struct NewVersion {
    pub(crate) id: VersionId,
    /// Counted from 1.
    pub(crate) number: u64,
    /// Of the value, in bytes.
    pub(crate) size: u64,
    pub(crate) created: Timestamp,
    pub(crate) sealed: SealedVersion,
}

/// The current version of a secret, for tests that look at what is stored. The manager itself opens a
/// value only to deliver it.
#[cfg(test)]
pub(crate) struct CurrentVersion {
    pub(crate) number: u64,
    pub(crate) sealed: SealedVersion,
}

/// The current version of a secret at a target that a node may see.
pub(crate) struct Delivery {
    pub(crate) secret: SecretName,
    pub(crate) id: VersionId,
    pub(crate) number: u64,
    pub(crate) ownership: Ownership,
    pub(crate) sealed: SealedVersion,
}

/// Secrets with their versions, and which node sees what of them.
#[async_trait]
pub(crate) trait Secrets: Send + Sync {
    /// By name.
    async fn secrets(&self, environment: &EnvironmentName) -> Result<Vec<Secret>, StoreError>;

    /// Which secret, and which number of it, each of these versions is, as far as they are there.
    async fn version_places(
        &self,
        environment: &EnvironmentName,
        versions: &BTreeSet<VersionId>,
    ) -> Result<BTreeMap<VersionId, (SecretName, u64)>, StoreError>;

    /// Without what nodes have of it.
    async fn secret(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
    ) -> Result<SecretDetails, StoreError>;

    async fn create_secret(
        &self,
        environment: &EnvironmentName,
        new: NewSecret,
    ) -> Result<Secret, StoreError>;

    #[cfg(test)]
    async fn current(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
    ) -> Result<CurrentVersion, StoreError>;

    /// Which secret's version each id is, and its number. Ids that this environment does not have are
    /// left out.
    async fn numbers(
        &self,
        environment: &EnvironmentName,
        ids: &[VersionId],
    ) -> Result<HashMap<VersionId, (SecretName, u64)>, StoreError>;

    /// Adds a version and makes it current. [`StoreError::Raced`] when its number is not the next.
    async fn add_version(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
        version: NewVersion,
    ) -> Result<Secret, StoreError>;

    /// Makes an existing version current: that number, or the newest below the current one. Tells
    /// whether it was not before.
    async fn make_current(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
        number: Option<u64>,
        now: Timestamp,
    ) -> Result<(Secret, bool), StoreError>;

    /// Removes it with all its versions; refuses one that is attached.
    async fn remove_secret(&self, environment: &EnvironmentName, name: &SecretName)
    -> Result<(), StoreError>;

    /// What is at a target; `None` when the node may not see it, or there is nothing.
    async fn delivery(
        &self,
        environment: &EnvironmentName,
        node: NodeId,
        service: &ServiceName,
        target: &TargetName,
    ) -> Result<Option<Delivery>, StoreError>;
}
