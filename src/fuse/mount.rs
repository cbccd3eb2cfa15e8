//! A mount of the file system, from its beginning to its end.

use std::path::Path;
use std::time::Duration;

use super::attach::{self, Audience};
use super::connection::Connection;
use super::error::MountError;
use super::mount_point::MountPoint;
use super::mount_table::Mounted;

/// How long unmounting waits for open files to be closed before it leaves them to themselves.
const GRACE: Duration = Duration::from_millis(500);

/// A file system that is mounted. Dropping it unmounts it.
///
/// The mount says nothing about who answers: requests wait until somebody serves its connection.
#[derive(Debug)]
pub(crate) struct Mount {
    point: MountPoint,
    connection: Connection,
    /// The device number of the mount that is ours to take away, until it is.
    device: Option<String>,
}

impl Mount {
    /// Mounts on an empty directory, read-only. A mount of a dead process is removed first.
    ///
    /// # Errors
    /// Each says what is missing and what to do about it.
    pub(crate) fn new(path: &Path, audience: Audience) -> Result<Self, MountError> {
        let point = MountPoint::claim(path)?;
        let device = attach::attach(&point.path, audience)?;
        match Connection::begin(device) {
            Ok(connection) => {
                let top = Mounted::at(&point.path).map_err(MountError::Table)?;
                tracing::info!(path = %point.path.display(), "mounted");
                Ok(Self { point, connection, device: top.map(|top| top.device) })
            }
            Err(error) => {
                attach::detach(&point.path)?;
                Err(MountError::Start(error))
            }
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.point.path
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
        let top = Mounted::at(path).map_err(MountError::Table)?;
        if self.connection.ends_within(Duration::ZERO) || top.is_none_or(|top| top.device != device) {
            tracing::warn!(path = %path.display(), "somebody else has unmounted it");
            return Ok(());
        }
        attach::detach(path)?;
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
