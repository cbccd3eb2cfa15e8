use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::KeyName;

use super::{Context, Key, KeyError};

/// Holds keys that wrap data keys. A key has a name and versions that are numbered from 1; the newest
/// wraps, and each that is not retired unwraps. No key leaves its backend, and no other cleartext
/// than a data key enters one.
#[async_trait]
pub(crate) trait KeyBackend: Send + Sync {
    /// Makes a key of this name unless there is one. A backend in which the manager may make none
    /// checks that it is there.
    async fn ensure(&self, name: &KeyName) -> Result<(), KeyError>;

    /// Wraps data keys under the key's newest version, each bound to its context: as many as it was
    /// given, in their order.
    async fn wrap(&self, name: &KeyName, data_keys: &[(&Context, &Key)]) -> Result<Vec<Wrapped>, KeyError>;

    /// Unwraps data keys, each under its context, in their order. One that was not wrapped under this
    /// key and its context is [`KeyError::Refused`] by itself, and does not fail the others.
    async fn unwrap(
        &self,
        name: &KeyName,
        wrapped: &[(&Context, &Wrapped)],
    ) -> Result<Vec<Result<Key, KeyError>>, KeyError>;

    /// Adds a version, which wraps from now on, and returns its number.
    async fn rotate(&self, name: &KeyName) -> Result<u64, KeyError>;

    /// The key's newest version, and what the backend tells of the others.
    async fn describe(&self, name: &KeyName) -> Result<KeyDescription, KeyError>;

    /// Makes all versions below this one unusable for good; the caller has made sure that nothing is
    /// wrapped under them. Above the newest it is the whole key.
    async fn retire(&self, name: &KeyName, below: u64) -> Result<(), KeyError>;

    /// Whether the backend can serve.
    async fn health(&self) -> Result<(), KeyError>;
}

/// A data key as a backend has wrapped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrapped {
    /// The version of the wrapping key, from 1.
    pub(crate) version: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What a backend tells of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyDescription {
    pub(crate) newest: u64,
    /// Those that unwrap, in ascending order; a backend that may not list them tells the newest only.
    pub(crate) versions: Vec<VersionDescription>,
}

/// What a backend tells of one version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionDescription {
    pub(crate) version: u64,
    /// `None` when the backend does not tell.
    pub(crate) created: Option<Timestamp>,
}
