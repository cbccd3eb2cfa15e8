//! The root key: it wraps the environments' keys and the CA's. It is random, stays the same, and is kept
//! only sealed (`seal`).

use super::{Cleartext, Context, Key, KeyError};

/// The manager's own key.
#[derive(Debug)]
pub(crate) struct RootKey(Key);

impl RootKey {
    pub(crate) fn generate() -> Result<Self, KeyError> {
        Key::generate().map(Self)
    }

    /// What was unwrapped.
    pub(crate) fn from_key(key: Key) -> Self {
        Self(key)
    }

    /// To be wrapped.
    pub(crate) fn as_key(&self) -> &Key {
        &self.0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_under_its_name_only() {
        let key = RootKey::generate().expect("key");
        let sealed = key.seal("label", "name", b"bytes").expect("sealed");
        assert_eq!(key.open("label", "name", &sealed).expect("opened").as_slice(), b"bytes");
        assert!(key.open("label", "other", &sealed).is_err());
        assert!(key.open("other", "name", &sealed).is_err());
        assert!(!format!("{key:?}").contains(&format!("{:?}", key.as_key().expose_secret())));
    }
}
