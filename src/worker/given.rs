//! What a worker gets from its holder, unpacked.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use super::WorkerError;
use crate::audit::{Audit, Ring};
use crate::cache::{Arena, ValueCache};
use crate::fuse::{Connection, EventSender, Stage};
use crate::handover::{Begin, Channel, FORMAT, Ledger, Opening, Packet, ServeConfig};
use crate::host::shared_memory::Words;
use crate::node::{IdentityFiles, ToNotifier};

/// The first message, with its descriptors as what they are.
pub(super) struct Given {
    pub(super) begin: Begin,
    pub(super) ledger: Ledger,
    pub(super) listener: UnixListener,
    pub(super) identity: IdentityFiles,
    pub(super) connections: Vec<Connection>,
    pub(super) arena: Arc<Arena>,
    pub(super) notifier: Option<ToNotifier>,
    pub(super) audit: Arc<Audit>,
}

impl Given {
    /// Unpacks the message, whose format is looked at before anything else of it.
    pub(super) fn unpack(packet: Packet) -> Result<Self, WorkerError> {
        let Opening { format } = packet.read()?;
        if format != FORMAT {
            return Err(WorkerError::Format(format));
        }
        let begin: Begin = packet.read()?;
        let mut descriptors = packet.descriptors;
        let mut next = || descriptors.next().ok_or(WorkerError::Incomplete);

        let ledger = Ledger::map(next()?.as_fd(), begin.mounts.len()).map_err(WorkerError::Memory)?;
        let listener = UnixListener::from(next()?);
        let identity = IdentityFiles::from_descriptors([next()?, next()?, next()?, next()?]);
        let mut connections = Vec::new();
        for mount in &begin.mounts {
            connections.push(Connection::begun(next()?, mount.agreement));
        }
        let arena = if begin.arena { Some(next()?) } else { None };
        let arena = Arena::over(arena_words(arena.as_ref(), &begin.config)?);
        let notifier = match begin.notifier {
            false => None,
            true => Some(ToNotifier {
                stage: Stage::map(next()?.as_fd()).map_err(WorkerError::Memory)?,
                queue: Arc::new(EventSender::over(next()?)),
            }),
        };
        let audit = match begin.audit {
            // They end with this worker.
            false => Audit::new(Ring::private(begin.config.audit_bytes).map_err(WorkerError::Memory)?, None),
            true => {
                let ring = Ring::map(next()?.as_fd()).map_err(WorkerError::Memory)?;
                Audit::new(ring, Some(Channel::over(next()?)))
            }
        };
        Ok(Self { begin, ledger, listener, identity, connections, arena, notifier, audit })
    }
}

/// Where the kernel has no memory that only who maps it can read, values end with their worker: none
/// is put where others could read it.
fn arena_words(shared: Option<&OwnedFd>, config: &ServeConfig) -> Result<Words, WorkerError> {
    let words = ValueCache::words_for(config.cache_bytes);
    match shared.map(|memory| Words::map(memory.as_fd(), words)) {
        // Such memory counts as locked.
        Some(Err(error)) if !config.unlocked => Err(error),
        Some(Ok(shared)) => Ok(shared),
        Some(Err(_)) | None => Words::private(words),
    }
    .map_err(WorkerError::Memory)
}
