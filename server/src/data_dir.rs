//! The manager's directory: who may read it, what is in it, and how files get into it whole.
//!
//! ```text
//! lock             held by the one manager that runs here
//! root.sealed      the root key, wrapped under each key that unlocks this manager
//! unlock.key       one of those keys, where an operator wants no seal; may be kept elsewhere
//! unlock.sock      where a sealed manager hears of keys
//! ca.pem           the CA's certificate
//! ca.key.sealed    the CA's private key, sealed under the root key
//! keys/NAME/N.key  version N of a local key, sealed under the root key
//! store.db         the store
//! audit.db         the audit log
//! audit.mark       how far the audit log was signed, sealed under the root key
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;

const LOCK: &str = "lock";
const SEALED_ROOT: &str = "root.sealed";
/// The root key in clear, as the first managers had it.
const ROOT_KEY: &str = "root.key";
const UNLOCK_SOCKET: &str = "unlock.sock";
const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key.sealed";
pub(crate) const KEYS: &str = "keys";
pub(crate) const STORE: &str = "store.db";
pub(crate) const AUDIT: &str = "audit.db";
pub(crate) const AUDIT_MARK: &str = "audit.mark";

/// Without one of these it is no manager's.
pub(crate) const NEEDED: [&str; 4] = [CA_CERTIFICATE, CA_KEY, SEALED_ROOT, STORE];

/// The directory of one manager, locked as long as this lives.
pub(crate) struct DataDir {
    path: PathBuf,
    lock: File,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// It cannot be created.
    #[error("cannot create {}", .path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its lock file cannot be opened.
    #[error("cannot open {}; is this the data directory of a manager?", .path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process holds it.
    #[error("another manager runs on {}", .0.display())]
    InUse(PathBuf),
    /// It has a manager, or the remains of one.
    #[error("{} has a manager already", .0.display())]
    NotEmpty(PathBuf),
}

impl DataDir {
    /// Makes a directory for a new manager; an existing one must be empty.
    pub(crate) fn create(path: &Path) -> Result<Self, DataDirError> {
        let create = |path: &Path| {
            create_directory(path).map_err(|source| DataDirError::Create { path: path.to_owned(), source })
        };
        create(path)?;
        Self::require_empty(path)?;
        create(&path.join(KEYS))?;
        let directory = Self::lock(path, OpenOptions::new().create(true))?;
        // An empty file is an empty database; SQLite gives its other files the same permissions.
        write_new(path, STORE, &[])
            .map_err(|source| DataDirError::Create { path: directory.store(), source })?;
        Ok(directory)
    }

    /// Refuses a directory that is there and holds anything.
    pub(crate) fn require_empty(path: &Path) -> Result<(), DataDirError> {
        let mut entries = match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|source| DataDirError::Create { path: path.to_owned(), source })?,
        };
        entries.next().map_or(Ok(()), |_| Err(DataDirError::NotEmpty(path.to_owned())))
    }

    /// Puts a directory with all that a manager needs in the place of an absent or empty one, at once.
    pub(crate) fn adopt(prepared: &Path, path: &Path) -> Result<(), DataDirError> {
        let failed = |source| DataDirError::Create { path: path.to_owned(), source };
        create_directory(&prepared.join(KEYS)).map_err(failed)?;
        create_file(&prepared.join(LOCK)).map_err(failed)?;
        sync(prepared).map_err(failed)?;
        match fs::rename(prepared, path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                return Err(DataDirError::NotEmpty(path.to_owned()));
            }
            renamed => renamed.map_err(failed)?,
        }
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => sync(parent).map_err(failed),
            None => Ok(()),
        }
    }

    /// Opens the directory of an existing manager.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        Self::lock(path, &mut OpenOptions::new())
    }

    fn lock(path: &Path, options: &mut OpenOptions) -> Result<Self, DataDirError> {
        let file = path.join(LOCK);
        let lock = options
            .write(true)
            .mode(OWNER_ONLY_FILE)
            .open(&file)
            .map_err(|source| DataDirError::Lock { path: file.clone(), source })?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(DataDirError::Lock { path: file, source }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Where the audit log is.
    pub(crate) fn audit(&self) -> PathBuf {
        self.path.join(AUDIT)
    }

    /// Makes the file of an audit log, where there is none yet.
    pub(crate) fn create_audit(&self) -> io::Result<()> {
        write_new(&self.path, AUDIT, &[])
    }

    /// Gives the files of the audit log another name, as far as they are there.
    pub(crate) fn set_audit_aside(&self, name: &str) -> io::Result<Vec<PathBuf>> {
        // SQLite finds its two by the name of the first (https://www.sqlite.org/tempfiles.html).
        let database = ["", "-wal", "-shm"].map(|end| (format!("{AUDIT}{end}"), format!("{name}.db{end}")));
        for (from, to) in database.into_iter().chain([(AUDIT_MARK.to_owned(), format!("{name}.mark"))]) {
            present(fs::rename(self.path.join(from), self.path.join(to)))?;
        }
        sync(&self.path)?;
        let is_of_it =
            |path: &PathBuf| path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(name));
        let entries = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.path()));
        let mut files = entries.collect::<io::Result<Vec<_>>>()?;
        files.retain(is_of_it);
        files.sort();
        Ok(files)
    }

    pub(crate) fn read_sealed_root(&self) -> io::Result<Option<Vec<u8>>> {
        present(fs::read(self.path.join(SEALED_ROOT)))
    }

    /// Keeps the first one.
    pub(crate) fn write_sealed_root(&self, content: &[u8]) -> io::Result<()> {
        write_new(&self.path, SEALED_ROOT, content)
    }

    /// Keeps another one in its place.
    pub(crate) fn replace_sealed_root(&self, content: &[u8]) -> io::Result<()> {
        replace(&self.path, SEALED_ROOT, content)
    }

    /// The root key in clear; `None` in the directory of any but the first managers.
    pub(crate) fn read_root_key(&self) -> io::Result<Option<Zeroizing<String>>> {
        present(fs::read_to_string(self.path.join(ROOT_KEY)).map(Zeroizing::new))
    }

    pub(crate) fn remove_root_key(&self) -> io::Result<()> {
        fs::remove_file(self.path.join(ROOT_KEY))?;
        sync(&self.path)
    }

    /// Where a sealed manager hears of keys.
    pub(crate) fn unlock_socket(&self) -> PathBuf {
        unlock_socket(&self.path)
    }

    pub(crate) fn read_ca(&self) -> io::Result<(String, Vec<u8>)> {
        Ok((fs::read_to_string(self.path.join(CA_CERTIFICATE))?, fs::read(self.path.join(CA_KEY))?))
    }

    pub(crate) fn write_ca(&self, certificate: &str, sealed_key: &[u8]) -> io::Result<()> {
        write_new(&self.path, CA_KEY, sealed_key)?;
        write_new(&self.path, CA_CERTIFICATE, certificate.as_bytes())
    }

    /// Where the local keys are.
    pub(crate) fn keys(&self) -> PathBuf {
        self.path.join(KEYS)
    }
}

impl Drop for DataDir {
    /// Ends the lock itself, and not only by closing the file: a process that is being started at this
    /// moment has the descriptor too until it runs its program, and would keep the lock so long.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// What a file has, if it is there.
pub(crate) fn present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the manager of this directory hears of keys while it is sealed.
pub(crate) fn unlock_socket(data_dir: &Path) -> PathBuf {
    data_dir.join(UNLOCK_SOCKET)
}

/// Whether a manager runs on this directory.
pub(crate) fn is_in_use(data_dir: &Path) -> io::Result<bool> {
    match DataDir::open(data_dir) {
        Ok(_) => Ok(false),
        Err(DataDirError::InUse(_)) => Ok(true),
        Err(DataDirError::Lock { source, .. } | DataDirError::Create { source, .. }) => Err(source),
        Err(DataDirError::NotEmpty(_)) => Ok(false),
    }
}

/// Writes a file that appears whole or not at all, survives a power failure once this returns, and
/// never replaces another. Only its owner can read it.
pub(crate) fn write_new(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(directory.join(name)).map_err(|error| error.error)?;
    sync(directory)
}

/// Makes an empty file that only its owner reads, where there is none.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY_FILE).open(path)
}

/// Writes a file in place of another; after a crash there is the one or the other. Only its owner can
/// read it.
pub(crate) fn replace(directory: &Path, name: impl AsRef<Path>, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(directory.join(name)).map_err(|error| error.error)?;
    sync(directory)
}

/// Makes a directory that only its owner enters, unless it is there.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIRECTORY).create(path)
}

/// Makes what was created in a directory, or removed from it, survive a power failure.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn one_manager_at_a_time() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("manager");
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Lock { .. })));
        let first = DataDir::create(&path).expect("created");
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse(_))));
        // As a process has it that is being started just then, until it runs its program.
        let inherited = first.lock.try_clone().expect("a descriptor");
        drop(first);
        DataDir::open(&path).expect("free again");
        drop(inherited);
        assert!(matches!(DataDir::create(&path), Err(DataDirError::NotEmpty(_))));
    }

    #[test]
    fn only_the_owner_reads_and_nothing_is_replaced() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("manager");
        let directory = DataDir::create(&path).expect("created");
        directory.write_sealed_root(b"first").expect("written");
        directory.write_sealed_root(b"second").expect_err("never replaced");
        assert_eq!(directory.read_sealed_root().expect("read").expect("there"), b"first");
        directory.replace_sealed_root(b"third").expect("unless it is meant");
        assert_eq!(directory.read_sealed_root().expect("read").expect("there"), b"third");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), OWNER_ONLY_DIRECTORY);
        assert_eq!(mode(&path.join(SEALED_ROOT)), OWNER_ONLY_FILE);
    }
}
