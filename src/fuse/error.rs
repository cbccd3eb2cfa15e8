//! Why a mount cannot be made or taken down, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// The mount point cannot be used.
    #[error("{path} cannot be mounted on; create the directory and see that it can be read")]
    Unusable {
        /// The mount point.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The mount point is a file.
    #[error("{0} is not a directory; choose a directory to mount on")]
    NotADirectory(PathBuf),
    /// Mounting would hide files.
    #[error("{0} is not empty and mounting would hide what is in it; choose an empty directory")]
    NotEmpty(PathBuf),
    /// Another secretfs serves this directory.
    #[error("{0} already has a secretfs that is alive; stop that one or choose another directory")]
    AlreadyMounted(PathBuf),
    /// Another secretfs has this directory and is about to mount, or has just stopped.
    #[error("{0} is in use by another secretfs process; stop that one or choose another directory")]
    Claimed(PathBuf),
    /// There is no FUSE here.
    #[error(
        "/dev/fuse cannot be opened; load the fuse module, let this user open it, \
         or give the container --device /dev/fuse"
    )]
    NoDevice(#[source] io::Error),
    /// Neither may we mount nor is there the helper that may.
    #[error("mounting needs root (CAP_SYS_ADMIN) or the fusermount3 program; install the fuse3 package")]
    NoFusermount(#[source] io::Error),
    /// The helper does not let others see the mount.
    #[error(
        "other users may see the mount only if /etc/fuse.conf has a line user_allow_other; \
         add it, run as root, or mount for yourself alone"
    )]
    OthersNotAllowed,
    /// The helper says no.
    #[error("fusermount3 refused: {0}")]
    Fusermount(String),
    /// The kernel says no.
    #[error("the kernel refused to mount on {path}")]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// It was mounted, but it could not be served.
    #[error("the mounted file system could not be started")]
    Start(#[source] io::Error),
    /// The kernel's list of mounts cannot be read.
    #[error("/proc/self/mountinfo cannot be read; /proc must be mounted")]
    Table(#[source] io::Error),
    /// It is still mounted.
    #[error("{path} could not be unmounted; try `umount --lazy` on it")]
    StillMounted {
        /// The mount point.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
