use std::fmt;
use std::time::Instant;

use super::auto::AutoSources;
use super::making::{self, Made};
use super::plan::{SealPlan, UnlockMeans};
use super::progress::UnlockProgress;
use super::slots::SealedRoot;
use super::unlocking::Unlocking;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::error::Cause;
use crate::keys::{RootKey, remote_keys};
use crate::manager::check;

/// A stopped manager whose seal is replaced by another. The root key stays the same; what opens the old
/// seal does not open the new one.
pub struct Rekey {
    directory: DataDir,
    sources: AutoSources,
    unlocking: Unlocking,
    root: Option<RootKey>,
}

/// A seal that was made for a stopped manager.
pub struct NewSeal {
    directory: DataDir,
    sources: AutoSources,
    before: SealedRoot,
    made: Made,
}

/// Why a seal was not replaced. The old one holds.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    /// The data directory cannot be used, or a manager runs on it.
    #[error("cannot use the data directory")]
    DataDir(#[source] Cause),
    /// There is no seal, or a damaged one.
    #[error("cannot read the seal")]
    Seal(#[source] Cause),
    /// Nothing has opened the old seal.
    #[error("the seal is not open")]
    Sealed,
    /// The new seal cannot be made or written.
    #[error("cannot seal the root key anew")]
    Make(#[source] Cause),
}

impl Rekey {
    /// Opens the old seal, where that takes no operator, and keeps every manager off meanwhile.
    ///
    /// # Errors
    /// When a manager runs on the directory, or the seal is damaged.
    pub async fn begin(config: &Config) -> Result<Self, RekeyError> {
        let directory = DataDir::open(&config.data_dir).map_err(|error| RekeyError::DataDir(error.into()))?;
        let remote = remote_keys(config).map_err(|error| RekeyError::Make(error.into()))?;
        let sources = AutoSources::new(config, remote);
        let sealed = super::read(&directory, &sources, |root| check(&directory, root))
            .map_err(|error| RekeyError::Seal(error.into()))?;
        let root = sources.open(&sealed, true).await;
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

    /// Makes the new seal, which is not in the place of the old one yet.
    ///
    /// # Errors
    /// When the old one is not open, or the new one cannot be made.
    pub async fn make(self, plan: &SealPlan) -> Result<NewSeal, RekeyError> {
        let root = self.root.ok_or(RekeyError::Sealed)?;
        let before = self.unlocking.sealed().clone();
        let made = making::make(&root, plan, Some(&before), &self.sources)
            .await
            .map_err(|error| RekeyError::Make(error.into()))?;
        Ok(NewSeal { directory: self.directory, sources: self.sources, before, made })
    }
}

impl NewSeal {
    /// What will unlock the manager: to be shown before it is all that does.
    pub fn means(&self) -> &UnlockMeans {
        self.made.means()
    }

    /// Puts the new seal in the place of the old one.
    ///
    /// # Errors
    /// When it cannot be written. The old one holds then.
    pub fn keep(self) -> Result<(), RekeyError> {
        let kept = self.made.replace(&self.before, &self.directory, &self.sources);
        kept.map_err(|error| RekeyError::Make(error.into()))
    }
}

impl fmt::Debug for NewSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSeal").field("means", self.means()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Rekey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rekey").field("is_open", &self.root.is_some()).finish_non_exhaustive()
    }
}
