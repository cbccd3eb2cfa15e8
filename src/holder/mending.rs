//! Mends what the death of a former holder has broken: its mounts in the host and in containers.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream as AsyncStream;
use tokio::task::JoinHandle;

use super::estate::Estate;
use super::repair::{Plan, Record, Report};
use super::socket::beside;
use crate::fuse::device::Device;
use crate::role::{Role, THIS_PROGRAM};

/// What has been ours and what there is to mend, until it is done.
pub(super) struct Mending {
    record: Record,
    plan: Plan,
    running: Option<JoinHandle<io::Result<Report>>>,
}

impl Mending {
    /// Notes the mounts that have just been made, beside the status socket.
    pub(super) fn new(socket: &Path, estate: &Estate) -> Self {
        let mut record = Record::load(&beside(socket, "mounts.json"));
        let alive: BTreeMap<PathBuf, Device> = estate.devices().collect();
        for (path, device) in &alive {
            if let Err(error) = record.add(path, *device) {
                tracing::warn!(%error, "the mounts are not on record; containers need a restart if this daemon is killed");
            }
        }
        let plan = record.plan(&alive);
        Self { record, plan, running: None }
    }

    /// Begins, once somebody serves the new mounts: names in them must be found. Done once.
    pub(super) fn begin(&mut self) {
        let plan = std::mem::take(&mut self.plan);
        if plan.mounts.iter().all(|mount| mount.dead.is_empty()) {
            return;
        }
        // In a process of its own: it enters other mount namespaces, and it asks a worker, which the
        // holder never does.
        self.running = Some(tokio::spawn(repair(plan)));
    }

    /// Waits until it is done, and says what was done.
    pub(super) async fn done(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let report = running.await;
        self.running = None;
        match report.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Err(error) => tracing::error!(%error, "containers that lost their secrets are not repaired"),
            Ok(report) => self.tell(&report),
        }
    }

    fn tell(&mut self, report: &Report) {
        for repaired in &report.repaired {
            let (pid, point, source) = (repaired.pid, &repaired.point, &repaired.source);
            tracing::info!(pid, ?point, ?source, "repaired in a container");
        }
        for failed in &report.failed {
            let (pid, point, reason) = (failed.pid, &failed.point, &failed.reason);
            tracing::warn!(pid, ?point, reason, "not repaired");
        }
        if report.complete
            && let Err(error) = self.record.prune(&report.seen)
        {
            tracing::debug!(%error, "the record of mounts stays as it is");
        }
    }
}

async fn repair(plan: Plan) -> io::Result<Report> {
    let (ours, theirs) = UnixStream::pair()?;
    let input = theirs.try_clone()?;
    let mut command = Role::Repair.command(THIS_PROGRAM.as_ref());
    command.stdin(std::os::fd::OwnedFd::from(input)).stdout(std::os::fd::OwnedFd::from(theirs));
    let mut child = command.spawn()?;
    drop(command);
    (&ours).write_all(&serde_json::to_vec(&plan)?)?;
    ours.shutdown(std::net::Shutdown::Write)?;
    ours.set_nonblocking(true)?;
    let mut report = Vec::new();
    AsyncStream::from_std(ours)?.read_to_end(&mut report).await?;
    // It has closed its output, and ends.
    child.wait()?;
    Ok(serde_json::from_slice(&report)?)
}
