//! Who owns a target on a node and who may read it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The permission bits of a target: octal 0000 to 0777, written as four octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^0?[0-7]{3}$"))]
pub struct Mode(u16);

/// A text that is not a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a mode is three octal digits with an optional leading 0, such as 0400")]
pub struct InvalidMode;

impl Mode {
    /// The permission bits, or `None` beyond 0777: a secret is never set-user-id, set-group-id or
    /// sticky.
    pub const fn from_bits(bits: u16) -> Option<Self> {
        if bits > 0o777 { None } else { Some(Self(bits)) }
    }

    /// The permission bits, 0 to 0o777.
    pub const fn bits(self) -> u16 {
        self.0
    }
}

impl Default for Mode {
    /// 0444, as Docker's and Rancher's secrets have it.
    fn default() -> Self {
        Self(0o444)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for Mode {
    type Err = InvalidMode;
    fn from_str(given: &str) -> Result<Self, InvalidMode> {
        let digits = if given.len() == 4 { given.strip_prefix('0').ok_or(InvalidMode)? } else { given };
        if digits.len() != 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(InvalidMode);
        }
        u16::from_str_radix(digits, 8).ok().and_then(Self::from_bits).ok_or(InvalidMode)
    }
}

impl TryFrom<String> for Mode {
    type Error = InvalidMode;
    fn try_from(given: String) -> Result<Self, InvalidMode> {
        given.parse()
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> String {
        mode.to_string()
    }
}

/// Owner, group and permission bits of a target: by default 0, 0 and 0444.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ownership {
    /// The owner's user id on the node.
    #[serde(default)]
    pub uid: u32,
    /// The owner's group id on the node.
    #[serde(default)]
    pub gid: u32,
    /// The permission bits.
    #[serde(default)]
    pub mode: Mode,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_in_octal_out() {
        for (given, shown) in [("0400", "0400"), ("444", "0444"), ("0777", "0777"), ("000", "0000")] {
            assert_eq!(given.parse::<Mode>().expect(given).to_string(), shown);
        }
        for bad in ["", "4", "0888", "1777", "04444", "+44", "rwx", "-12"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad}");
        }
    }
}
