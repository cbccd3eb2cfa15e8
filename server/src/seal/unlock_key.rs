use std::fmt;

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use super::text;
use crate::keys::{Key, KeyError};

const PREFIX: &str = "sfu1.";
/// Of recovery keys, which the first managers printed: they are unlock keys now.
const RECOVERY_PREFIX: &str = "sfr1.";
const KEY_BYTES: usize = 32;
const INFO: &[u8] = b"secretfs unlock key v1";

/// A random key that opens one slot of `root.sealed`.
pub(crate) struct UnlockKey(Key);

impl UnlockKey {
    pub(super) fn generate() -> Result<Self, KeyError> {
        Key::generate().map(Self)
    }

    /// `None` when it does not have 32 bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Key::from_bytes(bytes).map(Self)
    }

    /// `None` when it is something else, or has a typo.
    pub(super) fn from_text(given: &str) -> Option<Self> {
        let bytes = text::read(PREFIX, given).or_else(|| text::read(RECOVERY_PREFIX, given))?;
        Self::from_bytes(&bytes)
    }

    pub(super) fn expose_secret(&self) -> &[u8] {
        self.0.expose_secret()
    }

    pub(super) fn expose_text(&self) -> Zeroizing<String> {
        text::write(PREFIX, self.expose_secret())
    }

    /// The key that wraps the root key in a slot of this salt.
    pub(super) fn wrapping_key(&self, salt: &[u8]) -> Result<Key, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(self.expose_secret())
            .expand(&[INFO], hkdf::HKDF_SHA256)
            .and_then(|expanded| expanded.fill(bytes.as_mut()))
            .map_err(|_| KeyError::Crypto)?;
        Key::from_bytes(bytes.as_ref()).ok_or(KeyError::Crypto)
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_brings_the_key_back_and_each_typo_is_found() {
        let key = UnlockKey::generate().expect("key");
        let text = key.expose_text();
        assert_eq!(text.len(), 53);
        let again = UnlockKey::from_text(&format!(" {}\n", text.as_str())).expect("the key");
        assert_eq!(again.expose_secret(), key.expose_secret());
        for typo in text::typos(&text) {
            assert!(UnlockKey::from_text(&typo).is_none());
        }
        assert!(UnlockKey::from_text("").is_none());
        assert!(UnlockKey::from_text(&text[..text.len() - 1]).is_none());
    }

    #[test]
    fn what_was_printed_as_a_recovery_key_is_an_unlock_key() {
        let recovery_key = "sfr1.BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwdLsG-O";
        let key = UnlockKey::from_text(recovery_key).expect("the key");
        assert_eq!(key.expose_secret(), [7; KEY_BYTES]);
    }

    #[test]
    fn each_salt_makes_another_wrapping_key() {
        let key = UnlockKey::generate().expect("key");
        let wrapping = |salt: &[u8]| key.wrapping_key(salt).expect("a key").expose_secret().to_vec();
        assert_eq!(wrapping(b"one"), wrapping(b"one"));
        assert_ne!(wrapping(b"one"), wrapping(b"two"));
        assert_ne!(wrapping(b"one"), key.expose_secret());
    }
}
