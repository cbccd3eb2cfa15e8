use std::fmt;
use std::time::Instant;

use super::auto::AutoSources;
use super::progress::UnlockProgress;
use super::slots::SealedRoot;
use super::unlocking::Unlocking;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::error::Cause;
use crate::keys::{RootKey, remote_keys};
use crate::manager::check;

/// A manager that does not run, and cannot be started meanwhile: for what only whoever opens its seal
/// may do. Each of these uses it up.
pub struct StoppedManager {
    directory: DataDir,
    sources: AutoSources,
    unlocking: Unlocking,
    root: Option<RootKey>,
}

/// Why the seal of a stopped manager was not opened. It stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum StoppedError {
    /// The data directory cannot be used, or a manager runs on it.
    #[error("cannot use the data directory")]
    DataDir(#[source] Cause),
    /// There is no seal, or a damaged one.
    #[error("cannot read the seal")]
    Seal(#[source] Cause),
    /// A key backend's settings cannot be used.
    #[error("cannot set up the key backends")]
    KeyBackend(#[source] Cause),
    /// Nothing has opened the seal.
    #[error("the seal is not open")]
    Sealed,
}

impl StoppedManager {
    /// Opens the seal, where that takes no operator, and keeps every manager off as long as this lives.
    ///
    /// # Errors
    /// When a manager runs on the directory, or the seal is damaged.
    pub async fn begin(config: &Config) -> Result<Self, StoppedError> {
        let directory =
            DataDir::open(&config.data_dir).map_err(|error| StoppedError::DataDir(error.into()))?;
        let remote = remote_keys(config).map_err(|error| StoppedError::KeyBackend(error.into()))?;
        let sources = AutoSources::new(config, remote);
        let sealed = super::read(&directory, &sources, |root| check(&directory, root))
            .map_err(|error| StoppedError::Seal(error.into()))?;
        let root = sources.open(&sealed, true).await.map(|(root, _)| root);
        Ok(Self { directory, sources, unlocking: Unlocking::new(sealed), root })
    }

    /// Takes a line with an unlock key or a share; an empty one only asks how far it is.
    pub fn give(&mut self, line: &str) -> UnlockProgress {
        if self.root.is_none() {
            match self.unlocking.give(line, Instant::now()) {
                Ok(root) => self.root = Some(root),
                Err(progress) => return progress,
            }
        }
        UnlockProgress { is_unlocked: true, ..self.unlocking.progress() }
    }

    /// The directory, what may open its seal, the seal, and the root key that was in it.
    pub(super) fn into_opened(self) -> Result<(DataDir, AutoSources, SealedRoot, RootKey), StoppedError> {
        let root = self.root.ok_or(StoppedError::Sealed)?;
        let sealed = self.unlocking.sealed().clone();
        Ok((self.directory, self.sources, sealed, root))
    }
}

impl fmt::Debug for StoppedManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoppedManager").field("is_open", &self.root.is_some()).finish_non_exhaustive()
    }
}
