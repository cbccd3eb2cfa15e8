//! What is to be repaired.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::fuse::device::Device;

/// All mounts of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) mounts: Vec<PlannedMount>,
}

/// A mount that is alive, and those it takes the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlannedMount {
    /// Where it is mounted.
    pub(crate) path: PathBuf,
    /// Devices that were ours at this path and are dead now.
    pub(crate) dead: Vec<Device>,
}
