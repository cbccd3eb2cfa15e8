//! What operators are for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::EnvironmentName;

/// A word that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role: there are viewer, editor, granter, node-admin, auditor and admin")]
pub struct UnknownRole(String);

/// What an operator is for. What a role may do is written in policies; they ship with the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Sees names, versions and states.
    Viewer,
    /// Creates, rotates, rolls back and removes secrets.
    Editor,
    /// Decides which service sees which secret, and where it runs.
    Granter,
    /// Lets hosts join and shuts them out.
    NodeAdmin,
    /// Reads the audit log.
    Auditor,
    /// Everything, keys and operators too.
    Admin,
}

impl Role {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Viewer, Self::Editor, Self::Granter, Self::NodeAdmin, Self::Auditor, Self::Admin];

    /// The role's word, such as `node-admin`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Granter => "granter",
            Self::NodeAdmin => "node-admin",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(word: &str) -> Result<Self, UnknownRole> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == word);
        found.ok_or_else(|| UnknownRole(word.to_owned()))
    }
}

/// A role that an operator has: in one environment, or in all there are and will be and in what belongs
/// to none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// The environment; everywhere if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).expect("JSON"), format!("\"{role}\""));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
