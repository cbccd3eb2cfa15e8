//! Keys on this machine: one AES-256 key per environment, wrapped by the root key, in a file that
//! only the manager's user reads, or in memory only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use secretfs_wire::KeyName;

use super::{Context, Key, KeyBackend, KeyError, RootKey, Wrapped};
use crate::data_dir::DataDir;

const LABEL: &str = "secretfs environment key v1";
/// Keys have one version until they can be rotated.
const VERSION: u64 = 1;

/// The local key backend.
pub(crate) struct LocalKeys {
    root: RootKey,
    /// Where the wrapped keys are; `None` when they are in memory only.
    files: Option<Arc<DataDir>>,
    /// Keys in use. Never held across an await.
    keys: Mutex<HashMap<KeyName, Arc<Key>>>,
}

impl LocalKeys {
    pub(crate) fn in_memory(root: RootKey) -> Self {
        Self { root, files: None, keys: Mutex::default() }
    }

    pub(crate) fn in_files(root: RootKey, files: Arc<DataDir>) -> Self {
        Self { root, files: Some(files), keys: Mutex::default() }
    }

    fn cached(&self, name: &KeyName) -> Option<Arc<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn remember(&self, name: &KeyName, key: Key) -> Arc<Key> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was first wins, so that all use the one that is in the file.
        Arc::clone(keys.entry(name.clone()).or_insert_with(|| Arc::new(key)))
    }

    fn load(&self, name: &KeyName) -> Result<Option<Arc<Key>>, KeyError> {
        if let Some(key) = self.cached(name) {
            return Ok(Some(key));
        }
        let Some(files) = &self.files else { return Ok(None) };
        let sealed = files
            .read_environment_key(name)
            .map_err(|source| KeyError::File { name: name.to_string(), source })?;
        let Some(sealed) = sealed else { return Ok(None) };
        let bytes = self.root.open(LABEL, name.as_str(), &sealed)?;
        let key = Key::from_bytes(&bytes).ok_or(KeyError::Refused)?;
        Ok(Some(self.remember(name, key)))
    }

    fn find(&self, name: &KeyName) -> Result<Arc<Key>, KeyError> {
        self.load(name)?.ok_or_else(|| KeyError::Missing(name.to_string()))
    }
}

#[async_trait]
impl KeyBackend for LocalKeys {
    async fn ensure(&self, name: &KeyName) -> Result<(), KeyError> {
        if self.load(name)?.is_some() {
            return Ok(());
        }
        let key = Key::generate()?;
        if let Some(files) = &self.files {
            let sealed = self.root.seal(LABEL, name.as_str(), key.expose_secret())?;
            files
                .create_environment_key(name, &sealed)
                .map_err(|source| KeyError::File { name: name.to_string(), source })?;
            // Read back: when two were created at once, the file has the one that counts.
            return self.find(name).map(|_| ());
        }
        self.remember(name, key);
        Ok(())
    }

    async fn wrap(&self, name: &KeyName, context: &Context, data_key: &Key) -> Result<Wrapped, KeyError> {
        let bytes = self.find(name)?.seal(context, data_key.expose_secret())?;
        Ok(Wrapped { key_version: VERSION, bytes })
    }

    async fn unwrap(
        &self,
        name: &KeyName,
        version: u64,
        context: &Context,
        wrapped: &[u8],
    ) -> Result<Key, KeyError> {
        if version != VERSION {
            return Err(KeyError::Missing(format!("{name}:{version}")));
        }
        let bytes = self.find(name)?.open(context, wrapped)?;
        Key::from_bytes(&bytes).ok_or(KeyError::Refused)
    }

    async fn health(&self) -> Result<(), KeyError> {
        let Some(files) = &self.files else { return Ok(()) };
        files.probe().map_err(|source| KeyError::File { name: "*".to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_survive_a_restart_under_their_root_key_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("manager");
        let root = RootKey::generate().expect("key");
        let text = root.expose_text();
        let name: KeyName = "prod".parse().expect("name");
        let (context, data_key) = (Context::new([&b"place"[..]]), Key::generate().expect("key"));

        let files = Arc::new(DataDir::create(&path).expect("a data directory"));
        let keys = LocalKeys::in_files(root, Arc::clone(&files));
        assert!(matches!(keys.wrap(&name, &context, &data_key).await, Err(KeyError::Missing(_))));
        keys.ensure(&name).await.expect("created");
        keys.ensure(&name).await.expect("there already");
        let wrapped = keys.wrap(&name, &context, &data_key).await.expect("wrapped");

        let again = LocalKeys::in_files(RootKey::from_text(&text).expect("key"), Arc::clone(&files));
        let unwrapped = again.unwrap(&name, 1, &context, &wrapped.bytes).await.expect("unwrapped");
        assert_eq!(unwrapped.expose_secret(), data_key.expose_secret());

        let stranger = LocalKeys::in_files(RootKey::generate().expect("key"), files);
        assert!(matches!(stranger.unwrap(&name, 1, &context, &wrapped.bytes).await, Err(KeyError::Refused)));
    }
}
