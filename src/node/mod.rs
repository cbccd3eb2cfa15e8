//! The node daemon: what it is, whom it follows and what it mounts.

mod config;
mod daemon;
mod follow;
mod identity;
mod join;
mod renewal;
mod source;
mod status;

pub(crate) use config::{Config, MountConfig, RawConfig};
pub(crate) use daemon::Daemon;
#[cfg(feature = "manager")]
pub(crate) use identity::NodeIdentity;
pub(crate) use identity::{StateDirectory, StateError};
pub(crate) use join::{JoinError, JoinOptions, join};
pub(crate) use status::{NodeStatus, ask as ask_status};
