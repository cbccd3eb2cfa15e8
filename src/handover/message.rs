//! The messages between holder and worker: JSON, one in a packet, with descriptors beside it.

use std::path::PathBuf;
use std::time::Duration;

use secretfs_wire::ServiceName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::fuse::{Agreement, Inotify};

/// The format of everything that holder and worker share: these messages, and the layout of the
/// memory. Both sides name theirs before anything else is read, and refuse what they cannot read.
pub(crate) const FORMAT: u32 = 2;

/// The place of a manifest in the order in which one daemon got them, over all its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Sequence(pub(crate) u64);

/// The first message of a holder, as much of it as every version reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// The holder's [`FORMAT`].
    pub(crate) format: u32,
}

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Duty {
    /// To serve.
    Serve,
    /// To answer every request with an error, while no other worker lives long enough to answer.
    Refuse,
}

/// The first message, with these descriptors in order: the ledger; the listening status socket; the
/// files of the node's identity (see [`crate::node::IdentityFiles`]); each mount's connection; the
/// arena, if there is one; the stage and the queue of the notifier, if there is one; and last the memory
/// of records of opens and the way to the witness, if there are those.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Begin {
    /// The holder's [`FORMAT`]; see [`Opening`].
    pub(crate) format: u32,
    /// What this worker is for.
    pub(crate) duty: Duty,
    /// As whom it serves. `None`: as whom it was started.
    pub(crate) user: Option<User>,
    /// How values are served.
    pub(crate) config: ServeConfig,
    /// What is mounted, in the order of the connections.
    pub(crate) mounts: Vec<MountToServe>,
    /// Whether there is an arena among the descriptors.
    pub(crate) arena: bool,
    /// Whether a notifier's are among the descriptors. A holder that does not say so has none.
    #[serde(default)]
    pub(crate) notifier: bool,
    /// Whether those by which opens are recorded are. A holder that does not say so has none.
    #[serde(default)]
    pub(crate) audit: bool,
}

/// An unprivileged user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// The user id.
    pub(crate) uid: u32,
    /// The group id.
    pub(crate) gid: u32,
}

/// How values are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServeConfig {
    /// How long a read may wait for the manager.
    pub(crate) deadline: Duration,
    /// How long values are served while the manager is away.
    pub(crate) max_stale: Duration,
    /// How many bytes of values are kept in memory.
    pub(crate) cache_bytes: usize,
    /// How many bytes of records of opens are kept until the manager has them.
    #[serde(default = "default_audit_bytes")]
    pub(crate) audit_bytes: usize,
    /// Whether to serve although memory cannot be locked. Only to try things out.
    pub(crate) unlocked: bool,
    /// Whether no open is recorded. Only to measure what that costs.
    #[cfg(feature = "unaudited")]
    #[serde(default)]
    pub(crate) unaudited: bool,
}

const fn default_audit_bytes() -> usize {
    crate::audit::DEFAULT_BYTES
}

/// A mount as its worker knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MountToServe {
    /// Where it is mounted.
    pub(crate) path: PathBuf,
    /// The one service at its root, or all.
    pub(crate) service: Option<ServiceName>,
    /// How its connection began.
    pub(crate) agreement: Agreement,
    /// What watchers are told.
    #[serde(default)]
    pub(crate) inotify: Inotify,
}

/// What a worker is told when its turn comes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Activation {
    /// How many workers there were before it.
    pub(crate) predecessors: u64,
}

/// What a holder says to a worker, after [`Begin`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromHolder {
    /// A manifest that a former worker got, in the memory that comes with this message.
    Manifest(Sequence),
    /// The kernel has been told of all changes up to this manifest.
    Announced(Sequence),
    /// Serve.
    Activate(Activation),
}

/// What a worker says to its holder. Not `Debug`: one message has a key.
#[derive(Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// It can be activated at any time.
    Ready {
        /// Its version.
        version: String,
        /// Its [`FORMAT`].
        format: u32,
    },
    /// It cannot serve; it ends.
    Failed {
        /// Why.
        reason: String,
    },
    /// It serves.
    Serving,
    /// A manifest, in the memory that comes with this message. Sent before it is shown to anybody.
    Manifest(Sequence),
    /// The kernel has been told of all changes up to this manifest.
    Announced(Sequence),
    /// The node's renewed certificate and its key, PEM, to be kept.
    Renewed {
        /// The certificate.
        certificate: String,
        /// Its private key.
        key: Zeroizing<String>,
    },
}
