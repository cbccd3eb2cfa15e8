//! The seal: the root key stands nowhere in clear, and what it opens stays shut until somebody gives
//! an unlock key, or something does that this manager was told to ask.
//!
//! `root.sealed` holds the root key several times, in [`slots`], each wrapped in another way; any one
//! opens it. The operators' slot is always there. From outside to inside: [`socket`] is where a running
//! manager hears of keys, [`unlocking`] counts what it is given, [`shares`] and [`unlock_key`] are what
//! people hold, [`auto`] is what opens without them.

mod audit_aside;
mod auto;
mod conversion;
mod key_file;
mod making;
mod plan;
mod progress;
mod recovery;
mod rekey;
mod shares;
mod slots;
mod socket;
mod stopped;
mod text;
mod unlock_key;
mod unlocking;

pub(crate) use auto::AutoSources;
#[cfg(test)]
pub(crate) use conversion::in_clear;
pub(crate) use conversion::read;
pub(crate) use making::make;
pub(crate) use slots::SealedRoot;
pub(crate) use socket::{Confirmation, UnlockSocket};
pub(crate) use unlocking::Unlocking;

pub use audit_aside::{AuditAsideError, SetAside};
pub use plan::{AutoUnlock, InvalidSplit, SealPlan, Split, UnlockMeans};
pub use progress::{Refusal, UnlockProgress};
pub use recovery::RecoveryError;
pub use rekey::{NewSeal, RekeyError};
pub use socket::{UnlockClient, UnlockClientError};
pub use stopped::{StoppedError, StoppedManager};
