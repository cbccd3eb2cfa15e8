use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SecretUsage;
use crate::{Labels, SecretName, ServiceName, TargetName};

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Secret {
    /// Its name.
    pub name: SecretName,
    /// The number of the current version, from 1.
    pub current: u64,
    /// How many versions there are.
    pub versions: u64,
    /// Its labels.
    pub labels: Labels,
    /// When it was created.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
    /// When the current version became current.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub changed: Timestamp,
}

/// A secret after a rotation or a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rotated {
    /// The secret.
    #[serde(flatten)]
    pub secret: Secret,
    /// Whether another version is current now: always after a rotation, also one to the same value, and
    /// unless that version was current already after a rollback.
    pub has_changed: bool,
}

/// A secret with its versions and where it is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretDetails {
    /// The secret.
    #[serde(flatten)]
    pub secret: Secret,
    /// Its versions, the newest first.
    pub history: Vec<SecretVersion>,
    /// The services that it is attached to.
    pub attached: Vec<AttachedTo>,
    /// Which versions the nodes have that it is for, by the node's name.
    #[serde(default)]
    pub usage: Vec<SecretUsage>,
}

/// One version of a secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretVersion {
    /// Its number, from 1.
    pub version: u64,
    /// Whether it is the current one.
    pub current: bool,
    /// When it was created.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
    /// The key and the key's version under which its data key is wrapped.
    pub key: String,
}

/// A place where a secret is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttachedTo {
    /// The service.
    pub service: ServiceName,
    /// The file name in that service.
    pub target: TargetName,
}

/// Asks to make an older version the current one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rollback {
    /// The version's number; the newest below the current one by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_flattened_has_no_name_twice() {
        let secret = Secret {
            name: "db".parse().expect("a name"),
            current: 2,
            versions: 3,
            labels: Labels::default(),
            created: Timestamp::UNIX_EPOCH,
            changed: Timestamp::UNIX_EPOCH,
        };
        let rotated = Rotated { secret: secret.clone(), has_changed: true };
        let text = serde_json::to_string(&rotated).expect("JSON");
        assert_eq!(serde_json::from_str::<Rotated>(&text).expect("what was written"), rotated);
        let details = SecretDetails { secret, history: vec![], attached: vec![], usage: vec![] };
        let text = serde_json::to_string(&details).expect("JSON");
        assert_eq!(serde_json::from_str::<SecretDetails>(&text).expect("what was written"), details);
    }
}
