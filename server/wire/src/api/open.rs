use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::audit::{EventId, Process};
use crate::{OpenLogId, SecretName, ServiceName, TargetName, VersionId};

/// How many opens one [`OpenReport`] tells at most. What is more goes into the next one.
pub const REPORT_MAX_OPENS: usize = 200;

/// What programs opened at a node. Told until the manager has it, so it may come twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenReport {
    /// Each open.
    #[serde(default)]
    pub opens: Vec<Open>,
    /// Those that there was no room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostOpens>,
    /// Whether they have to survive a power cut before the manager answers, as readers wait for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
}

/// A file that a program opened, or could not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Open {
    /// Known by.
    pub id: EventId,
    /// When, by the node's clock.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// The service.
    pub service: ServiceName,
    /// The file.
    pub target: TargetName,
    /// The version that it was opened on; of a template what it was made from decides this.
    pub version_id: VersionId,
    /// What that shows: one version of one secret, or what a template was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<OpenedVersion>,
    /// How many more a template was made from, for which there was no room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unnamed: u64,
    /// Who opened it.
    pub process: Process,
    /// Why it was not opened, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A version that a file shows, as the node's manifest had it when it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenedVersion {
    /// By which the manager knows it, as long as there is the secret.
    pub id: VersionId,
    /// The secret.
    pub secret: SecretName,
    /// The number.
    pub version: u64,
}

/// Opens that were not kept, since there was no room for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LostOpens {
    /// The memory that had no room.
    pub log: OpenLogId,
    /// How many since the node's mounts were made, those included that were told before: the manager
    /// records by how much it rises.
    pub total: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
