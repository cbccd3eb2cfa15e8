use async_trait::async_trait;
use secretfs_wire::{EnvironmentName, KeyReference, SecretName, VersionId};

use super::StoreError;
use crate::keys::WrappedKey;

/// A key that is or was an environment's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    pub(crate) key: KeyReference,
    pub(crate) environment: EnvironmentName,
    /// All versions below are retired.
    pub(crate) floor: u64,
}

/// How much is wrapped under one version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyUse {
    pub(crate) environment: EnvironmentName,
    pub(crate) key: KeyReference,
    pub(crate) version: u64,
    pub(crate) data_keys: u64,
}

/// A data key that is not wrapped under what it should be, with the place of its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutdatedKey {
    pub(crate) id: VersionId,
    pub(crate) secret: SecretName,
    pub(crate) number: u64,
    pub(crate) data_key: WrappedKey,
}

/// A data key's new wrapping, for where it still has this old one.
#[derive(Debug, Clone)]
pub(crate) struct Rewrap {
    pub(crate) id: VersionId,
    pub(crate) from: Vec<u8>,
    pub(crate) to: WrappedKey,
}

/// The keys of environments, and what is wrapped under them.
#[async_trait]
pub(crate) trait Keys: Send + Sync {
    /// By environment, backend and name.
    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError>;

    /// By environment, key and version.
    async fn key_uses(&self) -> Result<Vec<KeyUse>, StoreError>;

    /// Makes this the key under which new data keys are wrapped. Refuses one that another environment
    /// has or had.
    async fn set_key(&self, environment: &EnvironmentName, key: &KeyReference) -> Result<(), StoreError>;

    /// Data keys of an environment that are not wrapped under this version of this key, by id.
    async fn outdated_keys(
        &self,
        environment: &EnvironmentName,
        key: &KeyReference,
        version: u64,
        after: Option<VersionId>,
        limit: u32,
    ) -> Result<Vec<OutdatedKey>, StoreError>;

    /// How many such there are.
    async fn count_outdated_keys(
        &self,
        environment: &EnvironmentName,
        key: &KeyReference,
        version: u64,
    ) -> Result<u64, StoreError>;

    /// Replaces wrappings, all or none of them. One that is no longer there is passed over; returns
    /// how many were.
    async fn rewrap(&self, moves: &[Rewrap]) -> Result<u64, StoreError>;

    /// From now on nothing can be wrapped under a version of this key below this one. Refuses when
    /// something is, with [`StoreError::KeyInUse`].
    async fn retire_key(&self, key: &KeyReference, below: u64) -> Result<(), StoreError>;

    /// Forgets a key that is no environment's any more, and under which nothing is wrapped.
    async fn forget_key(&self, key: &KeyReference) -> Result<(), StoreError>;
}
