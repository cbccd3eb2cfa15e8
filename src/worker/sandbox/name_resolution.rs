//! What the C library needs to resolve the manager's name from inside the sandbox.
//!
//! It reads a few files again whenever they change, so these stay readable. Modules that
//! nsswitch.conf(5) names are loaded before, so that no memory has to be executable later.
//! Not from inside: names that only a daemon behind a Unix socket knows, such as mDNS. Its module
//! answers that it is not available, and the next one is asked. `nss-resolve` then leaves it to DNS.

use std::fs;
use std::net::ToSocketAddrs as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Read again by glibc when they have changed. /etc/host.conf is read once, by [`load`]; /etc/services
/// is not needed for a port that is a number, nor /etc/passwd, nor a library's directory.
const FILES: [&str; 4] = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf"];

/// No label of a name is that long (RFC 1035), so that every module is loaded and asked for it, and
/// none asks the network.
const NO_NAME: &str = "a-label-of-more-than-sixty-three-characters-that-no-server-is-asked-for.invalid";

/// Has the C library load all that it resolves names with.
pub(super) fn load() {
    // That it is not found is the point.
    let _ = (NO_NAME, 0).to_socket_addrs();
}

/// The files by which names are resolved, as they were when the sandbox was made.
#[derive(Debug)]
pub(super) struct ResolverFiles {
    files: Vec<(&'static Path, Option<Identity>)>,
    /// Where the real resolv.conf is, when it has a directory to itself.
    directory: Option<PathBuf>,
}

/// Device and inode number: a rule of Landlock is about the file and not about its name.
type Identity = (u64, u64);

impl ResolverFiles {
    pub(super) fn find() -> Self {
        let files = FILES.map(|path| (Path::new(path), identity(Path::new(path))));
        Self { files: files.to_vec(), directory: resolver_directory() }
    }

    /// What has to be readable.
    pub(super) fn readable(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| *path).chain(self.directory.as_deref())
    }

    /// One that is another file now, outside the directory.
    pub(super) fn replaced(&self) -> Option<&Path> {
        let replaced = |(path, before): &&(&Path, Option<Identity>)| {
            let now = identity(path);
            now.is_some() && now != *before && !self.is_in_directory(path)
        };
        self.files.iter().find(replaced).map(|(path, _)| *path)
    }

    fn is_in_directory(&self, path: &Path) -> bool {
        let real = fs::canonicalize(path);
        self.directory.as_ref().is_some_and(|directory| real.is_ok_and(|real| real.starts_with(directory)))
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The directory below /run in which systemd-resolved, NetworkManager or resolvconf replaces the real
/// resolv.conf. A rule for it holds for the next file too. /etc itself would be too much to allow.
fn resolver_directory() -> Option<PathBuf> {
    let real = fs::canonicalize("/etc/resolv.conf").ok()?;
    let directory = real.parent()?;
    let below = directory.strip_prefix("/run").ok()?;
    (below != Path::new("")).then(|| directory.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_is_told_and_others_are_not() {
        let hosts = Path::new("/etc/hosts");
        let found = ResolverFiles::find();
        assert_eq!(found.replaced(), None);

        let older = found.files.iter().map(|&(path, now)| (path, if path == hosts { None } else { now }));
        let files = ResolverFiles { files: older.collect(), directory: None };
        assert_eq!(files.replaced(), Some(hosts));
        let files = ResolverFiles { directory: Some("/etc".into()), ..files };
        assert_eq!(files.replaced(), None);
    }
}
