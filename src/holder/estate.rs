//! What outlives every worker.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use secretfs_wire::ServiceName;

use super::HolderError;
use super::manifests::Manifests;
use super::worker::Worker;
use crate::cache::ValueCache;
use crate::fuse::device::Device;
use crate::fuse::{Blame, Mount};
use crate::handover::{Begin, Duty, FORMAT, Ledger, MOST_DESCRIPTORS, MountToServe, User};
use crate::host::shared_memory;
use crate::node::{Config, IdentityFiles, MountConfig, StateDirectory};

/// The mounts, the memory and the socket that workers serve one after the other. No value can be read
/// through it: the arena is never mapped here, and its descriptor cannot be read.
#[derive(Debug)]
pub(super) struct Estate {
    pub(super) mounts: Vec<HeldMount>,
    pub(super) ledger: Ledger,
    pub(super) ledger_memory: OwnedFd,
    /// `None` where the kernel has no such memory: values then end with their worker.
    pub(super) arena: Option<OwnedFd>,
    /// Where the serving worker answers `node status`.
    pub(super) listener: UnixListener,
    pub(super) manifests: Manifests,
}

/// A mount, and what it shows.
#[derive(Debug)]
pub(super) struct HeldMount {
    pub(super) mount: Mount,
    pub(super) service: Option<ServiceName>,
}

/// Descriptors of a [`Begin`] beside the mounts' own: ledger, listener, arena, identity.
const OTHER_DESCRIPTORS: usize = 3 + IdentityFiles::COUNT;

impl Estate {
    /// Makes the memory and mounts what is configured.
    pub(super) fn establish(config: &Config, listener: UnixListener) -> Result<Self, HolderError> {
        let most = MOST_DESCRIPTORS - OTHER_DESCRIPTORS;
        if config.mounts.len() > most {
            return Err(HolderError::TooManyMounts(most));
        }
        let ledger_memory = Ledger::create(config.mounts.len()).map_err(HolderError::Memory)?;
        let ledger = Ledger::map(ledger_memory.as_fd(), config.mounts.len()).map_err(HolderError::Memory)?;
        let arena = create_arena(config.serve.cache_bytes).map_err(HolderError::Memory)?;
        let mut mounts = Vec::new();
        for MountConfig { path, service } in &config.mounts {
            let mount = Mount::new(path, config.audience)?;
            if !mount.connection().can_resend() {
                tracing::warn!(
                    "this kernel is older than Linux 6.9: a request that a worker had begun when it was \
                     killed fails with EIO"
                );
            }
            mounts.push(HeldMount { mount, service: service.clone() });
        }
        Ok(Self { mounts, ledger, ledger_memory, arena, listener, manifests: Manifests::default() })
    }

    /// Gives a worker all that it needs.
    pub(super) fn hand_to(
        &self,
        worker: &Worker,
        duty: Duty,
        user: Option<User>,
        config: &Config,
        state: &StateDirectory,
    ) -> Result<(), HolderError> {
        // Opened anew each time, since a renewal puts new files in the place of the old ones.
        let identity = state.open()?;
        let begin = Begin {
            format: FORMAT,
            duty,
            user,
            config: config.serve.clone(),
            mounts: self.mounts.iter().map(HeldMount::to_serve).collect(),
            arena: self.arena.is_some(),
        };
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.ledger_memory.as_fd(), self.listener.as_fd()];
        descriptors.extend(identity.descriptors());
        descriptors.extend(self.mounts.iter().map(|held| held.mount.connection().as_fd()));
        descriptors.extend(self.arena.as_ref().map(|arena| arena.as_fd()));
        worker.say(&begin, &descriptors);
        self.manifests.tell(worker);
        Ok(())
    }

    /// After the death of a serving worker, and before the next one serves: says what its requests
    /// have to do with it, and has the kernel send them again.
    pub(super) fn recover(&self, blame: Blame) {
        for (place, held) in self.mounts.iter().enumerate() {
            let unanswered = self.ledger.journal(place).settle(blame);
            let connection = held.mount.connection();
            if !connection.can_resend() {
                // A failed read is bad, and one that cannot even be killed is worse.
                unanswered.into_iter().for_each(|request| connection.fail(request));
                continue;
            }
            // Fails where it is unmounted and nobody waits.
            if let Err(error) = connection.resend() {
                tracing::debug!(path = %held.mount.path().display(), %error, "nothing is sent again");
            }
        }
    }

    /// Where which device is mounted.
    pub(super) fn devices(&self) -> impl Iterator<Item = (PathBuf, Device)> {
        self.mounts.iter().filter_map(|held| Some((held.mount.path().to_owned(), held.mount.device()?)))
    }

    /// What is in hand on each mount.
    pub(super) fn in_hand(&self) -> Vec<u64> {
        (0..self.mounts.len()).map(|place| self.ledger.journal(place).now()).collect()
    }

    /// Unmounts everything.
    pub(super) fn unmount(self) {
        for HeldMount { mount, .. } in self.mounts {
            let path = mount.path().to_owned();
            if let Err(error) = mount.unmount() {
                tracing::warn!(mount = %path.display(), error = &error as &dyn std::error::Error, "cannot unmount");
            }
        }
    }
}

impl HeldMount {
    fn to_serve(&self) -> MountToServe {
        MountToServe {
            path: self.mount.path().to_owned(),
            service: self.service.clone(),
            agreement: self.mount.connection().agreement(),
        }
    }
}

fn create_arena(cache_bytes: usize) -> io::Result<Option<OwnedFd>> {
    match shared_memory::create_secret(ValueCache::words_for(cache_bytes)) {
        Ok(memory) => Ok(Some(memory)),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            tracing::warn!(
                "this kernel has no memfd_secret: a crash loses the values in memory, and files that were \
                 open on an old version end with an error"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
