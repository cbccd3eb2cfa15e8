//! What a worker gives to its holder, for those who come after it.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use secretfs_wire::manifest::RawManifest;

use super::channel::Channel;
use super::document;
use super::message::{FromWorker, Sequence};
use crate::client::Credentials;

/// A worker's way to its holder.
///
/// Nothing here fails towards the caller: a holder that is gone takes its workers with it.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(Arc<Channel>);

impl Outbox {
    /// The way through `channel`.
    pub(crate) const fn new(channel: Arc<Channel>) -> Self {
        Self(channel)
    }

    /// Says something.
    pub(crate) fn send(&self, message: &FromWorker) {
        if let Err(error) = self.0.send(message, &[]) {
            tracing::error!(%error, "the holder does not hear");
        }
    }

    /// Hands a manifest over. Call it before anybody is shown what the manifest says: then no worker
    /// after this one shows anything older.
    pub(crate) fn manifest(&self, sequence: Sequence, manifest: &RawManifest) {
        let sent = document::write("secretfs-manifest", manifest)
            .map_err(|error| error.to_string())
            .and_then(|memory| {
                let message = FromWorker::Manifest(sequence);
                self.0.send(&message, &[memory.as_fd()]).map_err(|error| error.to_string())
            });
        if let Err(error) = sent {
            tracing::error!(error, "the manifest is not handed over");
        }
    }

    /// Something to drop when the kernel has been told of all that a manifest changed.
    pub(crate) fn announcement(&self, sequence: Sequence) -> Announcement {
        Announcement(Arc::new(Announced { outbox: self.clone(), sequence }))
    }

    /// Hands renewed credentials over, to be kept.
    pub(crate) fn renewed(&self, credentials: &Credentials) {
        let Credentials { certificate, key, .. } = credentials;
        self.send(&FromWorker::Renewed { certificate: certificate.clone(), key: key.clone() });
    }
}

/// Says that a manifest is announced, when the last copy is dropped. A worker that is killed before
/// leaves the announcing to the next.
#[derive(Debug, Clone)]
pub(crate) struct Announcement(#[allow(dead_code, reason = "it matters when it is dropped")] Arc<Announced>);

#[derive(Debug)]
struct Announced {
    outbox: Outbox,
    sequence: Sequence,
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.outbox.send(&FromWorker::Announced(self.sequence));
    }
}
