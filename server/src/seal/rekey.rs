use std::fmt;
use std::sync::Arc;

use secretfs_wire::Action;
use secretfs_wire::audit::{Actor, Event, Outcome};

use super::auto::AutoSources;
use super::making::{self, Made};
use super::plan::{SealPlan, UnlockMeans};
use super::slots::SealedRoot;
use super::stopped::{StoppedError, StoppedManager};
use crate::audit::{Audit, Durability};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::error::Cause;
use crate::manager::{Inside, OpenError};

/// A seal that was made for a stopped manager.
pub struct NewSeal {
    directory: DataDir,
    sources: AutoSources,
    before: SealedRoot,
    made: Made,
    audit: Audit,
}

/// Why a seal was not replaced. The old one holds, unless the error says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    /// The old seal cannot be opened.
    #[error(transparent)]
    Stopped(#[from] StoppedError),
    /// What the seal protects cannot be opened.
    #[error("cannot open the manager")]
    Open(#[source] OpenError),
    /// The new seal cannot be made or written.
    #[error("cannot seal the root key anew")]
    Make(#[source] Cause),
    /// It cannot be put on record, and so is not done.
    #[error("cannot write the audit log")]
    Audit(#[source] Cause),
    /// It was replaced, and that is not on record.
    #[error("the root key is sealed anew, and the audit log cannot say so")]
    Unrecorded(#[source] Cause),
}

impl StoppedManager {
    /// Makes another seal, which is not in the place of the old one yet. The root key stays the same; what
    /// opens the old seal does not open the new one.
    ///
    /// # Errors
    /// When the old one is not open, or the new one cannot be made.
    pub async fn seal_anew(self, config: &Config, plan: &SealPlan) -> Result<NewSeal, RekeyError> {
        let (directory, sources, before, root) = self.into_opened()?;
        let made = making::make(&root, plan, Some(&before), &sources)
            .await
            .map_err(|error| RekeyError::Make(error.into()))?;
        let inside = Inside::open(config, &directory, &Arc::new(root)).await.map_err(RekeyError::Open)?;
        Ok(NewSeal { directory, sources, before, made, audit: inside.audit })
    }
}

impl NewSeal {
    /// What will unlock the manager: to be shown before it is all that does.
    pub fn means(&self) -> &UnlockMeans {
        self.made.means()
    }

    /// Puts the new seal in the place of the old one, and that on record.
    ///
    /// # Errors
    /// When it cannot be recorded or written. The old one holds then, unless only the end is not on record.
    pub async fn keep(self) -> Result<(), RekeyError> {
        let begun = rekeyed(Outcome::Begun).into();
        let recorded = self.audit.record(vec![begun], Durability::Power).await;
        recorded.map_err(|error| RekeyError::Audit(error.into()))?;
        let kept = self.made.replace(&self.before, &self.directory, &self.sources);
        let outcome = if kept.is_ok() { Outcome::Done } else { Outcome::Failed };
        let recorded = self.audit.close(vec![rekeyed(outcome)]).await;
        kept.map_err(|error| RekeyError::Make(error.into()))?;
        recorded.map_err(|error| RekeyError::Unrecorded(error.into()))
    }
}

/// Whoever it was has no name: they opened the seal.
fn rekeyed(outcome: Outcome) -> Event {
    let mut event = Event::new(Action::ManagerRekey, outcome, Actor::Manager);
    event.reason = Some("by whoever opened the seal".to_owned());
    event
}

impl fmt::Debug for NewSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSeal").field("means", self.means()).finish_non_exhaustive()
    }
}
