use std::fmt;

use super::auto::AutoSources;
use super::making::{self, Made};
use super::plan::{SealPlan, UnlockMeans};
use super::progress::UnlockProgress;
use super::slots::SealedRoot;
use super::stopped::{StoppedError, StoppedManager};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::error::Cause;

/// A stopped manager whose seal is replaced by another. The root key stays the same; what opens the old
/// seal does not open the new one.
#[derive(Debug)]
pub struct Rekey(StoppedManager);

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
    /// The old seal cannot be opened.
    #[error(transparent)]
    Stopped(#[from] StoppedError),
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
        Ok(Self(StoppedManager::begin(config).await?))
    }

    /// Takes a line with an unlock key or a share; an empty one only asks how far it is.
    pub fn give(&mut self, line: &str) -> UnlockProgress {
        self.0.give(line)
    }

    /// Makes the new seal, which is not in the place of the old one yet.
    ///
    /// # Errors
    /// When the old one is not open, or the new one cannot be made.
    pub async fn make(self, plan: &SealPlan) -> Result<NewSeal, RekeyError> {
        let (directory, sources, before, root) = self.0.into_opened()?;
        let made = making::make(&root, plan, Some(&before), &sources)
            .await
            .map_err(|error| RekeyError::Make(error.into()))?;
        Ok(NewSeal { directory, sources, before, made })
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
