//! Keys at rest. Every secret version has a data key of its own; the data key is wrapped by the
//! environment's key, which never leaves its [`KeyBackend`].

mod aead;
mod local;
mod root;
mod version;

use async_trait::async_trait;
use secretfs_wire::{InvalidSecretSize, KeyName};
use zeroize::Zeroizing;

pub(crate) use aead::{Context, Key};
pub(crate) use local::LocalKeys;
pub(crate) use root::RootKey;
pub(crate) use version::{SealedVersion, VersionContext, open, seal};

/// Holds the environments' keys.
#[async_trait]
pub(crate) trait KeyBackend: Send + Sync {
    /// Makes a key of this name, unless there is one already.
    async fn ensure(&self, name: &KeyName) -> Result<(), KeyError>;

    /// Wraps a data key, bound to its context, under the key's newest version.
    async fn wrap(&self, name: &KeyName, context: &Context, data_key: &Key) -> Result<Wrapped, KeyError>;

    /// Unwraps a data key that was wrapped under this version of the key and this context.
    async fn unwrap(
        &self,
        name: &KeyName,
        version: u64,
        context: &Context,
        wrapped: &[u8],
    ) -> Result<Key, KeyError>;

    /// Whether the backend can serve.
    async fn health(&self) -> Result<(), KeyError>;
}

/// A wrapped data key.
pub(crate) struct Wrapped {
    /// The version of the wrapping key, from 1.
    pub(crate) key_version: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What can go wrong with keys. Never holds a byte of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("there is no key {0}")]
    Missing(String),
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
}

/// Cleartext that is wiped when it is dropped.
type Cleartext = Zeroizing<Vec<u8>>;
