//! An unlock key in parts, by Shamir's scheme: any `threshold` of them make it, fewer say nothing
//! about it.

use std::fmt;

use blahaj::Sharks;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::plan::Split;
use super::text;
use super::unlock_key::UnlockKey;
use crate::keys::KeyError;

const PREFIX: &str = "sfs1.";
const SET_BYTES: usize = 4;
/// Set, threshold, number, and a point for each byte of the key.
const SHARE_BYTES: usize = SET_BYTES + 2 + 32;

/// Shares that were made together, and how many of them are needed. Known to whoever reads
/// `root.sealed` or a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShareSet {
    id: u32,
    /// How many make the key.
    pub(super) threshold: u8,
    /// How many there are.
    pub(super) shares: u8,
}

/// One part of an unlock key.
pub(super) struct Share {
    set: u32,
    threshold: u8,
    /// Its number within the set, from 1, and a point for each byte of the key.
    point: Zeroizing<Vec<u8>>,
}

impl ShareSet {
    /// Whether a share says that it is one of these.
    pub(super) fn has(&self, share: &Share) -> bool {
        share.set == self.id && share.threshold == self.threshold && share.number() <= self.shares
    }
}

impl Share {
    /// `None` when it is something else, or has a typo.
    pub(super) fn from_text(given: &str) -> Option<Self> {
        let bytes = text::read(PREFIX, given)?;
        let (set, rest) = bytes.split_first_chunk::<SET_BYTES>()?;
        let (threshold, point) = rest.split_first()?;
        if bytes.len() != SHARE_BYTES || point[0] == 0 {
            return None;
        }
        let point = Zeroizing::new(point.to_vec());
        Some(Self { set: u32::from_be_bytes(*set), threshold: *threshold, point })
    }

    pub(super) fn expose_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SHARE_BYTES));
        bytes.extend_from_slice(&self.set.to_be_bytes());
        bytes.push(self.threshold);
        bytes.extend_from_slice(&self.point);
        text::write(PREFIX, &bytes)
    }

    /// Its number within its set, from 1.
    pub(super) fn number(&self) -> u8 {
        self.point[0]
    }

    /// Whether two shares of one number are the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.point, &other.point).is_ok()
    }
}

/// Splits a key into a new set.
pub(super) fn split(key: &UnlockKey, how: Split) -> Result<(ShareSet, Vec<Share>), KeyError> {
    let mut id = [0; SET_BYTES];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| KeyError::Crypto)?;
    let set = ShareSet { id: u32::from_be_bytes(id), threshold: how.threshold(), shares: how.shares() };
    let dealt = Sharks(set.threshold).dealer(key.expose_secret()).take(usize::from(set.shares));
    let shares = dealt
        .map(|share| Share {
            set: set.id,
            threshold: set.threshold,
            point: Zeroizing::new(Vec::from(&share)),
        })
        .collect();
    Ok((set, shares))
}

/// The key that shares of one set make, or would if all of them were right. `None` when there are too
/// few.
pub(super) fn combine(set: &ShareSet, shares: &[Share]) -> Option<UnlockKey> {
    let points: Vec<_> = shares
        .iter()
        .map(|share| blahaj::Share::try_from(share.point.as_slice()).ok())
        .collect::<Option<_>>()?;
    let bytes = Zeroizing::new(Sharks(set.threshold).recover(&points).ok()?);
    UnlockKey::from_bytes(&bytes)
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_of_five() -> (UnlockKey, ShareSet, Vec<Share>) {
        let key = UnlockKey::generate().expect("key");
        let (set, shares) = split(&key, Split::new(5, 3).expect("a split")).expect("shares");
        (key, set, shares)
    }

    #[test]
    fn any_three_of_five_make_the_key_and_two_do_not() {
        let (key, set, shares) = three_of_five();
        let texts: Vec<_> = shares.iter().map(Share::expose_text).collect();
        let read = |index: usize| Share::from_text(&texts[index]).expect("a share");
        for first in 0..5 {
            for second in first + 1..5 {
                assert!(combine(&set, &[read(first), read(second)]).is_none());
                for third in second + 1..5 {
                    let made = combine(&set, &[read(third), read(first), read(second)]).expect("a key");
                    assert_eq!(made.expose_secret(), key.expose_secret());
                }
            }
        }
        let all: Vec<_> = (0..5).map(read).collect();
        assert_eq!(combine(&set, &all).expect("a key").expose_secret(), key.expose_secret());
        assert!(all.iter().all(|share| set.has(share)));
    }

    #[test]
    fn the_first_threshold_is_not_lowered_by_a_share_that_is_given_twice() {
        let (_, set, shares) = three_of_five();
        let text = shares[0].expose_text();
        let same = || Share::from_text(&text).expect("a share");
        assert!(combine(&set, &[same(), same(), same()]).is_none());
    }

    #[test]
    fn shares_of_another_set_are_known_as_such() {
        let ((_, set, _), (_, _, others)) = (three_of_five(), three_of_five());
        assert!(others.iter().all(|share| !set.has(share)));
    }

    #[test]
    fn each_typo_is_found() {
        let (_, _, shares) = three_of_five();
        let text = shares[0].expose_text();
        for typo in text::typos(&text) {
            assert!(Share::from_text(&typo).is_none());
        }
        assert!(Share::from_text(&UnlockKey::generate().expect("key").expose_text()).is_none());
    }

    #[test]
    fn a_share_is_never_printed() {
        assert_eq!(format!("{:?}", three_of_five().2[0]), "Share(REDACTED)");
    }
}
