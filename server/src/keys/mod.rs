//! Keys at rest. Every secret version has a data key of its own; the data key is wrapped by a key of
//! its environment, which never leaves its [`KeyBackend`]. The [`Keyring`] knows the backends, and
//! each [`WrappedKey`] says which of them unwraps it.

mod aead;
mod backend;
#[cfg(test)]
mod conformance;
mod data_keys;
mod error;
mod keyring;
mod local;
mod pkcs11;
mod remote;
mod root;
mod vault;
mod version;

use zeroize::Zeroizing;

pub(crate) use aead::{Context, Key};
pub(crate) use backend::{KeyBackend, KeyDescription, VersionDescription, Wrapped};
pub(crate) use error::{BackendFault, KeyError};
pub(crate) use keyring::Keyring;
pub(crate) use local::LocalKeys;
pub(crate) use pkcs11::Pkcs11Keys;
pub(crate) use remote::{RemoteKeys, remote_keys};
pub(crate) use root::RootKey;
pub(crate) use vault::VaultKeys;
pub(crate) use version::{SealedVersion, VersionContext, WrappedKey, open, seal};

/// Cleartext that is wiped when it is dropped.
type Cleartext = Zeroizing<Vec<u8>>;
