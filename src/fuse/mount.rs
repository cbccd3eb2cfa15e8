//! A mount of the file system, from its beginning to its end.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::UnmountFlags;

use super::attach::{self, Attached, Audience, Superblock};
use super::connection::Connection;
use super::device::Device;
use super::error::MountError;
use super::mount_point::MountPoint;
use super::mount_table::{MountTable, Mounted};

/// How long unmounting waits for open files to be closed before it leaves them to themselves.
const GRACE: Duration = Duration::from_millis(500);

/// A file system that is mounted. Dropping it unmounts it.
///
/// The mount says nothing about who answers: requests wait until somebody serves its connection.
#[derive(Debug)]
pub(crate) struct Mount {
    point: MountPoint,
    connection: Connection,
    /// The device of the mount that is ours to take away, until it is.
    device: Option<Device>,
    superblock: Superblock,
}

impl Mount {
    /// Mounts on an empty directory, read-only for all who see it. A mount of a dead process is mounted over, so that
    /// those who receive what is mounted on it are served again.
    ///
    /// # Errors
    /// Each says what is missing and what to do about it.
    pub(crate) fn new(path: &Path, audience: Audience, superblock: Superblock) -> Result<Self, MountError> {
        let point = MountPoint::claim(path)?;
        let Attached { connection, device, superblock } = point.attach(audience, superblock)?;
        match Connection::begin(connection) {
            Ok(connection) => {
                tracing::info!(path = %point.path.display(), "mounted");
                Ok(Self { point, connection, device: Some(device), superblock })
            }
            Err(error) => {
                attach::detach(&point.path)?;
                Err(MountError::Start(error))
            }
        }
    }

    /// A mount that another process has made and left.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there any more.
    pub(crate) fn inherited(path: PathBuf, connection: Connection, device: Device) -> io::Result<Self> {
        let table = MountTable::read()?;
        let top = table.top(&path).filter(|top| top.device == device);
        let Some(top) = top.filter(|_| !connection.ends_within(Duration::ZERO)) else {
            let reason = format!("{} is not mounted", path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        };
        let superblock = top.superblock;
        Ok(Self { point: MountPoint::inherited(path), connection, device: Some(device), superblock })
    }

    /// Ends the connection of a mount that nobody serves any more, for all who have it. What is left
    /// is a dead mount at most.
    pub(crate) fn abort(path: &Path) {
        let Ok(path) = path.canonicalize() else { return };
        let is_ours = MountTable::read().is_ok_and(|table| table.top(&path).is_some_and(Mounted::is_ours));
        if is_ours {
            // Refused where somebody has it open, after the connection has been ended.
            let _ = rustix::mount::unmount(&path, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.point.path
    }

    /// The device that it is, unless it has been taken away.
    pub(crate) const fn device(&self) -> Option<Device> {
        self.device
    }

    /// Whether it is where it was mounted: somebody else may have taken it away.
    pub(crate) fn is_in_place(&self, table: &MountTable) -> bool {
        let layers = table.layers(&self.point.path);
        self.device.is_some_and(|device| layers.iter().any(|layer| layer.device == device))
    }

    /// Another mount of it, for the notifier, at no place. While it is there the file system stays.
    ///
    /// # Errors
    /// When the superblock is read-only, or the kernel older than Linux 5.15.
    pub(crate) fn again(&self) -> io::Result<OwnedFd> {
        match self.superblock {
            Superblock::Writable => attach::mount_again(self.connection.as_fd()),
            Superblock::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    /// The kernel's side.
    pub(crate) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Unmounts. Files that are open stay readable for as long as somebody serves the connection.
    ///
    /// # Errors
    /// When it is still mounted.
    pub(crate) fn unmount(mut self) -> Result<(), MountError> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<(), MountError> {
        let Some(device) = self.device.take() else { return Ok(()) };
        let path = &self.point.path;
        // Somebody may have unmounted ours and mounted something else. As long as our connection has
        // not ended its device number is not another's.
        let table = MountTable::read().map_err(MountError::Table)?;
        let ended = self.connection.ends_within(Duration::ZERO);
        if ended || table.top(path).is_none_or(|top| top.device != device) {
            tracing::warn!(path = %path.display(), "somebody else has unmounted it");
            return self.point.clear();
        }
        attach::detach(path)?;
        self.point.clear()?;
        if self.connection.ends_within(GRACE) {
            tracing::info!(path = %path.display(), "unmounted");
        } else {
            tracing::info!(path = %path.display(), "unmounted; some files are still open");
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            tracing::warn!(error = &error as &dyn std::error::Error, "not unmounted");
        }
    }
}
