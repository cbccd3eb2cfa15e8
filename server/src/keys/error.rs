use secretfs_wire::{InvalidSecretSize, KeyBackendKind};

use crate::error::Cause;

/// What can go wrong with keys. Never holds a byte of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("there is no key {0}")]
    Missing(String),
    #[error("there is a key {0} already")]
    Exists(String),
    #[error("what is stored was not sealed under this key for this place")]
    Refused,
    #[error("the cryptographic library failed")]
    Crypto,
    #[error("what is stored is no secret")]
    Size(#[source] InvalidSecretSize),
    #[error("cannot use the file of key {name}")]
    File {
        name: String,
        #[source]
        source: std::io::Error,
    },
    #[error("this manager has no key backend {0}")]
    NotConfigured(KeyBackendKind),
    #[error("key backend {backend}: {fault}")]
    Backend { backend: KeyBackendKind, fault: BackendFault },
}

/// Why a key backend outside this process did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendFault {
    /// It does not answer, is sealed, or has too much to do. Another attempt may succeed.
    #[error("{0}")]
    Unavailable(String, #[source] Option<Cause>),
    /// It does not let the manager do this; the text says what to do about it.
    #[error("{0}")]
    NotAllowed(String),
    /// It answers what it should not.
    #[error("{0}")]
    Malformed(String),
}

impl KeyError {
    /// Whether the same may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Backend { fault: BackendFault::Unavailable(..), .. })
    }
}
