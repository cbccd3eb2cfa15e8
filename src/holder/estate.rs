//! What outlives every worker.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use secretfs_wire::ServiceName;

use super::HolderError;
use super::manifests::Manifests;
use super::notifying::Notifying;
use super::witnessing::Witnessing;
use super::worker::Worker;
use crate::audit::Ring;
use crate::cache::ValueCache;
use crate::fuse::device::Device;
use crate::fuse::{Blame, Inotify, Mount, Superblock};
use crate::handover::{Begin, Duty, FORMAT, Ledger, MOST_DESCRIPTORS, MountToServe, User};
use crate::host::shared_memory;
use crate::node::{Config, IdentityFiles, MountConfig, StateDirectory};

/// The mounts, the memory and the socket that workers serve one after the other. No value can be read
/// through it: the arena is never mapped here, and its descriptor cannot be read.
#[derive(Debug)]
pub(super) struct Estate {
    /// Who tells watchers. The first one: its mounts go before the others.
    pub(super) notifying: Notifying,
    pub(super) mounts: Vec<HeldMount>,
    pub(super) ledger: Ledger,
    pub(super) ledger_memory: OwnedFd,
    /// `None` where the kernel has no such memory: values then end with their worker.
    pub(super) arena: Option<OwnedFd>,
    /// What is opened, until the manager has it on record.
    pub(super) opens: Opens,
    /// Who tells workers who opens.
    pub(super) witnessing: Witnessing,
    /// Where the serving worker answers `node status`.
    pub(super) listener: UnixListener,
    pub(super) manifests: Manifests,
}

/// The records of opens: their memory, and what is in it.
#[derive(Debug)]
pub(super) struct Opens {
    pub(super) memory: OwnedFd,
    pub(super) ring: Ring,
}

/// A mount, and what it shows.
#[derive(Debug)]
pub(super) struct HeldMount {
    pub(super) mount: Mount,
    pub(super) service: Option<ServiceName>,
    /// What watchers are told, as far as it can be.
    pub(super) inotify: Inotify,
}

/// Descriptors of a [`Begin`] beside the mounts' own: ledger, listener, arena, identity, stage, queue,
/// records of opens, the way to the witness.
const OTHER_DESCRIPTORS: usize = 7 + IdentityFiles::COUNT;

/// How long the end of a daemon waits for the last records of opens to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

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
        let opens = Opens::new(config.serve.audit_bytes).map_err(HolderError::Memory)?;
        let mut mounts = Vec::new();
        for MountConfig { path, service, inotify } in &config.mounts {
            let superblock = match inotify {
                Inotify::Off => Superblock::ReadOnly,
                Inotify::Write | Inotify::Attrib => Superblock::Writable,
            };
            let mount = Mount::new(path, config.audience, superblock)?;
            if !mount.connection().can_resend() {
                tracing::warn!(
                    "this kernel is older than Linux 6.9: a request that a worker had begun when it was \
                     killed fails with EIO"
                );
            }
            mounts.push(HeldMount::new(mount, service.clone(), *inotify));
        }
        let notifying = Notifying::new().map_err(HolderError::Memory)?;
        let witnessing = Witnessing::new().map_err(HolderError::Memory)?;
        let manifests = Manifests::default();
        Ok(Self { mounts, ledger, ledger_memory, arena, opens, witnessing, listener, manifests, notifying })
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
            notifier: true,
            audit: true,
        };
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.ledger_memory.as_fd(), self.listener.as_fd()];
        descriptors.extend(identity.descriptors());
        descriptors.extend(self.mounts.iter().map(|held| held.mount.connection().as_fd()));
        descriptors.extend(self.arena.as_ref().map(|arena| arena.as_fd()));
        descriptors.extend(self.notifying.descriptors());
        descriptors.extend([self.opens.memory.as_fd(), self.witnessing.asking()]);
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

    /// Sees to it that there is a notifier, if it has anything to do.
    pub(super) fn staff_notifier(&mut self, now: Instant) {
        let mounts = self.mounts.iter().enumerate().filter(|(_, held)| held.inotify != Inotify::Off);
        self.notifying.staff(mounts.map(|(place, held)| (place, &held.mount)), now);
    }

    /// Unmounts everything.
    pub(super) fn unmount(&mut self) {
        // First, since what it has mounted would keep everything there.
        self.notifying.stop();
        for HeldMount { mount, .. } in self.mounts.drain(..) {
            let path = mount.path().to_owned();
            if let Err(error) = mount.unmount() {
                tracing::warn!(mount = %path.display(), error = &error as &dyn std::error::Error, "cannot unmount");
            }
        }
    }
}

impl Estate {
    /// Gives the active worker, if there is one, a moment to tell the manager what was opened last: with
    /// the memory it is gone.
    pub(super) fn wait_until_told(&self, somebody_tells: bool) {
        let until = Instant::now() + LAST_WORDS;
        while somebody_tells && !self.opens.ring.is_empty() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        let unsent = self.opens.ring.backlog().buffered;
        if unsent > 0 {
            tracing::error!(unsent, "the manager does not have the records of these opens, and never will");
        }
    }
}

impl Opens {
    /// None yet, and room for so many bytes.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        Self::over(Ring::create(bytes)?)
    }

    /// Those in a memory.
    pub(super) fn over(memory: OwnedFd) -> io::Result<Self> {
        Ok(Self { ring: Ring::map(memory.as_fd())?, memory })
    }
}

impl HeldMount {
    /// A mount whose watchers are told what is wanted, if it can be.
    pub(super) fn new(mount: Mount, service: Option<ServiceName>, wanted: Inotify) -> Self {
        let possible = || {
            // An ordinary user's mount, which nobody can write to, or one of a former holder's.
            let why = |error| tracing::info!(path = %mount.path().display(), %error, "no inotify events");
            mount.again().map_err(why).is_ok()
        };
        let inotify = if wanted != Inotify::Off && possible() { wanted } else { Inotify::Off };
        Self { mount, service, inotify }
    }

    fn to_serve(&self) -> MountToServe {
        MountToServe {
            path: self.mount.path().to_owned(),
            service: self.service.clone(),
            agreement: self.mount.connection().agreement(),
            inotify: self.inotify,
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
