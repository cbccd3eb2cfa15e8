//! What opens the seal without an operator: each slot that has a source is tried, in their order.

use std::fs::File;
use std::path::PathBuf;

use secretfs_wire::KeyBackendKind;

use super::key_file::{self, KeyFileError};
use super::slots::{SealedRoot, Slot, UnderKey, open_by_backend};
use super::unlock_key::UnlockKey;
use crate::config::Config;
use crate::keys::{KeyError, RemoteKeys, RootKey};

/// Where systemd puts the credentials of a service.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where the keys are that need no operator.
pub(crate) struct AutoSources {
    pub(super) key_file: PathBuf,
    /// `None` when systemd gives this process no credentials.
    pub(super) credential: Option<PathBuf>,
    /// Those outside this process.
    pub(super) backends: RemoteKeys,
}

/// Why a slot did not open.
#[derive(Debug, thiserror::Error)]
enum AutoError {
    #[error("the key file {}", .0.display())]
    KeyFile(PathBuf, #[source] KeyFileError),
    #[error("systemd gives this process no credentials")]
    NoCredentials,
    #[error("the systemd credential {}", .0.display())]
    Credential(PathBuf, #[source] KeyFileError),
    #[error("the key that is there is another one")]
    WrongKey,
    #[error("this manager has no key backend {0}")]
    NotConfigured(KeyBackendKind),
    #[error("key backend {0}")]
    Backend(KeyBackendKind, #[source] KeyError),
}

impl AutoSources {
    pub(crate) fn new(config: &Config, backends: RemoteKeys) -> Self {
        let credentials = std::env::var_os(CREDENTIALS_DIRECTORY).map(PathBuf::from);
        Self {
            key_file: config.unlock_key_file.clone(),
            credential: credentials.map(|directory| directory.join(&config.unlock_credential)),
            backends,
        }
    }

    /// The backends, for what else is kept there.
    pub(crate) fn into_backends(self) -> RemoteKeys {
        self.backends
    }

    /// The root key by the first slot that opens, and what kind of slot that was. Why the others did not is logged, aloud when it is
    /// the first time.
    pub(crate) async fn open(&self, sealed: &SealedRoot, aloud: bool) -> Option<(RootKey, &'static str)> {
        for slot in sealed.auto() {
            match self.open_slot(slot).await {
                Ok(root) => return Some((root, slot.means())),
                Err(error) => {
                    let reason = crate::error::chain(&error);
                    match aloud {
                        true => tracing::warn!(reason, "cannot unlock without an operator"),
                        false => tracing::debug!(reason, "cannot unlock without an operator yet"),
                    }
                }
            }
        }
        None
    }

    async fn open_slot(&self, slot: &Slot) -> Result<RootKey, AutoError> {
        match slot {
            // Its key is with people.
            Slot::Operator { .. } => Err(AutoError::WrongKey),
            Slot::KeyFile { wrapped } => {
                let keys = key_file::read(&self.key_file);
                open_by(wrapped, &keys.map_err(|error| AutoError::KeyFile(self.key_file.clone(), error))?)
            }
            Slot::SystemdCredential { wrapped } => {
                let path = self.credential.as_ref().ok_or(AutoError::NoCredentials)?;
                let failed = |error| AutoError::Credential(path.clone(), error);
                // Its mode is systemd's affair.
                let keys = File::open(path).and_then(key_file::keys_in);
                let keys = keys.map_err(|error| failed(error.into()))?;
                open_by(wrapped, &keys.ok_or(KeyFileError::Content).map_err(failed)?)
            }
            Slot::Backend { backend: kind, key, version, wrapped } => {
                let backend = self.backends.get(kind).ok_or(AutoError::NotConfigured(*kind))?;
                open_by_backend(backend.as_ref(), *kind, key, *version, wrapped)
                    .await
                    .map_err(|error| AutoError::Backend(*kind, error))
            }
        }
    }
}

fn open_by(wrapped: &UnderKey, keys: &[UnlockKey]) -> Result<RootKey, AutoError> {
    keys.iter().find_map(|key| wrapped.open(key).ok()).ok_or(AutoError::WrongKey)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyBackend as _, LocalKeys};
    use std::sync::Arc;

    fn sources(directory: &std::path::Path) -> AutoSources {
        AutoSources {
            key_file: directory.join("unlock.key"),
            credential: Some(directory.join("credential")),
            backends: RemoteKeys::new(),
        }
    }

    #[tokio::test]
    async fn the_first_slot_that_has_its_key_opens() {
        let directory = tempfile::tempdir().expect("a directory");
        let sources = sources(directory.path());
        let root = RootKey::generate().expect("key");
        let (by_file, by_credential) =
            (UnlockKey::generate().expect("key"), UnlockKey::generate().expect("key"));
        let mut sealed = SealedRoot::empty();
        sealed.add_operator(&root, &UnlockKey::generate().expect("key"), None).expect("added");
        sealed.add_key_file(&root, &by_file).expect("added");
        sealed.add_credential(&root, &by_credential).expect("added");
        assert!(sources.open(&sealed, true).await.is_none(), "nothing is there");

        std::fs::write(directory.path().join("credential"), by_credential.expose_text().as_bytes())
            .expect("written");
        let (opened, means) = sources.open(&sealed, true).await.expect("by the credential");
        assert_eq!(means, "systemd credential");
        assert_eq!(opened.as_key().expose_secret(), root.as_key().expose_secret());
        let stranger = UnlockKey::generate().expect("key");
        key_file::write(&sources.key_file, &stranger, &[]).expect("written");
        std::fs::remove_file(directory.path().join("credential")).expect("removed");
        assert!(sources.open(&sealed, true).await.is_none(), "a wrong key");
        key_file::write(&sources.key_file, &stranger, &[by_file]).expect("written");
        assert!(sources.open(&sealed, true).await.is_some(), "any line of the file");
    }

    #[tokio::test]
    async fn a_backend_is_asked_for_what_it_wrapped() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut sources = sources(directory.path());
        let (root, name) = (RootKey::generate().expect("key"), "root".parse().expect("a name"));
        let backend = Arc::new(LocalKeys::in_memory());
        backend.ensure(&name).await.expect("a key");
        let mut sealed = SealedRoot::empty();
        sealed.add_backend(&root, KeyBackendKind::Vault, &name, backend.as_ref()).await.expect("added");
        assert!(sources.open(&sealed, true).await.is_none(), "not configured");
        sources.backends.insert(KeyBackendKind::Vault, backend);
        assert!(sources.open(&sealed, true).await.is_some());
    }
}
