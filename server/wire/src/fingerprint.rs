//! The fingerprint of a node's key, by which people tell nodes apart.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

const PREFIX: &str = "SHA256:";

/// SHA-256 over a public key as SubjectPublicKeyInfo DER, written as `SHA256:` and base64 without
/// padding: 50 characters, in the form that people know from OpenSSH.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyFingerprint([u8; 32]);

/// Why a text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint: it has the form SHA256: and 43 characters; copy it whole")]
pub struct InvalidFingerprint;

impl KeyFingerprint {
    /// The fingerprint of a public key, SubjectPublicKeyInfo DER.
    pub fn of_der(der: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Self(out)
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyFingerprint {
    type Err = InvalidFingerprint;
    fn from_str(given: &str) -> Result<Self, InvalidFingerprint> {
        let digits = given.trim().strip_prefix(PREFIX).ok_or(InvalidFingerprint)?;
        let bytes = STANDARD_NO_PAD.decode(digits).map_err(|_| InvalidFingerprint)?;
        bytes.try_into().map(Self).map_err(|_| InvalidFingerprint)
    }
}

impl TryFrom<String> for KeyFingerprint {
    type Error = InvalidFingerprint;
    fn try_from(given: String) -> Result<Self, InvalidFingerprint> {
        given.parse()
    }
}

impl From<KeyFingerprint> for String {
    fn from(fingerprint: KeyFingerprint) -> Self {
        fingerprint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_openssh_writes_its_own() {
        // printf abc | openssl dgst -sha256 -binary | base64
        let fingerprint = KeyFingerprint::of_der(b"abc");
        let text = "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0";
        assert_eq!(fingerprint.to_string(), text);
        assert_eq!(format!(" {text}\n").parse(), Ok(fingerprint));
        assert_ne!(KeyFingerprint::of_der(b"abd"), fingerprint);
    }

    #[test]
    fn what_is_cut_or_of_another_kind_is_refused() {
        let text = KeyFingerprint::of_der(b"abc").to_string();
        let cut = &text[..text.len() - 1];
        for bad in ["", "SHA256:", cut, &text[7..], &text.replace("SHA256", "MD5"), &format!("{text}=")] {
            assert_eq!(bad.parse::<KeyFingerprint>(), Err(InvalidFingerprint), "{bad}");
        }
    }
}
