//! The directory of one test.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// A directory that every user may enter, since other users read mounts below it. Gone at the end.
pub(crate) struct Area(TempDir);

impl Area {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("secretfs-test-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .expect("a temporary directory");
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A directory in it, made if it is not there.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }
}

/// Where all that a test's processes print is kept, each in a file of its own.
#[derive(Clone)]
pub(crate) struct Logs(PathBuf);

impl Logs {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// A new file for what `name` prints.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        self.0.join(format!("{:04}-{name}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}
