//! Where values come from: the seam between the cache and the network.

use futures::future::BoxFuture;
use secretfs_wire::manifest::Target;
use secretfs_wire::{SecretBytes, ServiceName, TargetName};

/// One value, as the manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ValueRequest {
    /// The service.
    pub(crate) service: ServiceName,
    /// The target in that service.
    pub(crate) target: TargetName,
    /// What the manifest says of it; a value that disagrees is refused.
    pub(crate) details: Target,
}

/// Why a value was not had. Displays no value and no part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    /// No answer, or none in time.
    #[error("the manager is unreachable: {0}")]
    Unreachable(String),
    /// The manager knows a newer version; the manifest that names it is on its way.
    #[error("the version is no longer current")]
    Superseded,
    /// The manager does not give this value to this node (any more).
    #[error("the manager does not serve this value to this node")]
    Refused,
    /// What came is not what the manifest promised.
    #[error("the manager's answer does not fit its manifest: {0}")]
    Inconsistent(String),
    /// Of what a template is made from, something cannot stand in a file.
    #[error("template {entry} cannot be rendered: {reason}")]
    Unrendered {
        /// Service and target.
        entry: String,
        /// Why.
        reason: String,
    },
    /// It came, and there is no memory for it.
    #[error("open files hold all the memory that there is for values")]
    NoRoom,
}

/// Gives values. The production source asks the manager over HTTP/2; tests have their own.
pub(crate) trait SecretSource: Send + Sync + 'static {
    /// Fetches one value of an attached secret.
    ///
    /// The future must end by itself, also when the manager hangs: whoever implements this bounds
    /// the wait.
    fn fetch(&self, request: ValueRequest) -> BoxFuture<'static, Result<SecretBytes, SourceError>>;
}
