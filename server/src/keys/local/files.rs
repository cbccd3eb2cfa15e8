//! A key's versions as files `keys/NAME/VERSION.key`, each sealed under the root key for its name
//! and its version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use secretfs_wire::KeyName;

use super::super::{Key, KeyError, RootKey};
use super::{Version, Versions};
use crate::data_dir::{self, DataDir};

const LABEL: &str = "secretfs environment key v2";
/// Before keys had versions, a key was one file `keys/NAME.key` under this label.
const UNVERSIONED_LABEL: &str = "secretfs environment key v1";
const SUFFIX: &str = ".key";

pub(super) struct KeyFiles {
    root: Arc<RootKey>,
    /// Held, so that no other manager writes there.
    data_dir: Arc<DataDir>,
}

impl KeyFiles {
    pub(super) fn open(root: impl Into<Arc<RootKey>>, data_dir: Arc<DataDir>) -> Result<Self, KeyError> {
        let files = Self { root: root.into(), data_dir };
        files.adopt_unversioned()?;
        Ok(files)
    }

    /// All versions of a key; none when there is no such key.
    pub(super) fn load(&self, name: &KeyName) -> Result<Versions, KeyError> {
        let mut versions = Versions::new();
        let entries = match fs::read_dir(self.directory(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(versions),
            entries => entries.map_err(failed(name))?,
        };
        for entry in entries {
            let entry = entry.map_err(failed(name))?;
            // What a crash left half written has another name.
            let Some(version) = version_of(&entry.path()) else { continue };
            let sealed = fs::read(entry.path()).map_err(failed(name))?;
            let written = entry.metadata().and_then(|metadata| metadata.modified()).map_err(failed(name))?;
            let created = Timestamp::try_from(written).unwrap_or(Timestamp::UNIX_EPOCH);
            let bytes = self.root.open(LABEL, &qualified(name, version), &sealed)?;
            let key = Key::from_bytes(&bytes).ok_or(KeyError::Refused)?;
            versions.insert(version, Version { key: Arc::new(key), created });
        }
        Ok(versions)
    }

    /// Writes a version, which must not be there.
    pub(super) fn create(&self, name: &KeyName, version: u64, key: &Key) -> Result<(), KeyError> {
        let sealed = self.root.seal(LABEL, &qualified(name, version), key.expose_secret())?;
        let directory = self.directory(name);
        data_dir::create_directory(&directory).map_err(failed(name))?;
        data_dir::write_new(&directory, &format!("{version}{SUFFIX}"), &sealed).map_err(failed(name))
    }

    pub(super) fn remove(&self, name: &KeyName, version: u64) -> Result<(), KeyError> {
        let directory = self.directory(name);
        match fs::remove_file(directory.join(format!("{version}{SUFFIX}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(name)(error)),
            _ => {}
        }
        data_dir::sync(&directory).map_err(failed(name))
    }

    /// Whether the keys' directory can be read.
    pub(super) fn probe(&self) -> Result<(), KeyError> {
        let read = fs::read_dir(self.data_dir.keys()).map(|_| ());
        read.map_err(|source| KeyError::File { name: "*".to_owned(), source })
    }

    fn directory(&self, name: &KeyName) -> PathBuf {
        self.data_dir.keys().join(name.as_str())
    }

    /// Makes first versions out of keys from before there were versions. Whoever is stopped in the
    /// middle has both, which are the same key, and goes on the next time.
    fn adopt_unversioned(&self) -> Result<(), KeyError> {
        let all = |source| KeyError::File { name: "*".to_owned(), source };
        for entry in fs::read_dir(self.data_dir.keys()).map_err(all)? {
            let entry = entry.map_err(all)?;
            if !entry.file_type().map_err(all)?.is_file() {
                continue;
            }
            let file_name = entry.file_name();
            let name = file_name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let Some(Ok(name)) = name.map(str::parse::<KeyName>) else { continue };
            let sealed = fs::read(entry.path()).map_err(failed(&name))?;
            let bytes = self.root.open(UNVERSIONED_LABEL, name.as_str(), &sealed)?;
            let key = Key::from_bytes(&bytes).ok_or(KeyError::Refused)?;
            match self.create(&name, 1, &key) {
                Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                created => created?,
            }
            fs::remove_file(entry.path()).map_err(failed(&name))?;
        }
        Ok(())
    }
}

fn failed(name: &KeyName) -> impl FnOnce(io::Error) -> KeyError {
    move |source| KeyError::File { name: name.to_string(), source }
}

fn qualified(name: &KeyName, version: u64) -> String {
    format!("{name}/{version}")
}

fn version_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_from_before_versions_is_its_first_version() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Arc::new(DataDir::create(&parent.path().join("manager")).expect("a data directory"));
        let root = RootKey::generate().expect("key");
        let (name, key) = ("prod".parse().expect("a name"), Key::generate().expect("key"));
        let sealed = root.seal(UNVERSIONED_LABEL, "prod", key.expose_secret()).expect("sealed");
        let old = directory.keys().join("prod.key");
        for again in [false, true] {
            fs::write(&old, &sealed).expect("written");
            let root = Key::from_bytes(root.as_key().expose_secret()).map(RootKey::from_key).expect("a key");
            let files = KeyFiles::open(root, Arc::clone(&directory)).expect("opened");
            let versions = files.load(&name).expect("loaded");
            assert_eq!(versions.len(), 1, "{again}");
            assert_eq!(versions[&1].key.expose_secret(), key.expose_secret());
            assert!(!old.exists());
        }
    }

    #[test]
    fn a_file_of_another_name_or_version_is_refused() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = Arc::new(DataDir::create(&parent.path().join("manager")).expect("a data directory"));
        let files =
            KeyFiles::open(RootKey::generate().expect("key"), Arc::clone(&directory)).expect("opened");
        let (prod, dev) = ("prod".parse().expect("a name"), "dev".parse().expect("a name"));
        files.create(&prod, 1, &Key::generate().expect("key")).expect("written");
        files.create(&dev, 1, &Key::generate().expect("key")).expect("written");
        let file = |name: &str, version: u64| directory.keys().join(name).join(format!("{version}.key"));
        fs::copy(file("dev", 1), file("dev", 2)).expect("copied");
        assert!(matches!(files.load(&dev), Err(KeyError::Refused)), "another version");
        fs::copy(file("dev", 1), file("prod", 1)).expect("copied");
        assert!(matches!(files.load(&prod), Err(KeyError::Refused)), "another name");
    }
}
