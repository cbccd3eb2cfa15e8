//! The directory under a mount: fit to be mounted on, and ours alone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::attach::{self, Attached, Audience, Superblock};
use super::device::Device;
use super::error::MountError;
use super::mount_table::{MountTable, Mounted};

/// How long a mounted secretfs may take to show that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A claimed place to mount at. The claim ends when this is dropped, and with the process in any case.
#[derive(Debug)]
pub(super) struct MountPoint {
    pub(super) path: PathBuf,
    under: Under,
}

/// What a mount is put on.
#[derive(Debug)]
enum Under {
    /// The directory, locked. A second process finds the lock taken even if it looked before we mounted.
    Directory { _locked: File },
    /// A mount of a dead process. It stays: what is mounted over it appears in every bind of it that
    /// receives mounts, also in containers, where a new mount in its place would not.
    Dead(Mounted),
    /// It was there before this process.
    Unknown,
}

impl MountPoint {
    /// Claims a directory. Of what dead processes have left mounted on it one layer stays at most.
    pub(super) fn claim(path: &Path) -> Result<Self, MountError> {
        let unusable = |source| MountError::Unusable { path: path.to_owned(), source };
        let path = fs::canonicalize(path).map_err(unusable)?;
        loop {
            if let Some(dead) = lowest_dead(&path)? {
                if may_mount_over() {
                    return Ok(Self { path, under: Under::Dead(dead) });
                }
                attach::detach(&path)?;
            }
            let directory = open_directory(&path)?;
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(MountError::Claimed(path)),
                Err(error) => return Err(MountError::Unusable { path, source: error.into() }),
            }
            // Another process may have mounted, and died, since we looked: then the lock is on its
            // root and not on the directory below.
            if lowest_dead(&path)?.is_none() {
                return Self { path, under: Under::Directory { _locked: directory } }.check_empty();
            }
        }
    }

    /// A place where another process has mounted what is ours now.
    pub(super) const fn inherited(path: PathBuf) -> Self {
        Self { path, under: Under::Unknown }
    }

    /// Mounts here.
    ///
    /// # Errors
    /// [`MountError::Claimed`] when another process was first.
    pub(super) fn attach(&self, audience: Audience, superblock: Superblock) -> Result<Attached, MountError> {
        let attached = attach::attach(&self.path, audience, superblock)?;
        self.check_first(attached.device)?;
        Ok(attached)
    }

    /// A dead mount cannot be locked, but only one mount lies on it: that of the first process.
    fn check_first(&self, device: Device) -> Result<(), MountError> {
        let Under::Dead(dead) = &self.under else { return Ok(()) };
        let table = MountTable::read().map_err(MountError::Table)?;
        let layers = table.layers(&self.path);
        let ours = layers.iter().position(|layer| layer.device == device);
        if ours.is_some_and(|place| layers[place].parent == dead.id) {
            return Ok(());
        }
        if ours == Some(0) {
            attach::detach(&self.path)?;
        }
        Err(MountError::Claimed(self.path.clone()))
    }

    /// Takes away the dead mount that ours was put on. Not before ours is taken away.
    pub(super) fn clear(&self) -> Result<(), MountError> {
        let dead = match &self.under {
            Under::Directory { .. } => None,
            Under::Dead(dead) => Some((dead.id, dead.device)),
            Under::Unknown => lowest_dead(&self.path)?.map(|dead| (dead.id, dead.device)),
        };
        let table = MountTable::read().map_err(MountError::Table)?;
        match table.top(&self.path) {
            Some(top) if Some((top.id, top.device)) == dead => attach::detach(&self.path),
            _ => Ok(()),
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

/// Without root it is the set-uid helper that mounts, and it refuses what it cannot look into.
fn may_mount_over() -> bool {
    rustix::process::geteuid().is_root()
}

/// Finds the dead mount of ours that lies lowest, and detaches those that lie on it.
fn lowest_dead(path: &Path) -> Result<Option<Mounted>, MountError> {
    loop {
        let table = MountTable::read().map_err(MountError::Table)?;
        let mut layers = table.layers(path).into_iter();
        let Some(top) = layers.next().filter(|top| top.is_ours()) else { return Ok(None) };
        if is_alive(path) {
            return Err(MountError::AlreadyMounted(path.to_owned()));
        }
        if !layers.next().is_some_and(Mounted::is_ours) {
            return Ok(Some(top.clone()));
        }
        tracing::info!(path = %path.display(), "removing a mount whose process is dead");
        attach::detach(path)?;
    }
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
