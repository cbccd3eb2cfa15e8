//! Keys on this machine: AES-256 keys with versions, wrapped by the root key, in files that only the
//! manager's user reads, or in memory only.

mod files;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::KeyName;

use super::{Context, Key, KeyBackend, KeyDescription, KeyError, RootKey, VersionDescription, Wrapped};
use crate::app::now;
use crate::data_dir::DataDir;

use files::KeyFiles;

/// The local key backend.
pub(crate) struct LocalKeys {
    /// Where the keys stay; `None` when they are in memory only.
    files: Option<KeyFiles>,
    /// Keys in use. Never held across an await.
    keys: Mutex<HashMap<KeyName, Arc<Versions>>>,
}

/// The versions of one key that unwrap, by their number.
type Versions = BTreeMap<u64, Version>;

struct Version {
    key: Arc<Key>,
    created: Timestamp,
}

impl LocalKeys {
    pub(crate) fn in_memory() -> Self {
        Self { files: None, keys: Mutex::default() }
    }

    pub(crate) fn in_files(root: impl Into<Arc<RootKey>>, directory: Arc<DataDir>) -> Result<Self, KeyError> {
        Ok(Self { files: Some(KeyFiles::open(root.into(), directory)?), keys: Mutex::default() })
    }

    /// A new key of these bytes.
    pub(super) fn import(&self, name: &KeyName, key: Key) -> Result<(), KeyError> {
        match self.load(name) {
            Ok(_) => Err(KeyError::Exists(name.to_string())),
            Err(KeyError::Missing(_)) => self.add(name, 1, key).map(|_| ()),
            Err(error) => Err(error),
        }
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, HashMap<KeyName, Arc<Versions>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All versions of a key; [`KeyError::Missing`] when there is none.
    fn load(&self, name: &KeyName) -> Result<Arc<Versions>, KeyError> {
        let mut keys = self.keys();
        if let Some(versions) = keys.get(name) {
            return Ok(Arc::clone(versions));
        }
        let versions = match &self.files {
            Some(files) => files.load(name)?,
            None => Versions::new(),
        };
        if versions.is_empty() {
            return Err(KeyError::Missing(name.to_string()));
        }
        Ok(Arc::clone(keys.entry(name.clone()).or_insert(Arc::new(versions))))
    }

    /// Adds a version to those there are. Of two at once the second is [`KeyError::Exists`].
    fn add(&self, name: &KeyName, version: u64, key: Key) -> Result<u64, KeyError> {
        let mut keys = self.keys();
        let before = keys.get(name).cloned().unwrap_or_default();
        if before.contains_key(&version) {
            return Err(KeyError::Exists(format!("{name}:{version}")));
        }
        let created = now();
        if let Some(files) = &self.files {
            files.create(name, version, &key)?;
        }
        let added = Version { key: Arc::new(key), created };
        let mut versions: Versions =
            before.iter().map(|(number, version)| (*number, version.share())).collect();
        versions.insert(version, added);
        keys.insert(name.clone(), Arc::new(versions));
        Ok(version)
    }
}

impl Version {
    fn share(&self) -> Self {
        Self { key: Arc::clone(&self.key), created: self.created }
    }
}

#[async_trait]
impl KeyBackend for LocalKeys {
    async fn ensure(&self, name: &KeyName) -> Result<(), KeyError> {
        match self.load(name) {
            Err(KeyError::Missing(_)) => match self.add(name, 1, Key::generate()?) {
                // Another request has made it meanwhile.
                Ok(_) | Err(KeyError::Exists(_)) => Ok(()),
                Err(error) => Err(error),
            },
            other => other.map(|_| ()),
        }
    }

    async fn wrap(&self, name: &KeyName, data_keys: &[(&Context, &Key)]) -> Result<Vec<Wrapped>, KeyError> {
        let versions = self.load(name)?;
        let (version, newest) =
            versions.last_key_value().ok_or_else(|| KeyError::Missing(name.to_string()))?;
        let wrap = |(context, data_key): &(&Context, &Key)| {
            let bytes = newest.key.seal(context, data_key.expose_secret())?;
            Ok(Wrapped { version: *version, bytes })
        };
        data_keys.iter().map(wrap).collect()
    }

    async fn unwrap(
        &self,
        name: &KeyName,
        wrapped: &[(&Context, &Wrapped)],
    ) -> Result<Vec<Result<Key, KeyError>>, KeyError> {
        let versions = self.load(name)?;
        let unwrap = |(context, wrapped): &(&Context, &Wrapped)| {
            let version = versions.get(&wrapped.version);
            let version = version.ok_or_else(|| KeyError::Missing(format!("{name}:{}", wrapped.version)))?;
            Key::from_bytes(&version.key.open(context, &wrapped.bytes)?).ok_or(KeyError::Refused)
        };
        Ok(wrapped.iter().map(unwrap).collect())
    }

    async fn rotate(&self, name: &KeyName) -> Result<u64, KeyError> {
        let newest = self.load(name)?.last_key_value().map_or(0, |(version, _)| *version);
        self.add(name, newest + 1, Key::generate()?)
    }

    async fn describe(&self, name: &KeyName) -> Result<KeyDescription, KeyError> {
        let versions = self.load(name)?;
        let describe = |(number, version): (&u64, &Version)| VersionDescription {
            version: *number,
            created: Some(version.created),
        };
        Ok(KeyDescription {
            newest: versions.last_key_value().map_or(0, |(version, _)| *version),
            versions: versions.iter().map(describe).collect(),
        })
    }

    async fn retire(&self, name: &KeyName, below: u64) -> Result<(), KeyError> {
        let versions = match self.load(name) {
            Err(KeyError::Missing(_)) => return Ok(()),
            versions => versions?,
        };
        let mut keys = self.keys();
        if let Some(files) = &self.files {
            for version in versions.range(..below).map(|(version, _)| *version) {
                files.remove(name, version)?;
            }
        }
        let left: Versions =
            versions.range(below..).map(|(number, version)| (*number, version.share())).collect();
        if left.is_empty() {
            keys.remove(name)
        } else {
            keys.insert(name.clone(), Arc::new(left))
        };
        Ok(())
    }

    async fn health(&self) -> Result<(), KeyError> {
        self.files.as_ref().map_or(Ok(()), KeyFiles::probe)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    fn name(text: &str) -> KeyName {
        text.parse().expect("a name")
    }

    #[tokio::test]
    async fn local_keys_in_memory_conform() {
        conformance::check(&LocalKeys::in_memory()).await;
    }

    #[tokio::test]
    async fn local_keys_in_files_conform() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = DataDir::create(&parent.path().join("manager")).expect("a data directory");
        let keys = LocalKeys::in_files(RootKey::generate().expect("key"), Arc::new(directory));
        conformance::check(&keys.expect("keys")).await;
    }

    #[tokio::test]
    async fn keys_survive_a_restart_under_their_root_key_only() {
        let parent = tempfile::tempdir().expect("a directory");
        let root = RootKey::generate().expect("key");
        let copy = Key::from_bytes(root.as_key().expose_secret()).map(RootKey::from_key).expect("a key");
        let same = Key::from_bytes(root.as_key().expose_secret()).map(RootKey::from_key).expect("a key");
        let (prod, context, data_key) =
            (name("prod"), Context::new([&b"place"[..]]), Key::generate().expect("key"));

        let directory = Arc::new(DataDir::create(&parent.path().join("manager")).expect("a data directory"));
        let keys = LocalKeys::in_files(root, Arc::clone(&directory)).expect("keys");
        keys.ensure(&prod).await.expect("created");
        let mut wrapped = keys.wrap(&prod, &[(&context, &data_key)]).await.expect("wrapped");
        assert_eq!(keys.rotate(&prod).await.expect("rotated"), 2);
        wrapped.extend(keys.wrap(&prod, &[(&context, &data_key)]).await.expect("wrapped"));
        assert_eq!(wrapped.iter().map(|wrapped| wrapped.version).collect::<Vec<_>>(), [1, 2]);
        let described = keys.describe(&prod).await.expect("described");

        let again = LocalKeys::in_files(same, Arc::clone(&directory)).expect("keys");
        let questions: Vec<_> = wrapped.iter().map(|wrapped| (&context, wrapped)).collect();
        for unwrapped in again.unwrap(&prod, &questions).await.expect("answers") {
            assert_eq!(unwrapped.expect("unwrapped").expose_secret(), data_key.expose_secret());
        }
        assert_eq!(again.describe(&prod).await.expect("described").newest, described.newest);

        again.retire(&prod, 2).await.expect("retired");
        let later = Key::from_bytes(copy.as_key().expose_secret()).map(RootKey::from_key).expect("a key");
        let later = LocalKeys::in_files(later, Arc::clone(&directory)).expect("keys");
        let left = later.describe(&prod).await.expect("described").versions;
        assert_eq!(left.iter().map(|version| version.version).collect::<Vec<_>>(), [2]);

        let stranger = LocalKeys::in_files(RootKey::generate().expect("key"), directory).expect("keys");
        assert!(matches!(stranger.unwrap(&prod, &questions).await, Err(KeyError::Refused)));
    }

    #[tokio::test]
    async fn a_key_that_was_made_elsewhere_is_taken_in_once() {
        let keys = LocalKeys::in_memory();
        let (prod, context) = (name("prod"), Context::new([&b"place"[..]]));
        let imported = Key::from_bytes(&[7; 32]).expect("a key");
        keys.import(&prod, imported).expect("imported");
        let data_key = Key::generate().expect("key");
        let wrapped = keys.wrap(&prod, &[(&context, &data_key)]).await.expect("wrapped");
        let same = Key::from_bytes(&[7; 32]).expect("a key");
        let opened = same.open(&context, &wrapped[0].bytes).expect("it is that key");
        assert_eq!(opened.as_slice(), data_key.expose_secret());
        let again = keys.import(&prod, Key::generate().expect("key"));
        assert!(matches!(again, Err(KeyError::Exists(_))), "{again:?}");
    }
}
