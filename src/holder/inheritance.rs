//! What a service manager such as systemd keeps for the next holder, should this one be killed: then
//! not even that costs a read. See "File Descriptor Store" in systemd's documentation.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use sd_notify::NotifyState;
use secretfs_wire::ServiceName;
use serde::{Deserialize, Serialize};

use super::estate::{Estate, HeldMount, Opens};
use super::manifests::Manifests;
use super::notifying::Notifying;
use super::witnessing::Witnessing;
use crate::fuse::device::Device;
use crate::fuse::{Agreement, Blame, Connection, Inotify, Mount};
use crate::handover::{FORMAT, Ledger, Sequence, document};
use crate::node::Config;

/// Names of what is kept. A mount's is followed by its place, a manifest's by its sequence.
const WILL: &str = "will";
const LEDGER: &str = "ledger";
const ARENA: &str = "arena";
const OPENS: &str = "opens";
const MOUNT: &str = "mount-";
const MANIFEST: &str = "manifest-";

/// What the descriptors are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Will {
    format: u32,
    cache_bytes: usize,
    mounts: Vec<WilledMount>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WilledMount {
    path: PathBuf,
    service: Option<ServiceName>,
    agreement: Agreement,
    device: Device,
}

/// Has everything kept. Does nothing where no service manager listens.
pub(super) fn leave(estate: &Estate, config: &Config) {
    let mounts = estate.mounts.iter().map(|held| {
        Some(WilledMount {
            path: held.mount.path().to_owned(),
            service: held.service.clone(),
            agreement: held.mount.connection().agreement(),
            device: held.mount.device()?,
        })
    });
    let Some(mounts) = mounts.collect() else { return };
    let will = Will { format: FORMAT, cache_bytes: config.serve.cache_bytes, mounts };
    let store = || {
        for (place, held) in estate.mounts.iter().enumerate() {
            keep(&format!("{MOUNT}{place}"), held.mount.connection())?;
        }
        keep(LEDGER, &estate.ledger_memory)?;
        keep(OPENS, &estate.opens.memory)?;
        if let Some(arena) = &estate.arena {
            keep(ARENA, arena)?;
        }
        // The last one: without it the others are not used.
        keep(WILL, document::write("secretfs-will", &will)?)
    };
    if let Err(error) = store() {
        tracing::warn!(%error, "the service manager keeps nothing; should the holder be killed, open files are lost");
    }
}

/// Has a manifest kept in the place of the ones before.
pub(super) fn leave_manifest(before: Option<Sequence>, sequence: Sequence, memory: &OwnedFd) {
    let replace = || {
        keep(&format!("{MANIFEST}{}", sequence.0), memory)?;
        before.map_or(Ok(()), |before| forget(&format!("{MANIFEST}{}", before.0)))
    };
    if let Err(error) = replace() {
        tracing::warn!(%error, "the service manager does not keep the manifest");
    }
}

/// Nothing is to be kept any more: everything has been taken down.
pub(super) fn revoke(mounts: usize, manifest: Option<Sequence>) {
    let mounts = (0..mounts).map(|place| format!("{MOUNT}{place}"));
    let manifest = manifest.map(|sequence| format!("{MANIFEST}{}", sequence.0));
    let names = [WILL, LEDGER, ARENA, OPENS].map(str::to_owned).into_iter().chain(mounts).chain(manifest);
    for name in names {
        // Where nobody listens there is nothing to forget.
        let _ = forget(&name);
    }
}

fn keep(name: &str, descriptor: impl AsFd) -> io::Result<()> {
    // Kept also when the connection ends: whether it is of use is for the next holder to see.
    let state = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
    sd_notify::notify_with_fds(&state, &[descriptor.as_fd()])
}

fn forget(name: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// Takes over what a former holder left, if all of it is there and is what is configured now. If not,
/// it is let go, and the mounts are made anew over those that die with that.
pub(super) fn take(
    descriptors: Vec<(String, OwnedFd)>,
    config: &Config,
    listener: &UnixListener,
) -> Option<Estate> {
    if descriptors.is_empty() {
        return None;
    }
    let names: Vec<_> = descriptors.iter().map(|(name, _)| name.clone()).collect();
    match inherit(descriptors, config, listener) {
        Ok(estate) => {
            tracing::info!("taken over from a holder that was killed");
            estate.recover(Blame::Nobody);
            Some(estate)
        }
        Err(reason) => {
            tracing::warn!(%reason, "what a former holder left is not used");
            // The service manager would keep its connections alive, with nobody to serve them.
            config.mounts.iter().for_each(|mount| Mount::abort(&mount.path));
            names.iter().for_each(|name| drop(forget(name)));
            None
        }
    }
}

fn inherit(
    descriptors: Vec<(String, OwnedFd)>,
    config: &Config,
    listener: &UnixListener,
) -> io::Result<Estate> {
    let mut manifests = Vec::new();
    let mut kept = HashMap::new();
    for (name, descriptor) in descriptors {
        match name.strip_prefix(MANIFEST).and_then(|sequence| sequence.parse().ok()) {
            Some(sequence) => manifests.push((Sequence(sequence), descriptor)),
            None => drop(kept.insert(name, descriptor)),
        }
    }
    let mut take = |name: &str| {
        kept.remove(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name} is missing")))
    };
    let will: Will = document::read(&File::from(take(WILL)?))?;
    if will.format != FORMAT || !fits(&will, config) {
        return Err(io::Error::other("it is of another version or another configuration"));
    }
    let ledger_memory = take(LEDGER)?;
    let ledger = Ledger::map(ledger_memory.as_fd(), will.mounts.len())?;
    let arena = take(ARENA).ok();
    // A holder of an older version left none. Another size than the configured one does no harm.
    let opens = match take(OPENS) {
        Ok(memory) => Opens::over(memory)?,
        Err(_) => {
            let opens = Opens::new(config.serve.audit_bytes)?;
            keep(OPENS, &opens.memory)?;
            opens
        }
    };
    let mut mounts = Vec::new();
    for (place, WilledMount { path, service, agreement, device }) in will.mounts.into_iter().enumerate() {
        let connection = Connection::begun(take(&format!("{MOUNT}{place}"))?, agreement);
        let mount = Mount::inherited(path, connection, device)?;
        let wanted = config.mounts.get(place).map_or(Inotify::Off, |wanted| wanted.inotify);
        mounts.push(HeldMount::new(mount, service, wanted));
    }
    manifests.sort_by_key(|(sequence, _)| *sequence);
    let manifests = Manifests::inherited(manifests, ledger.announced());
    let listener = listener.try_clone()?;
    let (notifying, witnessing) = (Notifying::new()?, Witnessing::new()?);
    Ok(Estate { mounts, ledger, ledger_memory, arena, opens, witnessing, listener, manifests, notifying })
}

/// Whether what is left is what would be made.
fn fits(will: &Will, config: &Config) -> bool {
    let same = |(willed, wanted): (&WilledMount, &crate::node::MountConfig)| {
        let path = wanted.path.canonicalize().unwrap_or_else(|_| wanted.path.clone());
        willed.path == path && willed.service == wanted.service
    };
    will.cache_bytes == config.serve.cache_bytes
        && will.mounts.len() == config.mounts.len()
        && will.mounts.iter().zip(&config.mounts).all(same)
}
