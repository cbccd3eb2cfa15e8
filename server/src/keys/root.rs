//! The root key: it wraps the environments' keys and the CA's, and it is all that has to be kept
//! apart from a backup to make that backup useless to a thief.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::{Cleartext, Context, Key, KeyError};

const PREFIX: &str = "sfr1.";
const KEY_BYTES: usize = 32;
/// One chance in four billion that a typo goes unnoticed here; the keys' tags notice the rest.
const CHECKSUM_BYTES: usize = 4;

/// The manager's own key.
pub(crate) struct RootKey(Key);

/// Why a text is not a root key. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a recovery key, or one with a typo: it begins with sfr1. and has 53 characters")]
pub(crate) struct InvalidRootKey;

impl RootKey {
    pub(crate) fn generate() -> Result<Self, KeyError> {
        Key::generate().map(Self)
    }

    /// The text that `root.key` holds and that is the recovery key: `sfr1.`, then the key and the
    /// first four bytes of its SHA-256, in base64 for URLs.
    pub(crate) fn expose_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES + CHECKSUM_BYTES));
        bytes.extend_from_slice(self.0.expose_secret());
        bytes.extend_from_slice(&checksum(self.0.expose_secret()));
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
        Zeroizing::new([PREFIX, encoded.as_str()].concat())
    }

    pub(crate) fn from_text(text: &str) -> Result<Self, InvalidRootKey> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(InvalidRootKey)?;
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InvalidRootKey)?);
        let (key, sum) = bytes.split_at_checked(KEY_BYTES).ok_or(InvalidRootKey)?;
        if sum != checksum(key) {
            return Err(InvalidRootKey);
        }
        Key::from_bytes(key).map(Self).ok_or(InvalidRootKey)
    }

    /// Seals bytes under a label that says what they are.
    pub(crate) fn seal(&self, label: &str, name: &str, cleartext: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0.seal(&Context::new([label.as_bytes(), name.as_bytes()]), cleartext)
    }

    /// Opens what was sealed under this label and name.
    pub(crate) fn open(&self, label: &str, name: &str, sealed: &[u8]) -> Result<Cleartext, KeyError> {
        self.0.open(&Context::new([label.as_bytes(), name.as_bytes()]), sealed)
    }
}

fn checksum(key: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest::digest(&digest::SHA256, key).as_ref()[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_brings_the_key_back() {
        let key = RootKey::generate().expect("key");
        let text = key.expose_text();
        assert_eq!(text.len(), 53, "as its error message says");
        let again = RootKey::from_text(&format!("{}\n", text.as_str())).expect("the key");
        let sealed = key.seal("label", "name", b"bytes").expect("sealed");
        assert_eq!(again.open("label", "name", &sealed).expect("opened").as_slice(), b"bytes");
        assert!(again.open("label", "other", &sealed).is_err());
    }

    #[test]
    fn each_typo_is_found_and_not_repeated() {
        let text = RootKey::generate().expect("key").expose_text();
        for position in 0..text.len() {
            let mut typo = text.as_bytes().to_vec();
            typo[position] = if typo[position] == b'A' { b'B' } else { b'A' };
            let typo = String::from_utf8(typo).expect("text");
            let error = RootKey::from_text(&typo).err().expect("refused");
            assert!(!error.to_string().contains(&typo));
        }
        assert!(RootKey::from_text("").is_err());
        assert!(RootKey::from_text(&text[..text.len() - 1]).is_err());
    }
}
