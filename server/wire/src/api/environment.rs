use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{EnvironmentName, KeyBackendKind, KeyName, KeyReference};

/// The scope of everything, with its own encryption key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// The key under which new data keys are wrapped.
    pub key: KeyReference,
    /// When it was created.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
}

/// Asks for a new environment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateEnvironment {
    /// Its name.
    pub name: EnvironmentName,
    /// Its key's name; the environment's own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<KeyName>,
    /// Where the key is kept; with the manager by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_backend: Option<KeyBackendKind>,
}
