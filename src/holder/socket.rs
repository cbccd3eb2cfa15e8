//! The sockets of a daemon: only its user opens them, and there is one daemon at each.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

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
    /// Listens at `path`, in place of a socket that nobody listens at any more.
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
        bind().map_err(|source| HolderError::Socket { path: path.to_owned(), source })
    }
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
    fn a_socket_that_nobody_answers_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        // A listener that is gone without having removed its file, as after a kill -9.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Socket::bind(&path).unwrap();
    }
}
