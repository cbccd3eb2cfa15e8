//! Opening a file: its value is here or has to be fetched, its version is pinned, and what comes of it is on
//! record before the program is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use secretfs_wire::VersionId;
use secretfs_wire::audit::AuditMode;

use super::answer::{Access, Opening};
use super::tree::File;
use super::{FileSystem, FsError, Handle, Inode, RequestId};
use crate::audit::{Attempt, Caller, NotAudited, Recorded};
use crate::cache::Value;
use crate::source::SourceError;

/// An open that is being answered.
#[derive(Debug, Clone, Copy)]
struct Opener {
    request: RequestId,
    caller: Caller,
    /// How long its answer may take.
    patience: Duration,
}

impl FileSystem {
    /// Opens a file: pins its current version.
    ///
    /// What a killed worker may have done for the same request is undone first. What comes of it is on
    /// record before it is answered.
    pub(crate) fn open(
        self: &Arc<Self>,
        inode: Inode,
        access: Access,
        request: RequestId,
        caller: Caller,
    ) -> Result<Opening, FsError> {
        self.handles.undo(request);
        let tree = self.tree.load();
        // Of what is not there there is nothing to record but a number.
        let file = tree.file(inode)?;
        let opener = Opener { request, caller, patience: self.deadline };
        let opened = match access {
            Access::Read => self.open_warm(file, request),
            Access::Write => Err(FsError::ReadOnly),
        };
        let Some(opened) = opened.transpose() else {
            return Ok(Opening::Wait(self.clone().open_cold(file.clone(), opener).boxed()));
        };
        match self.record(file, &opened, opener) {
            Recorded::Written => opened.map(Opening::Ready),
            Recorded::Pending(recorded) => {
                let (fs, file) = (self.clone(), file.clone());
                Ok(Opening::Wait(async move { fs.settle(&file, opened, recorded.await) }.boxed()))
            }
        }
    }

    /// Opens a file whose value is here.
    fn open_warm(&self, file: &File, request: RequestId) -> Result<Option<Handle>, FsError> {
        let opened = self.freshness.check().and_then(|()| match self.cache.get_ready(&file.request) {
            Some(value) => self.pin(file, value, request),
            None => Ok(None),
        });
        opened.map_err(|error| self.troubles.record(file.attributes.inode, error))
    }

    async fn open_cold(self: Arc<Self>, mut file: Arc<File>, opener: Opener) -> Result<Handle, FsError> {
        let (inode, began) = (file.attributes.inode, Instant::now());
        let opened = tokio::time::timeout(self.deadline, self.fetch(&mut file, opener.request)).await;
        let opened = opened.unwrap_or(Err(FsError::TimedOut)).map_err(|error| match error {
            // Removed while it was waited for, which is no trouble.
            FsError::NotFound => FsError::NotFound,
            error => self.troubles.record(inode, error),
        });
        let patience = self.deadline.saturating_sub(began.elapsed());
        let recorded = match self.record(&file, &opened, Opener { patience, ..opener }) {
            Recorded::Written => Ok(()),
            Recorded::Pending(recorded) => recorded.await,
        };
        self.settle(&file, opened, recorded).inspect(|_| self.troubles.clear(inode))
    }

    fn record(&self, file: &File, opened: &Result<Handle, FsError>, opener: Opener) -> Recorded {
        let Opener { request: RequestId { number, repeated }, caller, patience } = opener;
        let failure = opened.as_ref().err().map(ToString::to_string);
        self.auditor.record(Attempt {
            request: number,
            repeated,
            caller,
            file: &file.request,
            failure,
            patience,
        })
    }

    /// What comes of an open when it is known what came of its record.
    fn settle(
        &self,
        file: &File,
        opened: Result<Handle, FsError>,
        recorded: Result<(), NotAudited>,
    ) -> Result<Handle, FsError> {
        let handle = opened?;
        match recorded {
            Ok(()) => {
                if file.request.details.audit == AuditMode::Required {
                    self.troubles.clear_audit();
                }
                Ok(handle)
            }
            Err(error) => {
                let inode = file.attributes.inode;
                self.handles.release(inode, handle);
                Err(self.troubles.record(inode, FsError::NotAudited(error)))
            }
        }
    }

    /// Fetches until what came is what the tree names, and pins it: then `file` is what is opened. Bounded
    /// by the deadline of the caller.
    async fn fetch(&self, file: &mut Arc<File>, request: RequestId) -> Result<Handle, FsError> {
        let inode = file.attributes.inode;
        let mut replaced = self.replaced.subscribe();
        loop {
            self.freshness.check()?;
            *file = self.tree.load().file(inode)?.clone();
            match self.cache.get(file.request.clone()).await {
                Ok(value) => {
                    if let Some(handle) = self.pin(file, value, request)? {
                        return Ok(handle);
                    }
                    // Rotated or removed on the way: the tree says which.
                }
                // The manager is ahead of our tree, which a failed sender could not replace either.
                Err(SourceError::Superseded) => {
                    replaced.changed().await.map_err(|_| FsError::NotFound)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_current(&self, file: &File) -> bool {
        self.current(file.attributes.inode) == Some(file.request.details.version_id)
    }

    /// The version that an open would get now.
    pub(super) fn current(&self, inode: Inode) -> Option<VersionId> {
        self.tree.load().version(inode)
    }

    /// Opens a file on a version, unless that has been replaced or taken away meanwhile.
    ///
    /// Looked at when the open file is there: a change from then on finds it among the open files, and
    /// one before is seen. So no open file is ever left out when some are revoked, and none is opened
    /// on an old version once an update is over.
    fn pin(&self, file: &File, value: Arc<Value>, request: RequestId) -> Result<Option<Handle>, FsError> {
        let inode = file.attributes.inode;
        let version = file.request.details.version_id;
        let handle = self.handles.pin(inode, file.directory, version, value, request)?;
        if self.is_current(file) && !self.freshness.is_certificate_ended() {
            return Ok(Some(handle));
        }
        self.handles.release(inode, handle);
        Ok(None)
    }
}
