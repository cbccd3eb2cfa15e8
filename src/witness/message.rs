//! What is asked of the witness, and what it tells.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Who is this?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// Comes back with the answer.
    pub(crate) id: u64,
    /// The id of a thread, in the process namespace of the daemon.
    pub(crate) pid: u32,
}

/// An answer, with the two descriptors of a [`Token`](super::Token) if it may be remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The question's.
    pub(crate) id: u64,
    /// The question's.
    pub(crate) pid: u32,
    /// Nothing of a process that is not there.
    pub(crate) identity: Option<Identity>,
}

/// What the kernel tells of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its id. The thread that was asked about may have another one.
    pub(crate) pid: u32,
    /// When it was started, to 10 ms.
    pub(crate) started: Option<Timestamp>,
    /// The path of its program, in its own mount namespace. Ends in ` (deleted)` if it is gone; what is
    /// not UTF-8 is escaped.
    pub(crate) executable: Option<String>,
    /// The path of its control group.
    pub(crate) cgroup: Option<String>,
    /// The id of its container.
    pub(crate) container: Option<String>,
}
