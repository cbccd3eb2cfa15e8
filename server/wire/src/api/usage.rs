use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{NodeName, VersionId};

/// How many versions one [`UsageReport`] names at most. What is more goes into the next one.
pub const REPORT_MAX_VERSIONS: usize = 1_000;

/// Which versions a node serves and which old ones its open files hold, as far as it differs from what
/// the node reported last. The same report twice says nothing new.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UsageReport {
    /// Whether all that was reported before is void, as in the first report of a change stream.
    #[serde(default)]
    pub whole: bool,
    /// Versions that are no longer current, and in how many open files each is. 0 when the last was
    /// closed.
    #[serde(default)]
    pub held: Vec<HeldVersion>,
    /// Versions that no open gets any more, since the kernel knows of the manifest that says so.
    #[serde(default)]
    pub gone: Vec<VersionId>,
    /// Versions that opens get from now on.
    #[serde(default)]
    pub served: Vec<VersionId>,
}

/// A version that is not current and that files are open on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldVersion {
    /// The version.
    pub version_id: VersionId,
    /// In how many open files it is.
    pub handles: u64,
}

impl UsageReport {
    /// How many versions it names.
    pub fn versions(&self) -> usize {
        self.held.len() + self.gone.len() + self.served.len()
    }
}

/// What one node has of a secret, as it reported last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretUsage {
    /// The node.
    pub node: NodeName,
    /// Whether a service that has the secret runs there.
    pub assigned: bool,
    /// Whether its change stream is up at this manager. If not, it may serve what it had.
    pub connected: bool,
    /// When it reported last, to this manager since that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub reported: Option<Timestamp>,
    /// The number of the version that an open gets there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Versions other than the current one that files are open on, by number.
    pub old: Vec<VersionInUse>,
}

/// A version that files are open on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VersionInUse {
    /// Its number, from 1.
    pub version: u64,
    /// In how many open files it is.
    pub handles: u64,
}

impl SecretUsage {
    /// Whether it is not known what the node has: it may serve any version that it ever had.
    pub fn is_unknown(&self) -> bool {
        !self.connected || self.reported.is_none()
    }

    /// Whether it is known that the node neither serves nor holds anything but the current version.
    pub fn has_only(&self, current: u64) -> bool {
        let serves_nothing_else = match self.version {
            Some(version) => version == current,
            None => !self.assigned,
        };
        !self.is_unknown() && serves_nothing_else && self.old.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_over() {
        let usage = SecretUsage {
            node: "web-1".parse().expect("a name"),
            assigned: true,
            connected: true,
            reported: Some(Timestamp::UNIX_EPOCH),
            version: Some(2),
            old: vec![],
        };
        assert!(usage.has_only(2) && !usage.has_only(3));
        let held = vec![VersionInUse { version: 1, handles: 1 }];
        assert!(!SecretUsage { old: held, ..usage.clone() }.has_only(2));
        assert!(!SecretUsage { connected: false, ..usage.clone() }.has_only(2));
        assert!(!SecretUsage { reported: None, ..usage.clone() }.has_only(2));
        assert!(!SecretUsage { version: None, ..usage.clone() }.has_only(2), "it has not shown it yet");
        assert!(SecretUsage { version: None, assigned: false, ..usage }.has_only(2));
    }
}
