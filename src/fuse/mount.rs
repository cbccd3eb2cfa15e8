//! A mount of the file system, from its beginning to its end.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use tokio::runtime::Handle as Runtime;

use super::adapter::Adapter;
use super::attach::{self, Attached, Audience};
use super::device::Device;
use super::error::MountError;
use super::mount_point::MountPoint;
use super::mount_table::MountTable;
use super::notices::Notices;
use super::pollers::Pollers;
use crate::fs::{Change, FileSystem};

/// How long unmounting waits for open files to be closed before it leaves them to themselves.
const GRACE: Duration = Duration::from_millis(500);

/// A file system that is mounted. Dropping it unmounts it.
pub(crate) struct Mount {
    point: MountPoint,
    /// The device of the mount that is ours to take away, until it is.
    device: Option<Device>,
    notices: Notices,
    pollers: Arc<Pollers>,
    /// Disconnected when the last request has been answered. The std mutex makes a mount shareable;
    /// it is held for a look.
    served: Mutex<Receiver<()>>,
}

impl Mount {
    /// Mounts `fs` on an empty directory, read-only, and serves it from a thread of its own.
    ///
    /// Opens that have to wait do so on `runtime`. A mount of a dead process is mounted over, so that
    /// those who receive what is mounted on it are served again.
    ///
    /// # Errors
    /// Each says what is missing and what to do about it.
    pub(crate) fn new(
        path: &Path,
        fs: Arc<FileSystem>,
        audience: Audience,
        runtime: &Runtime,
    ) -> Result<Self, MountError> {
        let point = MountPoint::claim(path)?;
        let Attached { connection, device } = point.attach(audience)?;
        let serve = || {
            let pollers = Arc::new(Pollers::default());
            let adapter = Adapter { fs, runtime: runtime.clone(), pollers: pollers.clone() };
            let session = Session::from_fd(adapter, connection, acl(audience), config())?;
            let notices = Notices::start(session.notifier(), pollers.clone())?;
            Ok((notices, pollers, start(session)?))
        };
        match serve() {
            Ok((notices, pollers, served)) => {
                tracing::info!(path = %point.path.display(), "mounted");
                Ok(Self { point, device: Some(device), notices, pollers, served: Mutex::new(served) })
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

    /// Has the kernel forget what has changed and wakes who polls it. Does not wait for either.
    pub(crate) fn apply(&self, changes: Vec<Change>) {
        self.notices.send(changes);
    }

    /// How many open files are polled, for `node status`.
    pub(crate) fn polled(&self) -> usize {
        self.pollers.count()
    }

    /// Whether the kernel may still ask: until it is unmounted, by us or by somebody else, and the
    /// last open file is closed.
    pub(crate) fn is_served(&self) -> bool {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.try_recv() == Err(TryRecvError::Empty)
    }

    /// Unmounts. Files that are open stay readable until they are closed or the process ends.
    ///
    /// # Errors
    /// When it is still mounted.
    pub(crate) fn unmount(mut self) -> Result<(), MountError> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<(), MountError> {
        let Some(device) = self.device.take() else { return Ok(()) };
        let path = &self.point.path;
        // Somebody may have unmounted ours and mounted something else. As long as ours is served its
        // device number is not another's.
        let table = MountTable::read().map_err(MountError::Table)?;
        if !self.is_served() || table.top(path).is_none_or(|top| top.device != device) {
            tracing::warn!(path = %path.display(), "somebody else has unmounted it");
            return self.point.clear();
        }
        attach::detach(path)?;
        self.point.clear()?;
        let served = self.served.get_mut().unwrap_or_else(PoisonError::into_inner);
        match served.recv_timeout(GRACE) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::info!(path = %path.display(), "unmounted; some files are still open");
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                tracing::info!(path = %path.display(), "unmounted");
            }
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

/// Serves requests on a thread until the kernel has no more. The receiver is disconnected then.
fn start(session: Session<Adapter>) -> io::Result<Receiver<()>> {
    let (sender, served) = mpsc::channel();
    let run = move || {
        if let Err(error) = session.run() {
            tracing::error!(%error, "the file system is no longer served");
        }
        drop(sender);
    };
    thread::Builder::new().name("secretfs-fuse".to_owned()).spawn(run)?;
    Ok(served)
}

/// One thread answers: an answer takes a microsecond and comes from memory, so that a second thread
/// costs more in wake-ups than it brings. What has to wait does so elsewhere.
fn config() -> Config {
    let mut config = Config::default();
    config.n_threads = Some(1);
    config
}

/// The library checks again what the kernel has checked.
const fn acl(audience: Audience) -> SessionACL {
    match audience {
        Audience::Everyone => SessionACL::All,
        Audience::OnlyMe => SessionACL::Owner,
    }
}
