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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_nothing_else_is() {
        let text = r#"{"mounts":[{"path":"/run/secrets","dead":["0:45","0:46"]}]}"#;
        let plan: Plan = serde_json::from_str(text).expect("a plan");
        assert_eq!(serde_json::to_string(&plan).expect("its text"), text);
        for wrong in [r#"{"mounts":[],"more":1}"#, r#"{"mounts":[{"path":"/","dead":["45"]}]}"#, "{}"] {
            assert!(serde_json::from_str::<Plan>(wrong).is_err(), "{wrong}");
        }
    }
}
