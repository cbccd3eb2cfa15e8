//! Identifiers that the manager draws at random, so that none tells how many others there are.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

/// Why a text is not an id: an id is exactly 16 lower-case hexadecimal digits, not all zero.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} id is not 16 lower-case hexadecimal digits")]
pub struct InvalidId {
    kind: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// A random number from 1 to 2^63 - 1 (what SQL calls a positive BIGINT), written as 16
        /// hexadecimal digits because JSON readers round large numbers.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-7][0-9a-f]{15}$"))]
        pub struct $name(u64);

        impl $name {
            /// Draws a new one.
            ///
            /// # Panics
            /// When the system has no randomness left to give, which aws-lc treats as fatal too.
            #[allow(clippy::expect_used, reason = "no id can be drawn without randomness")]
            pub fn random() -> Self {
                let mut bytes = [0u8; 8];
                loop {
                    rand::fill(&mut bytes).expect("the system's random source failed");
                    if let Some(id) = Self::from_u64(u64::from_le_bytes(bytes) >> 1) {
                        return id;
                    }
                }
            }

            /// The id as a number, or `None` for 0 and for what a signed 64-bit column cannot hold.
            pub const fn from_u64(number: u64) -> Option<Self> {
                if number == 0 || number > i64::MAX as u64 { None } else { Some(Self(number)) }
            }

            /// The number behind the id: 1 to 2^63 - 1.
            pub const fn as_u64(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(given: &str) -> Result<Self, InvalidId> {
                let canonical = given.len() == 16
                    && given.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                canonical
                    .then(|| u64::from_str_radix(given, 16).ok())
                    .flatten()
                    .and_then(Self::from_u64)
                    .ok_or(InvalidId { kind: $kind })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(given: String) -> Result<Self, InvalidId> {
                given.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    )*};
}

ids! {
    /// One joined node. A node that is removed and joins again under its old name is another.
    NodeId = "node";
    /// One operator who has logged in. Whoever logs in anew, after a lost key or under the name of
    /// somebody who was removed, is another.
    OperatorId = "operator";
    /// One version of one secret, unique over all secrets and never used again: a secret that is
    /// removed and created again under its old name starts at version 1, but not with an old id.
    VersionId = "version";
    /// A session between a node and a manager, under which envelopes are sealed.
    SessionId = "session";
    /// The memory in which a node keeps what was opened until the manager has it. It lives as long as
    /// the node's mounts.
    OpenLogId = "open log";
    /// One run of a node daemon, from its start to its end: workers come and go under it. Two that are
    /// heard at the same time are two daemons with one identity.
    InstanceId = "instance";
    /// One call that changes something: the audit log has a record of its beginning and one of its end.
    CallId = "call";
    /// A chain of audit records. Each manager writes one of its own.
    ChainId = "audit chain";
}

impl VersionId {
    /// The id of content that is made from other content: the same wherever it is made, and another
    /// one when a digest over what it is made from is another.
    pub(crate) fn of_digest(digest: [u8; 8]) -> Self {
        Self((u64::from_be_bytes(digest) >> 1).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_the_wire() {
        for _ in 0..100 {
            let id = VersionId::random();
            let json = serde_json::to_string(&id).expect("an id serializes");
            assert_eq!(serde_json::from_str::<VersionId>(&json).expect("and back"), id);
        }
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        for bad in ["", "1", "0000000000000000", "8000000000000000", "00000000000000AB", "+000000000000001"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }
}
