//! The one type that holds cleartext.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// The largest secret, in bytes: 1 MiB.
pub const SECRET_MAX_BYTES: usize = 1 << 20;

/// The value of a secret: 1 byte to 1 MiB, binary safe.
///
/// It cannot be copied, printed or serialized; its memory is wiped when it is dropped, and the only
/// way to its bytes is [`expose_secret`](Self::expose_secret), so that every use can be found.
pub struct SecretBytes(Zeroizing<Box<[u8]>>);

/// A value that is empty or larger than 1 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecretSize {
    /// A secret has at least one byte.
    #[error("a secret must not be empty")]
    Empty,
    /// A secret has at most [`SECRET_MAX_BYTES`].
    #[error("a secret may have at most 1048576 bytes (1 MiB)")]
    TooLarge,
}

impl SecretBytes {
    /// Takes `bytes` over; whatever happens, the given buffer is wiped.
    ///
    /// # Errors
    /// When there are no bytes, or more than [`SECRET_MAX_BYTES`].
    pub fn new(mut bytes: Vec<u8>) -> Result<Self, InvalidSecretSize> {
        let size = match bytes.len() {
            0 => Err(InvalidSecretSize::Empty),
            length if length > SECRET_MAX_BYTES => Err(InvalidSecretSize::TooLarge),
            _ => Ok(()),
        };
        if let Err(error) = size {
            bytes.zeroize();
            return Err(error);
        }
        if bytes.capacity() == bytes.len() {
            return Ok(Self(Zeroizing::new(bytes.into_boxed_slice())));
        }
        // Shrinking would leave a copy behind in memory that nobody wipes.
        let exact = Box::from(bytes.as_slice());
        bytes.zeroize();
        Ok(Self(Zeroizing::new(exact)))
    }

    /// The cleartext.
    pub fn expose_secret(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes it has: 1 to [`SECRET_MAX_BYTES`].
    #[allow(clippy::len_without_is_empty, reason = "a secret is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_to_one_mebibyte() {
        assert_eq!(SecretBytes::new(vec![]).expect_err("empty"), InvalidSecretSize::Empty);
        assert_eq!(SecretBytes::new(vec![7]).expect("one byte").len(), 1);
        assert_eq!(SecretBytes::new(vec![7; SECRET_MAX_BYTES]).expect("1 MiB").len(), 1 << 20);
        assert_eq!(
            SecretBytes::new(vec![7; SECRET_MAX_BYTES + 1]).expect_err("more"),
            InvalidSecretSize::TooLarge
        );
    }

    #[test]
    fn debug_shows_nothing() {
        let secret = SecretBytes::new(b"canary".to_vec()).expect("a secret");
        assert_eq!(format!("{secret:?} {secret:#?}"), "SecretBytes(REDACTED) SecretBytes(REDACTED)");
    }

    #[test]
    fn spare_capacity_is_given_up() {
        let mut bytes = Vec::with_capacity(100);
        bytes.extend_from_slice(b"\0binary\xff");
        assert_eq!(SecretBytes::new(bytes).expect("a secret").expose_secret(), b"\0binary\xff");
    }
}
