//! Why opens fail: for `node status`, and in the log once, not once for each open.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::error::FsError;
use super::inode::Inode;

/// The reason why files cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The file that last met it.
    pub(crate) inode: Inode,
    /// The reason.
    pub(crate) error: FsError,
    /// Since when it is the reason.
    pub(crate) since: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Troubles {
    // A std mutex: taken only by opens that had to wait or failed, never across an await.
    last: Mutex<Option<Trouble>>,
}

impl Troubles {
    /// Keeps a failure, logs it if it is another than the last, and gives it back.
    pub(super) fn record(&self, inode: Inode, error: FsError) -> FsError {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some(trouble) if trouble.error == error => trouble.inode = inode,
            _ => {
                tracing::warn!(?inode, %error, "files cannot be opened");
                *last = Some(Trouble { inode, error: error.clone(), since: Timestamp::now() });
            }
        }
        error
    }

    /// The file could be opened. Ends the trouble of that file; another's goes on.
    pub(super) fn clear(&self, inode: Inode) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.take_if(|trouble| trouble.inode == inode || is_general(&trouble.error)).is_some() {
            tracing::info!(?inode, "files can be opened again");
        }
    }

    /// An open is on record again that had to wait for it. Ends the trouble of those that were not.
    pub(super) fn clear_audit(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.take_if(|trouble| matches!(trouble.error, FsError::NotAudited(_))).is_some() {
            tracing::info!("opens are on record again");
        }
    }

    pub(super) fn last(&self) -> Option<Trouble> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether one success shows that the trouble is over for all files.
const fn is_general(error: &FsError) -> bool {
    matches!(error, FsError::Unreachable(_) | FsError::TimedOut | FsError::Stale | FsError::CertificateEnded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceError;

    const A: Inode = Inode::from_u64(10);
    const B: Inode = Inode::from_u64(11);

    #[test]
    fn the_reason_is_kept_with_when_it_began() {
        let troubles = Troubles::default();
        troubles.record(A, FsError::TimedOut);
        let since = troubles.last().expect("trouble").since;
        troubles.record(B, FsError::TimedOut);
        assert_eq!(troubles.last(), Some(Trouble { inode: B, error: FsError::TimedOut, since }));
        troubles.clear(A);
        assert_eq!(troubles.last(), None, "the manager answers again");
    }

    #[test]
    fn a_success_elsewhere_does_not_end_what_is_wrong_with_one_file() {
        let troubles = Troubles::default();
        troubles.record(A, SourceError::Refused.into());
        troubles.clear(B);
        assert!(troubles.last().is_some());
        troubles.clear(A);
        assert_eq!(troubles.last(), None);
    }
}
