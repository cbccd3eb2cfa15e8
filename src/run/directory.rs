//! What a directory of secrets presents: names and versions. No file is read here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fgetxattr, fstat, fstatfs, getxattr, openat, statat,
};
use rustix::io::Errno;

/// The number of the version that an open would get.
const VERSION: &str = "user.secretfs.version";
/// There while the node does not know whether what it presents is current.
const STALE_SINCE: &str = "user.secretfs.stale_since";

/// The regular files of a directory, each with what tells two versions of it apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot(BTreeMap<OsString, Identity>);

/// What tells two versions of a file apart, and whether it is for the same readers. The number of the
/// version is not enough: another secret under the same name may have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    /// Nothing where we may not ask, or on another file system.
    version: Option<Vec<u8>>,
    inode: u64,
    size: i64,
    modified: (i64, u64),
    mode: u32,
    owner: (u32, u32),
}

impl Snapshot {
    /// The names of the files that are in one of two snapshots only, or not the same in both.
    pub(super) fn differences(&self, other: &Self) -> BTreeSet<OsString> {
        let names = self.0.keys().chain(other.0.keys());
        names.filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }

    pub(super) fn contains(&self, name: &OsStr) -> bool {
        self.0.contains_key(name)
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, u64)]) -> Self {
        let identity =
            |inode| Identity { version: None, inode, size: 0, modified: (0, 0), mode: 0, owner: (0, 0) };
        Self(files.iter().map(|(name, inode)| ((*name).into(), identity(*inode))).collect())
    }
}

/// A directory that is followed, or for as long as it is not there, the one above it.
pub(super) struct Place {
    directory: OwnedFd,
    path: PathBuf,
    /// Whether it is the directory itself.
    pub(super) present: bool,
    /// The file system that it is on. No other one has the number while this is held.
    pub(super) device: u64,
    /// Whether that is a FUSE file system.
    pub(super) fuse: bool,
    /// Whether the node that presents it did not know whether it was current, when it was opened. What is
    /// listed after that is at least as new.
    pub(super) stale: bool,
}

impl Place {
    /// Opens the directory, or where there is none, the one above.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let directory = Self::open_directory(path, true);
        if !directory.as_ref().is_err_and(missing) {
            return directory;
        }
        let above = Self::open_directory(path.parent().unwrap_or(Path::new("/")), false)?;
        // Once more, since `above.stale` is of after the first look: the node may just have heard.
        let directory = Self::open_directory(path, true);
        if directory.as_ref().is_err_and(missing) { Ok(above) } else { directory }
    }

    fn open_directory(path: &Path, present: bool) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())?;
        let device = fstat(&directory)?.st_dev;
        let fuse = fstatfs(&directory)?.f_type == libc::FUSE_SUPER_MAGIC;
        let stale = fgetxattr(&directory, STALE_SINCE, &mut [0; 64][..]).is_ok();
        Ok(Self { directory, path: path.to_owned(), present, device, fuse, stale })
    }

    /// What to watch for changes of names.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the regular files.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        if !self.present {
            return Ok(Vec::new());
        }
        let listed = || {
            Dir::read_from(&self.directory)?
                .map(|entry| {
                    entry.map(|entry| {
                        (entry.file_type(), OsStr::from_bytes(entry.file_name().to_bytes()).to_owned())
                    })
                })
                .collect::<Result<Vec<_>, Errno>>()
        };
        match listed() {
            Ok(entries) => Ok(entries
                .into_iter()
                .filter(|(kind, _)| !matches!(kind, FileType::Directory))
                .map(|(_, name)| name)
                .collect()),
            // The directory is open, and what it showed was taken away.
            Err(Errno::NOENT | Errno::STALE) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file of it, to be polled and never read.
    pub(super) fn open_file(&self, name: &OsStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        openat(&self.directory, name, flags, Mode::empty())
    }

    /// What these files are now. Those that are gone, and what is no file, is left out.
    pub(super) fn snapshot(&self, names: &[OsString]) -> io::Result<Snapshot> {
        let mut files = BTreeMap::new();
        for name in names {
            let stat = match statat(&self.directory, name, AtFlags::empty()) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::STALE) => continue,
                Err(error) => return Err(error.into()),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                let version = self.version(name)?;
                files.insert(name.clone(), Identity::new(&stat, version));
            }
        }
        Ok(Snapshot(files))
    }

    fn version(&self, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        let mut version = [0; 32];
        match getxattr(self.path.join(name), VERSION, &mut version[..]) {
            Ok(length) => Ok(version.get(..length).map(<[u8]>::to_vec)),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Identity {
    fn new(stat: &Stat, version: Option<Vec<u8>>) -> Self {
        Self {
            version,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
        }
    }
}

/// Whether an open file is the one that a name stands for.
pub(super) fn is_same_file(place: &Place, name: &OsStr, file: impl AsFd) -> bool {
    let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
    match (fstat(file), statat(&place.directory, name, AtFlags::empty())) {
        (Ok(open), Ok(named)) => identity(open) == identity(named),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn look(path: &Path) -> Snapshot {
        let place = Place::open(path).unwrap();
        place.snapshot(&place.names().unwrap()).unwrap()
    }

    #[test]
    fn files_are_told_apart_by_name_and_version() {
        let area = tempfile::tempdir().unwrap();
        fs::create_dir(area.path().join("directory")).unwrap();
        fs::write(area.path().join("a"), "one").unwrap();
        fs::write(area.path().join("b"), "one").unwrap();
        let before = look(area.path());
        assert!(before.contains("a".as_ref()) && !before.contains("directory".as_ref()));
        assert!(before.differences(&look(area.path())).is_empty());
        fs::write(area.path().join("a"), "longer").unwrap();
        fs::remove_file(area.path().join("b")).unwrap();
        fs::write(area.path().join("c"), "new").unwrap();
        let differences: Vec<_> = before.differences(&look(area.path())).into_iter().collect();
        assert_eq!(differences, ["a", "b", "c"]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_empty_and_the_one_above_is_watched() {
        let area = tempfile::tempdir().unwrap();
        let place = Place::open(&area.path().join("web")).unwrap();
        assert!(!place.present && !place.fuse);
        assert_eq!(place.path(), area.path());
        assert_eq!(place.names().unwrap(), Vec::<OsString>::new());
    }
}
