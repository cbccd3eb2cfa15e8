use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{EnvironmentName, KeyBackendKind, KeyName, KeyReference, SecretName, VersionId};

/// How many data keys one [`RewrapStep`] moves at most.
pub const REWRAP_MAX_DATA_KEYS: u32 = 1000;

/// An environment's key, and all others that it had and that are not retired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnvironmentKeys {
    /// The environment.
    pub environment: EnvironmentName,
    /// The key under which new data keys are wrapped.
    pub key: KeyReference,
    /// That key's newest version; `None` when its backend does not answer.
    pub newest: Option<u64>,
    /// Each version that is there or that something is wrapped under, the newest key and version first.
    pub versions: Vec<KeyVersion>,
    /// What is wrong with a backend that could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyVersion {
    /// The key.
    pub key: KeyReference,
    /// The version, from 1.
    pub version: u64,
    /// When it was made, where the backend says so.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub created: Option<Timestamp>,
    /// How many data keys are wrapped under it.
    pub data_keys: u64,
}

/// What a key's rotation has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotatedKey {
    /// The environment's key.
    pub key: KeyReference,
    /// Its new version.
    pub version: u64,
}

/// Asks that an environment's data keys be wrapped under another key from now on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrateKey {
    /// Where that key is kept.
    pub to: KeyBackendKind,
    /// Its name there; that of the present key by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<KeyName>,
}

/// Asks that some data keys be moved to the newest version of their environment's key. A whole
/// rewrap is steps until there is no [`next`](Rewrapped::next); it can end after any of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RewrapStep {
    /// Where the step before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<VersionId>,
    /// How many data keys to move at most, up to [`REWRAP_MAX_DATA_KEYS`].
    pub limit: u32,
}

/// What a step has moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rewrapped {
    /// Where data keys are moved to.
    pub key: KeyReference,
    /// The version of that key.
    pub version: u64,
    /// How many data keys this step has moved.
    pub moved: u64,
    /// How many are still elsewhere.
    pub remaining: u64,
    /// Those that could not be opened where they are, because they were not sealed for there.
    pub refused: Vec<RefusedVersion>,
    /// Where the next step begins; `None` when there is nothing more to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<VersionId>,
}

/// A version that does not open in the place where it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedVersion {
    /// The secret under which it is stored.
    pub secret: SecretName,
    /// The number under which it is stored.
    pub version: u64,
}

/// Versions of a key that are gone for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetiredKey {
    /// The key.
    pub key: KeyReference,
    /// The oldest version that is left; `None` when none is, since it is no longer the environment's.
    pub below: Option<u64>,
}
