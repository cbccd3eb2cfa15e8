//! What the file system says of each open, and to whom.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::source::ValueRequest;

/// Who asks, as the kernel says with each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The user that files are opened as.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// The id of the thread, in the process namespace of who mounted. 0 of one that is not in it.
    pub(crate) pid: u32,
}

/// An open that is decided and not answered yet.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    /// The number of the kernel's request. It is always even.
    pub(crate) request: u64,
    /// Whether the request was sent before, to a worker that was killed.
    pub(crate) repeated: bool,
    /// Who asks.
    pub(crate) caller: Caller,
    /// What for.
    pub(crate) file: &'a ValueRequest,
    /// Why it fails, if it does.
    pub(crate) failure: Option<String>,
    /// How long the answer may be kept back.
    pub(crate) patience: Duration,
}

/// What became of a record.
pub(crate) enum Recorded {
    /// It is written: the open may be answered.
    Written,
    /// It is written, and has arrived where it must, when this ends. It does so by itself, at the latest
    /// a little after the attempt's patience; must be polled in a tokio runtime and to its end.
    Pending(BoxFuture<'static, Result<(), NotAudited>>),
}

/// Why a file that requires its opens to be on record is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAudited {
    /// It has to be on record at the manager, and nobody can say that it is.
    #[error("the manager did not acknowledge in time that the open is on record, which this file requires")]
    Unacknowledged,
    /// A record would not say who it was.
    #[error("it was not found out in time which program it is, which this file requires to be on record")]
    Unidentified,
}

/// Keeps a record of opens. The production one writes to memory that outlives the worker; tests have
/// their own.
pub(crate) trait Auditor: Send + Sync + 'static {
    /// Records an open, or that it fails. Never blocks.
    fn record(&self, attempt: Attempt<'_>) -> Recorded;
}

/// Keeps no record.
#[cfg(feature = "unaudited")]
#[derive(Debug)]
pub(crate) struct Unaudited;

#[cfg(feature = "unaudited")]
impl Auditor for Unaudited {
    fn record(&self, _: Attempt<'_>) -> Recorded {
        Recorded::Written
    }
}
