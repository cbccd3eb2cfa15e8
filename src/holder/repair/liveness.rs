//! Whether a file system is dead.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;

use crate::fuse::device::Device;

/// How long a file system may take to show that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// What has been found out, once for each device.
///
/// A device on record may be another daemon's by now: the kernel gives a number out again when nobody
/// has it mounted.
#[derive(Default)]
pub(super) struct Liveness(BTreeMap<Device, bool>);

impl Liveness {
    pub(super) fn is_dead(&mut self, device: Device, mount: &OwnedFd) -> bool {
        *self.0.entry(device).or_insert_with(|| answers_not_connected(mount).unwrap_or(false))
    }
}

/// A file system whose connection is gone says so at once. One that does not answer counts as alive,
/// and keeps only the thread that asked.
fn answers_not_connected(mount: &OwnedFd) -> Option<bool> {
    let mount = mount.as_fd().try_clone_to_owned().ok()?;
    let (sender, answers) = mpsc::channel();
    let ask = move || {
        // A thread that shares its directories with ours would keep ours from changing namespaces.
        let apart = unshare(CloneFlags::CLONE_FS).is_ok();
        sender.send(None).ok();
        if apart {
            sender.send(Some(rustix::fs::fstatfs(&mount).map(drop))).ok();
        }
    };
    thread::Builder::new().spawn(ask).ok()?;
    answers.recv().ok()?;
    let answer = answers.recv_timeout(SIGN_OF_LIFE).ok()??;
    Some(matches!(answer, Err(Errno::NOTCONN | Errno::CONNABORTED)))
}
