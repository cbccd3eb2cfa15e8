use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// When an open of a file has to be on record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AuditMode {
    /// Soon after: the node keeps the record until the manager has it, and an outage delays no open.
    #[default]
    Buffered,
    /// Before it succeeds: without the manager nothing is opened.
    Required,
}

/// A text that is not an audit mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an audit mode is buffered or required")]
pub struct InvalidAuditMode;

impl AuditMode {
    /// What it is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::Required => "required",
        }
    }

    /// Whether it is what a message means that says nothing of it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for AuditMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for AuditMode {
    type Err = InvalidAuditMode;

    fn from_str(given: &str) -> Result<Self, InvalidAuditMode> {
        [Self::Buffered, Self::Required]
            .into_iter()
            .find(|mode| mode.as_str() == given)
            .ok_or(InvalidAuditMode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_written_in_one_way() {
        for mode in [AuditMode::Buffered, AuditMode::Required] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            assert_eq!(serde_json::to_value(mode).expect("JSON"), mode.as_str());
        }
        assert_eq!("Required".parse::<AuditMode>(), Err(InvalidAuditMode));
        assert!(AuditMode::Required > AuditMode::Buffered, "the stricter one is the greater");
    }
}
