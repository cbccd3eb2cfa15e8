//! What the keys that wrap data keys are called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::KeyName;

/// Where an environment's key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum KeyBackendKind {
    /// With the manager, in files that its root key wraps.
    Local,
    /// In the Transit engine of HashiCorp Vault or OpenBao.
    Vault,
    /// In an HSM that is reached through PKCS #11.
    Pkcs11,
}

/// A text that names no key backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key backend {0:?} is not one of local, vault, pkcs11")]
pub struct InvalidKeyBackend(String);

impl KeyBackendKind {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Local, Self::Vault, Self::Pkcs11];

    /// As it is written in commands, in JSON and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Vault => "vault",
            Self::Pkcs11 => "pkcs11",
        }
    }
}

impl fmt::Display for KeyBackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for KeyBackendKind {
    type Err = InvalidKeyBackend;

    fn from_str(given: &str) -> Result<Self, InvalidKeyBackend> {
        let kind = Self::ALL.into_iter().find(|kind| kind.as_str() == given);
        kind.ok_or_else(|| InvalidKeyBackend(given.chars().take(32).collect()))
    }
}

/// One key, wherever it is kept. Written as `vault/prod`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyReference {
    /// Where it is kept.
    pub backend: KeyBackendKind,
    /// Its name there.
    pub name: KeyName,
}

impl fmt::Display for KeyReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_written_everywhere_as_it_is_read() {
        for kind in KeyBackendKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).expect("JSON"), format!("{:?}", kind.as_str()));
        }
        let error = "hsm".parse::<KeyBackendKind>().expect_err("none");
        assert!(error.to_string().contains("local, vault, pkcs11"));
    }
}
