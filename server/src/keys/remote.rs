use std::collections::BTreeMap;
use std::sync::Arc;

use secretfs_wire::KeyBackendKind;

use super::{KeyBackend, Pkcs11Keys, VaultKeys};
use crate::config::Config;
use crate::error::Cause;

/// The key backends outside this process.
pub(crate) type RemoteKeys = BTreeMap<KeyBackendKind, Arc<dyn KeyBackend>>;

/// A key backend whose settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use key backend {kind}")]
pub(crate) struct RemoteKeysError {
    kind: KeyBackendKind,
    #[source]
    source: Cause,
}

/// Those that are configured. None of them is asked anything yet: one that is away is no reason not
/// to start.
pub(crate) fn remote_keys(config: &Config) -> Result<RemoteKeys, RemoteKeysError> {
    let mut remote = RemoteKeys::new();
    if let Some(settings) = &config.vault {
        let kind = KeyBackendKind::Vault;
        let keys =
            VaultKeys::open(settings).map_err(|error| RemoteKeysError { kind, source: error.into() })?;
        remote.insert(kind, Arc::new(keys));
    }
    if let Some(settings) = &config.pkcs11 {
        let kind = KeyBackendKind::Pkcs11;
        let keys =
            Pkcs11Keys::open(settings).map_err(|error| RemoteKeysError { kind, source: error.into() })?;
        remote.insert(kind, Arc::new(keys));
    }
    Ok(remote)
}
