//! AES-256-GCM as everything at rest uses it: nonce (12 bytes) ‖ ciphertext ‖ tag (16).
//!
//! The nonce is random. A data key seals one value; an environment's key wraps far fewer than the
//! 2^32 data keys up to which random nonces are safe (NIST SP 800-38D).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Cleartext, KeyError};

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// A 256-bit key.
pub(crate) struct Key(Zeroizing<[u8; KEY_BYTES]>);

/// What sealed bytes are bound to: associated data in which each field is preceded by its length,
/// so that no two contexts share their bytes.
pub(crate) struct Context(Vec<u8>);

impl Context {
    pub(crate) fn new<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut bytes = Vec::new();
        for field in fields {
            bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Key {
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(bytes.as_mut()).map_err(|_| KeyError::Crypto)?;
        Ok(Self(bytes))
    }

    /// `None` when it does not have 32 bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(key))
    }

    pub(crate) fn expose_secret(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// Seals bytes for one context.
    pub(crate) fn seal(&self, context: &Context, cleartext: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| KeyError::Crypto)?;
        // Encrypted in place inside a buffer of the final size: no cleartext copy is left behind.
        let mut sealed = Vec::with_capacity(NONCE_LEN + cleartext.len() + TAG_BYTES);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(cleartext);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(&context.0);
        match self.cipher()?.seal_in_place_separate_tag(nonce, aad, &mut sealed[NONCE_LEN..]) {
            Ok(tag) => sealed.extend_from_slice(tag.as_ref()),
            Err(_) => {
                sealed.zeroize();
                return Err(KeyError::Crypto);
            }
        }
        Ok(sealed)
    }

    /// Opens what was sealed under this key for exactly this context.
    pub(crate) fn open(&self, context: &Context, sealed: &[u8]) -> Result<Cleartext, KeyError> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(KeyError::Refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Refused)?;
        let length = body.len().checked_sub(TAG_BYTES).ok_or(KeyError::Refused)?;
        let (ciphertext, tag) = body.split_at(length);
        let mut cleartext = Zeroizing::new(vec![0; length]);
        self.cipher()?
            .open_separate_gather(nonce, Aad::from(&context.0), ciphertext, tag, &mut cleartext)
            .map_err(|_| KeyError::Refused)?;
        Ok(cleartext)
    }

    fn cipher(&self) -> Result<LessSafeKey, KeyError> {
        UnboundKey::new(&AES_256_GCM, self.0.as_ref()).map(LessSafeKey::new).map_err(|_| KeyError::Crypto)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_under_its_key_and_context_only() {
        let (key, context) = (Key::generate().expect("key"), Context::new([&b"here"[..]]));
        let sealed = key.seal(&context, b"canary").expect("sealed");
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_eq!(key.open(&context, &sealed).expect("opened").as_slice(), b"canary");

        let there = Context::new([&b"there"[..]]);
        assert!(matches!(key.open(&there, &sealed), Err(KeyError::Refused)));
        let other = Key::generate().expect("key");
        assert!(matches!(other.open(&context, &sealed), Err(KeyError::Refused)));
        for cut in 0..sealed.len() {
            assert!(key.open(&context, &sealed[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn contexts_keep_their_boundaries() {
        assert_ne!(Context::new([&b"ab"[..], b"c"]).0, Context::new([&b"a"[..], b"bc"]).0);
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", Key::generate().expect("key")), "Key(REDACTED)");
    }
}
