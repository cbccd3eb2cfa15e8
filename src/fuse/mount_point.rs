//! The directory under a mount: fit to be mounted on, and ours alone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::attach;
use super::error::MountError;
use super::mount_table::Mounted;

/// How long a mounted secretfs may take to show that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A claimed directory. The claim ends when this is dropped, and with the process in any case.
#[derive(Debug)]
pub(super) struct MountPoint {
    pub(super) path: PathBuf,
    // Locked. A second process finds the lock taken even if it looked before we mounted.
    _directory: File,
}

impl MountPoint {
    /// Claims a directory, after removing what dead processes have left mounted on it.
    pub(super) fn claim(path: &Path) -> Result<Self, MountError> {
        let unusable = |source| MountError::Unusable { path: path.to_owned(), source };
        let path = fs::canonicalize(path).map_err(unusable)?;
        loop {
            remove_dead(&path)?;
            let directory = open_directory(&path)?;
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(MountError::Claimed(path)),
                Err(error) => return Err(MountError::Unusable { path, source: error.into() }),
            }
            // Another process may have mounted, and died, since we looked: then the lock is on its
            // root and not on the directory below.
            if remove_dead(&path)? == 0 {
                return Self { path, _directory: directory }.check_empty();
            }
        }
    }

    fn check_empty(self) -> Result<Self, MountError> {
        let unusable = |source| MountError::Unusable { path: self.path.clone(), source };
        match fs::read_dir(&self.path).map_err(unusable)?.next() {
            None => Ok(self),
            Some(_) => Err(MountError::NotEmpty(self.path)),
        }
    }
}

fn open_directory(path: &Path) -> Result<File, MountError> {
    let unusable = |source| MountError::Unusable { path: path.to_owned(), source };
    let directory = File::open(path).map_err(unusable)?;
    if directory.metadata().map_err(unusable)?.is_dir() {
        return Ok(directory);
    }
    Err(MountError::NotADirectory(path.to_owned()))
}

/// Detaches dead mounts of ours, one on the other as they may lie, and counts them.
fn remove_dead(path: &Path) -> Result<usize, MountError> {
    let mut removed = 0;
    while Mounted::at(path).map_err(MountError::Table)?.is_some_and(|top| top.is_ours()) {
        if is_alive(path) {
            return Err(MountError::AlreadyMounted(path.to_owned()));
        }
        tracing::info!(path = %path.display(), "removing a mount whose process is dead");
        attach::detach(path)?;
        removed += 1;
    }
    Ok(removed)
}

/// A mount whose connection is gone says so at once. One that does not answer counts as alive: its
/// process may be between two workers. It is asked from another thread, which may then hang.
fn is_alive(path: &Path) -> bool {
    let (sender, answer) = mpsc::channel();
    let path = path.to_owned();
    let ask = move || sender.send(rustix::fs::statfs(&path).map(drop));
    if thread::Builder::new().spawn(ask).is_err() {
        return true;
    }
    !matches!(answer.recv_timeout(SIGN_OF_LIFE), Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_that_nobody_else_has_is_claimed() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("point");
        assert!(matches!(MountPoint::claim(&path), Err(MountError::Unusable { .. })));
        fs::write(&path, "").expect("a file");
        assert!(matches!(MountPoint::claim(&path), Err(MountError::NotADirectory(_))));
        assert!(matches!(MountPoint::claim(scratch.path()), Err(MountError::NotEmpty(_))));
        fs::remove_file(&path).expect("the file");
        fs::create_dir(&path).expect("a directory");
        let first = MountPoint::claim(&path).expect("it is free");
        assert!(matches!(MountPoint::claim(&path), Err(MountError::Claimed(_))));
        drop(first);
        MountPoint::claim(&path).expect("it is free again");
    }

    #[test]
    fn errors_say_which_directory_and_why() {
        let error = MountPoint::claim(Path::new("/no/such/place")).expect_err("nothing there");
        assert!(error.to_string().starts_with("/no/such/place "), "{error}");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source, Some(std::io::Error::from(Errno::NOENT).to_string()));
    }
}
