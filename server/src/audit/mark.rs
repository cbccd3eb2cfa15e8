//! How far the log was signed, kept apart from it. A signed checkpoint can be taken out of the log's database
//! together with what it is about, and then nothing there says that it ever was; this says so.
//!
//! It is sealed under the root key, so that nobody makes one who has only the disk. Whoever has kept an older
//! one can put that back, with a log that is as old.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use secretfs_wire::audit::Checkpoint;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::data_dir::{self, AUDIT_MARK};
use crate::error::chain as causes;
use crate::keys::{KeyError, RootKey};

const LABEL: &str = "secretfs audit mark v1";
const NAME: &str = "signed";

/// Why it is not known how far the log was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MarkError {
    #[error("its mark cannot be read or written")]
    File(#[source] io::Error),
    #[error("its mark cannot be sealed or opened")]
    Seal(#[source] KeyError),
    #[error("its mark holds no checkpoint")]
    Content,
}

/// Where it is kept.
pub(crate) struct SignedMark {
    root: Arc<RootKey>,
    place: Place,
}

enum Place {
    Directory(PathBuf),
    Memory(Mutex<Option<Vec<u8>>>),
}

impl SignedMark {
    /// In a file of a data directory.
    pub(crate) fn in_directory(directory: PathBuf, root: Arc<RootKey>) -> Self {
        Self { root, place: Place::Directory(directory) }
    }

    /// Gone when this is dropped.
    pub(crate) fn in_memory(root: Arc<RootKey>) -> Self {
        Self { root, place: Place::Memory(Mutex::default()) }
    }

    /// The last checkpoint that was kept; none in a manager that is new.
    pub(super) fn read(&self) -> Result<Option<Checkpoint>, MarkError> {
        let sealed = match &self.place {
            Place::Directory(directory) => {
                data_dir::present(fs::read(directory.join(AUDIT_MARK))).map_err(MarkError::File)?
            }
            Place::Memory(sealed) => sealed.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let Some(sealed) = sealed else { return Ok(None) };
        let text = self.root.open(LABEL, NAME, &sealed).map_err(MarkError::Seal)?;
        serde_json::from_slice(&text).map_err(|_| MarkError::Content).map(Some)
    }

    /// Keeps this one from now on. Once this returns, it survives a power cut.
    pub(super) fn write(&self, checkpoint: &Checkpoint) -> Result<(), MarkError> {
        let text = serde_json::to_vec(checkpoint).map_err(|_| MarkError::Content)?;
        let sealed = self.root.seal(LABEL, NAME, &text).map_err(MarkError::Seal)?;
        match &self.place {
            Place::Directory(directory) => {
                data_dir::replace(directory, AUDIT_MARK, &sealed).map_err(MarkError::File)
            }
            Place::Memory(kept) => {
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(sealed);
                Ok(())
            }
        }
    }
}

/// Keeps what is signed beside the work, which need not wait for another file on the disk.
pub(super) struct Marking {
    newest: watch::Sender<Option<Checkpoint>>,
    task: JoinHandle<()>,
}

impl Marking {
    pub(super) fn begin(mark: Arc<SignedMark>) -> Self {
        let (newest, signed) = watch::channel(None);
        Self { newest, task: tokio::spawn(keep(mark, signed)) }
    }

    /// This was signed, and is in the log.
    pub(super) fn signed(&self, checkpoint: Checkpoint) {
        self.newest.send_replace(Some(checkpoint));
    }

    /// Returns when the last one is kept.
    pub(super) async fn end(self) {
        drop(self.newest);
        let _ = self.task.await;
    }
}

/// Keeps the newest one each time, until there are no more.
async fn keep(mark: Arc<SignedMark>, mut signed: watch::Receiver<Option<Checkpoint>>) {
    let mut is_failing = false;
    while signed.changed().await.is_ok() {
        let Some(checkpoint) = signed.borrow_and_update().clone() else { continue };
        let mark = Arc::clone(&mark);
        let kept = spawn_blocking(move || mark.write(&checkpoint)).await;
        match kept {
            Ok(Ok(())) => is_failing = false,
            // The one before stays, and says less.
            Ok(Err(error)) if !is_failing => {
                tracing::error!(cause = causes(&error), "it is not kept how far the audit log is signed");
                is_failing = true;
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
