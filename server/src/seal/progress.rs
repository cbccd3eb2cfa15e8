use std::fmt;

use serde::{Deserialize, Serialize};

/// What a sealed manager answers to an unlock key or a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockProgress {
    /// How many shares of the set it has by now.
    pub shares_given: u8,
    /// How many it needs; 1 where the key is not split.
    pub threshold: u8,
    /// Whether the manager serves.
    pub is_unlocked: bool,
    /// Why it did not take what it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// How long it takes no further ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

/// Why an unlock key or a share was not taken. Says nothing about its bytes, nor about which share of
/// a set is the wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It is neither, or has a typo.
    Unreadable,
    /// A share of another set, such as that from before a rekey.
    OtherSet,
    /// A share that was given before.
    GivenAlready,
    /// A key of another manager, or from before a rekey.
    WrongKey,
    /// At least one of the shares is wrong; all are forgotten.
    WrongShares,
    /// There were too many wrong ones just now.
    TooMany,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => {
                "neither an unlock key (sfu1., 53 characters) nor a share of one (sfs1., 61 characters), or \
                 one with a typo"
            }
            Self::OtherSet => "this share is not one of those that unlock this manager now",
            Self::GivenAlready => "this share was given already",
            Self::WrongKey => "this key does not unlock this manager",
            Self::WrongShares => {
                "at least one of the shares is wrong; all that were given are forgotten, begin again"
            }
            Self::TooMany => "too many wrong keys",
        })
    }
}
