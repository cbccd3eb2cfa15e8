//! Why a dead mount was left as it is.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::fuse::device::Device;

/// One step of a repair that could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum RepairError {
    /// This process cannot visit other namespaces.
    #[error("the repairing process cannot leave its mount namespace")]
    Home(#[source] io::Error),
    /// /proc cannot be read.
    #[error("the list of processes cannot be read; /proc must be mounted")]
    Processes(#[source] io::Error),
    /// The kernel's list of mounts cannot be read.
    #[error("the mount table cannot be read")]
    Table(#[source] io::Error),
    /// A process is there but hides its namespace.
    #[error("the mount namespace of process {pid} cannot be looked at")]
    Hidden {
        /// The process.
        pid: u32,
        /// What the system says.
        source: Errno,
    },
    /// The new mount cannot be opened.
    #[error("{path} cannot be opened")]
    Unopened {
        /// The mount point.
        path: PathBuf,
        /// What the system says.
        source: Errno,
    },
    /// There is nothing to repair with.
    #[error("{0} has no secretfs that is alive")]
    NotMounted(PathBuf),
    /// It calls itself ours, and there is no record of it.
    #[error("it calls itself a secretfs, and device {0} was never ours")]
    Strange(Device),
    /// The connection belongs to somebody else.
    #[error("the FUSE connection of device {0} is not root's")]
    NotRoots(Device),
    /// The file was removed while it was bound.
    #[error("what was mounted there has been removed")]
    Removed,
    /// The new mount does not have it.
    #[error("{path} is not there to replace it")]
    NoSource {
        /// What would replace it.
        path: PathBuf,
        /// What the system says.
        source: Errno,
    },
    /// The new mount's file cannot be bound.
    #[error("{path} cannot be bound")]
    Unbound {
        /// What would replace it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel does not let us in.
    #[error("the mount namespace cannot be entered")]
    Refused(#[source] io::Error),
    /// The place leads elsewhere, or through a file system that would have to be asked.
    #[error("its mount point cannot be resolved without asking another file system")]
    Unresolved(#[source] Errno),
    /// Something else is there now.
    #[error("another mount is there now")]
    Changed,
    /// A forged mount, or one of another node.
    #[error("inode {found} is mounted there, and not {expected}")]
    Inode {
        /// Of what would replace it.
        expected: u64,
        /// Of what is mounted.
        found: u64,
    },
    /// Another daemon has the number now.
    #[error("it is alive or does not answer")]
    Alive,
    /// It would take other mounts with it.
    #[error("something is mounted inside it")]
    Inside,
    /// The kernel does not let us mount there.
    #[error("nothing can be mounted there")]
    Unattached(#[source] Errno),
    /// The dead mount cannot be taken away.
    #[error("the dead mount cannot be detached")]
    Undetached(#[source] Errno),
}
