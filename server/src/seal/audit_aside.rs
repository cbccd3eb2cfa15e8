use std::path::PathBuf;
use std::sync::Arc;

use secretfs_wire::Action;
use secretfs_wire::audit::{Actor, Event, Outcome};

use super::stopped::{StoppedError, StoppedManager};
use crate::app::now;
use crate::config::Config;
use crate::data_dir;
use crate::error::Cause;
use crate::manager::{Inside, OpenError};
use crate::store::AuditMark as _;

/// A log that was set aside.
#[derive(Debug)]
pub struct SetAside {
    /// What was wrong with it.
    pub reason: String,
    /// What is left of it: its files, and each chain as lines of JSON, as far as it can be read.
    pub files: Vec<PathBuf>,
}

/// Why no log was set aside.
#[derive(Debug, thiserror::Error)]
pub enum AuditAsideError {
    /// The seal cannot be opened.
    #[error(transparent)]
    Stopped(#[from] StoppedError),
    /// What the seal protects cannot be opened.
    #[error("cannot open the manager")]
    Open(#[source] OpenError),
    /// It is in order, and stays.
    #[error("the audit log is whole, and is gone on with")]
    Whole,
    /// It cannot be kept beside the new one.
    #[error("cannot set the audit log aside")]
    Keep(#[source] Cause),
    /// The new one cannot be begun.
    #[error("cannot begin an audit log")]
    Begin(#[source] Cause),
}

impl StoppedManager {
    /// Sets a broken audit log aside and begins another one, which says so. Only whoever opens the seal may
    /// decide that. A second attempt finishes one that was cut off.
    ///
    /// # Errors
    /// When the seal is not open, the log is whole, or files cannot be written.
    pub async fn set_audit_aside(self, config: &Config) -> Result<SetAside, AuditAsideError> {
        let keep = |cause: Cause| AuditAsideError::Keep(cause);
        let (directory, _, _, root) = self.into_opened()?;
        let root = Arc::new(root);
        let inside = Inside::open(config, &directory, &root).await.map_err(AuditAsideError::Open)?;
        let Some(reason) = inside.audit.examine(inside.authority.ca_bundle()).await else {
            inside.audit.close(Vec::new()).await.map_err(|error| AuditAsideError::Begin(error.into()))?;
            return Err(AuditAsideError::Whole);
        };
        let name = now().strftime("audit-%Y%m%dT%H%M%SZ").to_string();
        let create = |chain| data_dir::create_file(&directory.path().join(format!("{name}-{chain}.jsonl")));
        inside.audit.write_out(create).await.map_err(|error| keep(error.into()))?;
        let Inside { store, audit, .. } = inside;
        drop(audit);
        let files = directory.set_audit_aside(&name).map_err(|error| keep(error.into()))?;
        store.forget_audit_chain().await.map_err(|error| keep(error.into()))?;
        drop(store);
        let inside = Inside::open(config, &directory, &root).await.map_err(AuditAsideError::Open)?;
        let said = inside.audit.close(vec![begun(&reason)]).await;
        said.map_err(|error| AuditAsideError::Begin(error.into()))?;
        Ok(SetAside { reason, files })
    }
}

/// Whoever it was has no name: they opened the seal.
fn begun(reason: &str) -> Event {
    let mut event = Event::new(Action::AuditBegin, Outcome::Done, Actor::Manager);
    event.reason = Some(format!("by whoever opened the seal; the log before was set aside: {reason}"));
    event
}
