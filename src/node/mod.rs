//! The node daemon: what it is, whom it follows and what it mounts.

mod audit;
mod chance;
mod config;
mod expiry;
mod facts;
mod follow;
mod identity;
mod ingredients;
mod join;
mod patience;
mod prepared;
mod preparing;
mod presence;
mod renewal;
mod source;
mod status;
mod usage;

pub(crate) use config::{Config, MountConfig, RawConfig};
pub(crate) use identity::{IdentityFiles, NodeIdentity, StateDirectory, StateError};
pub(crate) use join::{JoinError, JoinOptions, JoinOutcome, join};
pub(crate) use prepared::{Parts, PrepareError, Prepared, ToNotifier};
pub(crate) use status::{AuditStatus, MountStatus, NodeStatus, ask as ask_status};
