//! The sockets of a daemon: only its user opens them, and there is one daemon at each.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{BlockingRetryable as _, ConstantBuilder};

use super::HolderError;

/// What belongs to the node whose status socket is `node`: `node.sock` has `node-holder.sock` beside it.
pub(super) fn beside(node: &Path, name: &str) -> PathBuf {
    let stem = node.file_stem().unwrap_or_default().to_string_lossy();
    node.with_file_name(format!("{stem}-{name}"))
}

/// A listening socket that is removed when this is dropped.
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`, in place of a socket that nobody listens at any more. The workers of a daemon
    /// that was killed a moment ago still hold theirs until they are gone too.
    pub(super) fn bind(path: &Path) -> Result<Self, HolderError> {
        let bind = || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            if UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
            Ok(Self { listener, path: path.to_owned() })
        };
        let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let bound = bind.retry(until_gone()).when(is_taken).call();
        bound.map_err(|source| HolderError::Socket { path: path.to_owned(), source })
    }
}

fn until_gone() -> ConstantBuilder {
    ConstantBuilder::default().with_delay(Duration::from_millis(20)).with_max_times(100)
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_its_users_and_refuses_a_second_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/node.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let HolderError::Socket { source, .. } = Socket::bind(&path).err().unwrap() else {
            panic!("another error");
        };
        assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn the_rest_of_a_daemon_that_was_killed_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        let left = UnixListener::bind(&path).unwrap();
        let ended = std::thread::spawn(move || {
            // Whoever comes next has found it taken.
            left.accept().map(|_| drop(left))
        });
        Socket::bind(&path).unwrap();
        ended.join().unwrap().unwrap();
    }

    #[test]
    fn a_socket_that_nobody_answers_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        // A listener that is gone without having removed its file, as after a kill -9.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Socket::bind(&path).unwrap();
    }
}
