//! A worker that waits for its turn.

use std::os::unix::net::UnixListener;

use secretfs_wire::manifest::RawManifest;
use tokio::runtime::Runtime;

use super::WorkerError;
use crate::fuse::{Connection, PreparedRefusal};
use crate::handover::{Activation, Sequence};
use crate::node::Prepared;

/// What a worker will do when its turn comes.
pub(super) enum Standby {
    /// Serve.
    Serve(Box<Prepared>),
    /// Answer every request with an error: better than not at all.
    Refuse(Vec<PreparedRefusal>),
}

impl Standby {
    /// Learns of a manifest.
    pub(super) fn learn(&mut self, sequence: Sequence, manifest: RawManifest) {
        if let Self::Serve(prepared) = self {
            prepared.learn(sequence, manifest);
        }
    }

    /// Learns that the kernel has been told of a manifest.
    pub(super) fn announced(&mut self, sequence: Sequence) {
        if let Self::Serve(prepared) = self {
            prepared.announced(sequence);
        }
    }

    /// Takes its turn.
    pub(super) fn activate(
        self,
        connections: &[Connection],
        activation: Activation,
        listener: UnixListener,
        runtime: &Runtime,
    ) -> Result<(), WorkerError> {
        match self {
            Self::Refuse(refusals) => {
                let mut both = refusals.into_iter().zip(connections);
                both.try_for_each(|(refusal, connection)| refusal.refuse(connection))
                    .map_err(WorkerError::Start)
            }
            Self::Serve(prepared) => {
                let active = prepared.activate(connections, activation)?;
                let _in_runtime = runtime.enter();
                let listener = listener
                    .set_nonblocking(true)
                    .and_then(|()| tokio::net::UnixListener::from_std(listener))
                    .map_err(WorkerError::Start)?;
                runtime.spawn(active.run(listener));
                Ok(())
            }
        }
    }
}
