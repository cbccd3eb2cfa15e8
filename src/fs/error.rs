//! What can go wrong for a program that uses the file system, and the number it is told.

use rustix::io::Errno;

use crate::audit::NotAudited;
use crate::source::SourceError;

/// Why the file system refuses. Displays no value and no part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FsError {
    /// There is nothing, or nothing that this node was given: both look the same.
    #[error("there is no such file")]
    NotFound,
    /// A file was used as a directory.
    #[error("it is not a directory")]
    NotADirectory,
    /// A directory was used as a file.
    #[error("it is a directory")]
    IsADirectory,
    /// Something would have been changed.
    #[error("the file system is read-only for everybody")]
    ReadOnly,
    /// The manifest promises the value, yet the manager does not give it to this node.
    #[error("the manager denies it: {0}")]
    Denied(SourceError),
    /// The value is not in the cache and the manager cannot be asked.
    #[error("nothing is cached and {0}")]
    Unreachable(SourceError),
    /// What the manager sent does not fit its manifest.
    #[error("{0}")]
    Inconsistent(SourceError),
    /// What came cannot be made into the file that a template says.
    #[error("{0}")]
    Unrendered(SourceError),
    /// Nothing came before the deadline of the request.
    #[error("nothing is cached and no answer came before the deadline")]
    TimedOut,
    /// The manager has been silent for longer than a last known good value may be used.
    #[error("the manager has not been heard from for longer than a cached value may be used")]
    Stale,
    /// A handle of a former process whose version is no longer to be had.
    #[error("the version that this handle was opened on is gone")]
    HandleLost,
    /// The service of an open file was taken from this node, or the node may serve nothing any more.
    #[error("the service is no longer assigned to this node")]
    Revoked,
    /// The node's certificate has ended: nobody can tell this node any more that it was revoked.
    #[error("the node's certificate has ended and is not renewed: nothing is served")]
    CertificateEnded,
    /// The value came and could not be kept.
    #[error("{0}")]
    NoRoom(SourceError),
    /// The open must be on record before it succeeds, and is not.
    #[error("{0}")]
    NotAudited(NotAudited),
    /// No more can be kept of what is open.
    #[error("too many files are open in this file system")]
    TooManyOpenFiles,
    /// There is no such extended attribute.
    #[error("there is no such extended attribute")]
    NoAttribute,
}

impl FsError {
    /// The number that the program sees in `errno`.
    pub(crate) const fn errno(&self) -> Errno {
        match self {
            Self::NotFound => Errno::NOENT,
            Self::NotADirectory => Errno::NOTDIR,
            Self::IsADirectory => Errno::ISDIR,
            Self::ReadOnly => Errno::ROFS,
            Self::Denied(_) | Self::Revoked => Errno::ACCESS,
            // One number for all that an operator must look into: `node status` has the reason, and
            // a program can do nothing better with ESTALE or ETIMEDOUT, which many never expect.
            Self::Unreachable(_)
            | Self::Inconsistent(_)
            | Self::Unrendered(_)
            | Self::TimedOut
            | Self::Stale
            | Self::CertificateEnded
            | Self::NotAudited(_)
            | Self::HandleLost => Errno::IO,
            Self::NoRoom(_) => Errno::NOMEM,
            Self::TooManyOpenFiles => Errno::NFILE,
            Self::NoAttribute => Errno::NODATA,
        }
    }
}

impl From<SourceError> for FsError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Refused => Self::Denied(error),
            // Whoever asks again after `Superseded` does so before it comes to this.
            SourceError::Unreachable(_) | SourceError::Superseded => Self::Unreachable(error),
            SourceError::Inconsistent(_) => Self::Inconsistent(error),
            SourceError::Unrendered { .. } => Self::Unrendered(error),
            SourceError::NoRoom => Self::NoRoom(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_number() {
        let text = || "connection refused".to_owned();
        for (error, errno) in [
            (FsError::NotFound, Errno::NOENT),
            (FsError::NotADirectory, Errno::NOTDIR),
            (FsError::IsADirectory, Errno::ISDIR),
            (FsError::ReadOnly, Errno::ROFS),
            (SourceError::Refused.into(), Errno::ACCESS),
            (SourceError::Unreachable(text()).into(), Errno::IO),
            (SourceError::Superseded.into(), Errno::IO),
            (SourceError::Inconsistent(text()).into(), Errno::IO),
            (SourceError::Unrendered { entry: text(), reason: text() }.into(), Errno::IO),
            (FsError::TimedOut, Errno::IO),
            (FsError::Stale, Errno::IO),
            (FsError::Revoked, Errno::ACCESS),
            (FsError::CertificateEnded, Errno::IO),
            (FsError::HandleLost, Errno::IO),
            (FsError::NotAudited(NotAudited::Unacknowledged), Errno::IO),
            (FsError::NotAudited(NotAudited::Unidentified), Errno::IO),
            (SourceError::NoRoom.into(), Errno::NOMEM),
            (FsError::TooManyOpenFiles, Errno::NFILE),
            (FsError::NoAttribute, Errno::NODATA),
        ] {
            assert_eq!(error.errno(), errno, "{error}");
        }
    }
}
