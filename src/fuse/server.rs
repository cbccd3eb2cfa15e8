//! Serving a mounted file system: prepared while another process serves, and taken over at once.

use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle as Runtime;

use super::adapter::Adapter;
use super::connection::{Agreement, Connection};
use super::events::{Announced, Inotify, Newcomers, Stage, Watched};
use super::journal::Journal;
use super::notices::Notices;
use super::resume::{Serving, Standby};
use crate::fs::{Change, FileSystem};

/// A file system that is ready to be served, and is not yet.
pub(crate) struct PreparedServer {
    standby: Standby,
    fs: Arc<FileSystem>,
    watched: Option<Watched>,
    newcomers: Arc<Newcomers>,
}

/// A file system that is served, until the process ends.
pub(crate) struct Server {
    notices: Notices,
    /// Unless watchers are told nothing.
    newcomers: Option<Arc<Newcomers>>,
    /// Disconnected when the last request has been answered. The std mutex makes a server shareable;
    /// it is held for a look.
    ended: Mutex<Receiver<()>>,
}

impl PreparedServer {
    /// Prepares to serve `fs` over a connection that began with `agreement`. Opens that have to wait
    /// do so on `runtime`; requests under way are in `journal`; the notifier, if there is one, shows what
    /// it does on the stage.
    ///
    /// # Errors
    /// When the system has no thread or no socket left.
    pub(crate) fn new(
        agreement: Agreement,
        fs: Arc<FileSystem>,
        journal: Journal,
        runtime: &Runtime,
        watched: Option<(Watched, Stage)>,
    ) -> io::Result<Self> {
        let (watched, stage) = watched.unzip();
        let newcomers = Arc::new(Newcomers::default());
        let announced = stage.zip(watched.as_ref()).map(|(stage, Watched { mount, .. })| Announced {
            stage,
            mount: *mount,
            newcomers: newcomers.clone(),
        });
        let adapter = Adapter { fs: fs.clone(), journal, runtime: runtime.clone(), announced };
        Ok(Self { standby: Standby::prepare(agreement, adapter)?, fs, watched, newcomers })
    }

    /// Serves from now on. Nobody else may be serving this connection.
    ///
    /// # Errors
    /// When the connection is none, or the system has no thread left.
    pub(crate) fn serve(self, connection: &Connection) -> io::Result<Server> {
        let Serving { notifier, ended } = self.standby.serve(connection)?;
        let tells = self.watched.as_ref().is_some_and(|watched| watched.inotify != Inotify::Off);
        let newcomers = tells.then_some(self.newcomers);
        Ok(Server {
            newcomers,
            notices: Notices::start(notifier, self.fs, self.watched)?,
            ended: Mutex::new(ended),
        })
    }
}

impl Server {
    /// Has the kernel forget what has changed and wakes who polls it, and then drops `told`. Does not
    /// wait for either.
    pub(crate) fn apply(&self, changes: Vec<Change>, told: impl Send + 'static) {
        if let Some(newcomers) = &self.newcomers {
            newcomers.learn(&changes);
        }
        self.notices.send(changes, Box::new(told));
    }

    /// Whether the kernel may still ask: until it is unmounted, by us or by somebody else, and the
    /// last open file is closed.
    pub(crate) fn is_serving(&self) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.try_recv() == Err(TryRecvError::Empty)
    }
}
