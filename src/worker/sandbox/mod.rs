//! What a worker gives up before it reads a byte from outside, so that whoever takes it over has the
//! values of this node and nothing else of the machine.
//!
//! - [`privileges`]: from root to an unprivileged user
//! - [`capabilities`]: none of root's powers but that of locking memory
//! - [`landlock`]: no file but those by which names are resolved; TCP to the manager only
//! - [`seccomp`] with [`system_calls`]: the calls that a worker makes, and no other

mod enforced;
mod landlock;
mod name_resolution;
mod privileges;
mod system_calls;
#[cfg(test)]
mod tests;

use std::path::Path;

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

pub(crate) use enforced::Enforced;
use name_resolution::ResolverFiles;
pub(super) use privileges::drop_privileges;

use crate::host::confinement::{capabilities, seccomp};

/// What could not be given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// It could not become the user that it should be.
    #[error("cannot become an unprivileged user")]
    User(#[source] nix::errno::Errno),
    /// A program that the worker executes could have more rights than the worker.
    #[error("cannot give up new privileges")]
    NewPrivileges(#[source] Errno),
    /// Capabilities stay.
    #[error("cannot drop capabilities")]
    Capabilities(#[source] Errno),
    /// The kernel has Landlock and refuses the rules.
    #[error("cannot restrict files and ports")]
    Landlock(#[from] ::landlock::RulesetError),
    /// The kernel has seccomp and refuses the filters.
    #[error("cannot restrict system calls")]
    Seccomp(#[from] seccompiler::Error),
}

/// A sandbox for a worker, not entered yet.
#[derive(Debug)]
pub(crate) struct Sandbox {
    manager_port: Option<u16>,
    resolver_files: ResolverFiles,
}

impl Sandbox {
    /// A sandbox from which one port can be reached, at whatever address; or none, beside that of DNS.
    pub(crate) fn new(manager_port: Option<u16>) -> Self {
        Self { manager_port, resolver_files: ResolverFiles::find() }
    }

    /// Enters the sandbox, for good. Descriptors that are open stay as they are.
    ///
    /// It holds for the calling thread and for the threads that this one starts from now on. So call
    /// it on the main thread before there is another one, and after [`harden`](crate::host::harden),
    /// which it would refuse.
    ///
    /// What this kernel does not have is left out, and the result says so.
    ///
    /// # Errors
    /// When the kernel has the means and refuses them. The worker must not go on then.
    pub(crate) fn enter(&self) -> Result<Enforced, SandboxError> {
        name_resolution::load();
        rustix::thread::set_no_new_privs(true).map_err(SandboxError::NewPrivileges)?;
        // Without it, a worker that was started with it could not start a thread: the stack would be
        // more than it may lock.
        let locks_memory =
            capabilities::keep_only(CapabilitySet::IPC_LOCK).map_err(SandboxError::Capabilities)?;
        let landlock = landlock::enter(self.resolver_files.readable(), self.manager_port)?;
        let seccomp = seccomp::enter(system_calls::ALLOWED)?;
        Ok(Enforced { landlock, seccomp, locks_memory })
    }

    /// A file by which names are resolved and that somebody has replaced by another one, which the
    /// sandbox does not let the worker read. A fresh worker reads it.
    pub(crate) fn outdated(&self) -> Option<&Path> {
        self.resolver_files.replaced()
    }
}
