//! What is asked of the file system and answered, beside attributes and bytes.

use futures::future::BoxFuture;

use super::error::FsError;
use super::handles::Handle;

/// An answer to an open.
pub(crate) enum Opening {
    /// The value is here.
    Ready(Handle),
    /// The value must be fetched. Ends by itself, at the latest with the deadline; must be polled
    /// in a tokio runtime and to its end, or else the handle is never released.
    Wait(BoxFuture<'static, Result<Handle, FsError>>),
}

/// What an open asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// `O_RDONLY`.
    Read,
    /// Anything else.
    Write,
}

/// What there is to poll for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The handle reads the current version.
    Current,
    /// The file has another version now, or is gone: open it again.
    Changed,
}

/// Whether whoever takes directory entries has room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// This entry did not fit any more.
    Yes,
    /// Go on.
    No,
}
