//! What an operator chooses when a manager is sealed, and what is given to him for it.

use std::fmt;

use secretfs_wire::KeyReference;
use zeroize::Zeroizing;

/// As many shares as people can still count.
const MOST_SHARES: u8 = 16;

/// How the root key is sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealPlan {
    /// Into how many shares the operators' unlock key is split; `None` for one key.
    pub split: Option<Split>,
    /// What opens the seal without an operator, beside the operators' slot. For `rekey`, `None` leaves
    /// it as it is.
    pub auto: Option<Vec<AutoUnlock>>,
}

/// How many shares there are, and how many of them are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    shares: u8,
    threshold: u8,
}

/// A split that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are 2 to {MOST_SHARES} shares, and 2 to all of them are needed")]
pub struct InvalidSplit;

/// What opens the seal when the manager starts, so that nobody has to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AutoUnlock {
    /// An unlock key in a file that only the manager's user reads.
    KeyFile,
    /// An unlock key that systemd hands to the service.
    SystemdCredential,
    /// A key in a key backend outside this process, which wraps the root key.
    Backend(KeyReference),
}

/// What unlocks a manager, shown once.
pub struct UnlockMeans {
    /// The operators' unlock key; `None` when it is split.
    pub key: Option<Zeroizing<String>>,
    /// Its shares, when it is split.
    pub shares: Vec<Zeroizing<String>>,
    /// How many of them are needed.
    pub threshold: u8,
    /// The unlock key for systemd's credential, where that was chosen.
    pub credential: Option<Zeroizing<String>>,
}

impl Split {
    /// # Errors
    /// Unless 2 <= threshold <= shares <= 16.
    pub fn new(shares: u8, threshold: u8) -> Result<Self, InvalidSplit> {
        let fits = (2..=MOST_SHARES).contains(&shares) && (2..=shares).contains(&threshold);
        fits.then_some(Self { shares, threshold }).ok_or(InvalidSplit)
    }

    /// How many shares there are.
    pub fn shares(self) -> u8 {
        self.shares
    }

    /// How many of them are needed.
    pub fn threshold(self) -> u8 {
        self.threshold
    }
}

impl fmt::Debug for UnlockMeans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnlockMeans").field("threshold", &self.threshold).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_two_to_sixteen_shares_of_which_at_least_two_are_needed() {
        for (shares, threshold) in [(2, 2), (3, 2), (5, 3), (16, 16)] {
            assert!(Split::new(shares, threshold).is_ok(), "{threshold} of {shares}");
        }
        for (shares, threshold) in [(0, 0), (1, 1), (5, 1), (5, 0), (3, 4), (17, 2)] {
            assert!(Split::new(shares, threshold).is_err(), "{threshold} of {shares}");
        }
    }
}
