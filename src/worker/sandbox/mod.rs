//! What a worker gives up before it has anything worth stealing.
//!
//! First root, then the file system and the network but for what it needs to find and reach one
//! manager, and last all system calls that serving does not take. Each step holds for this thread and
//! for those that it starts, so that all of it comes before the first of them.

mod landlock;
mod privileges;
mod seccomp;

use rustix::io::Errno;

pub(super) use self::privileges::drop_privileges;

/// Why a worker is not confined. It does not serve then.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    /// It could not become the user that it should be.
    #[error("cannot become an unprivileged user")]
    User(#[source] nix::errno::Errno),
    /// It could not give its privileges up.
    #[error("cannot give capabilities up")]
    Capabilities(#[source] Errno),
    /// The kernel has Landlock and does not take the rules.
    #[error("cannot restrict files and network")]
    Landlock(#[source] ::landlock::RulesetError),
    /// The kernel does not take the filter.
    #[error("cannot restrict system calls")]
    Seccomp(#[source] seccompiler::Error),
    /// There is no list of system calls for this machine.
    #[error("there is no list of system calls for {0}")]
    Architecture(&'static str),
}

/// Confines this thread and all that it will start. `manager_port` is the one TCP port, beside DNS,
/// that it may connect to.
pub(super) fn enter(manager_port: Option<u16>) -> Result<(), SandboxError> {
    rustix::thread::set_no_new_privs(true).map_err(SandboxError::Capabilities)?;
    landlock::restrict(manager_port)?;
    seccomp::restrict()
}
