//! `node status`: what holder and worker know, for people.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::super::config::ConfigFile;
use super::super::error::Failure;
use super::super::{Global, output};
use super::host::StatusArgs;
use crate::client::describe_clock;
use crate::fuse::Inotify;
use crate::holder::control::{self, HolderStatus};
use crate::node::{self, AuditStatus, NodeStatus};

/// What the two processes that know it tell.
#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    node: NodeStatus,
    holder: HolderStatus,
}

pub(super) async fn run(args: StatusArgs, global: &Global, file: ConfigFile) -> Result<(), Failure> {
    let socket = args.resolve(file)?;
    let orders = control::socket_beside(&socket);
    let holder = control::ask(&orders).await.map_err(|error| nobody_answers(&orders, &error))?;
    let last = holder.last_end.as_deref().map(|end| format!("; the last one {end}")).unwrap_or_default();
    let silent = |reason: &str| {
        Failure::unreachable(format!("no worker of holder {} {reason}{last}", holder.pid))
            .hint("its log says why")
    };
    if holder.refusing {
        return Err(silent("lives long enough to serve; requests are answered with EIO"));
    }
    let node = node::ask_status(&socket).await.map_err(|error| silent(&format!("answers ({error})")))?;
    let text = describe(&node, &holder);
    Ok(output::one(global, &Status { node, holder }, &text)?)
}

pub(super) fn nobody_answers(socket: &Path, error: &std::io::Error) -> Failure {
    Failure::unreachable(format!("no node daemon answers at {}: {error}", socket.display()))
        .hint("is `secretfs node run` running, and are you its user?")
}

fn describe(status: &NodeStatus, holder: &HolderStatus) -> String {
    let link = match (status.connected, status.stale_since) {
        (true, _) => "up; what is served is current".to_owned(),
        (false, Some(since)) => format!(
            "down since {}: {}",
            output::time(since),
            status.reason.as_deref().unwrap_or("not connected yet")
        ),
        (false, None) => format!("down: {}", status.reason.as_deref().unwrap_or("not connected yet")),
    };
    let mut lines = vec![
        format!("Node:         {} of environment {} (id {})", status.name, status.environment, status.id),
        format!("Manager:      {}", status.manager),
        format!("Stream:       {link}"),
    ];
    if let Some(fingerprint) = &status.fingerprint {
        lines.push(format!("Fingerprint:  {fingerprint}"));
    }
    if let Some(ahead) = status.clock_ahead_seconds {
        lines.push(format!("Clock:        {}", describe_clock(SignedDuration::from_secs(ahead))));
    }
    if let Some(end) = status.certificate_expires {
        let has_ended = end <= Timestamp::now();
        let what = if has_ended { "has ended, so that nothing is served:" } else { "ends" };
        lines.push(format!("Certificate:  {what} {}", output::time(end)));
    }
    for mount in &status.mounts {
        let what = mount.service.as_ref().map_or("all services".to_owned(), |name| format!("service {name}"));
        let gone = if mount.served { "" } else { ", unmounted by somebody else" };
        let events = match mount.inotify {
            Inotify::Off => "no inotify events".to_owned(),
            made => format!("inotify {}", made.as_str()),
        };
        lines.push(format!("Mount:        {} ({what}, {events}{gone})", mount.path.display()));
    }
    lines.push(format!("Manifest:     {} services, {} targets", status.services, status.targets));
    lines.push(format!(
        "Cache:        {} values, {} bytes, {} hits, {} misses; open files hold {} versions",
        status.cached_values,
        status.cached_bytes,
        status.cache_hits,
        status.cache_misses,
        status.pinned_versions
    ));
    for rejected in &status.rejected {
        lines.push(format!("Left out:     {}: {}", rejected.entry, rejected.reason));
    }
    lines.push(format!("Audit:        {}", audit(&status.audit)));
    if let Some(trouble) = &status.trouble {
        lines.push(format!("Trouble:      since {}: {}", output::time(trouble.since), trouble.reason));
    }
    lines.push(format!("Processes:    {}", processes(status, holder)));
    if holder.replaced > 0 {
        let end = holder.last_end.as_deref().unwrap_or("has ended");
        lines.push(format!("Replaced:     {} workers; the last one {end}", holder.replaced));
    }
    lines.join("\n")
}

fn audit(audit: &AuditStatus) -> String {
    let AuditStatus { buffered, lost, oldest_unsent, reason } = audit;
    let oldest = oldest_unsent.map(|at| format!(", the oldest of {}", output::time(at))).unwrap_or_default();
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{buffered} opens not on record yet{oldest}, {lost} lost{reason}")
}

fn processes(status: &NodeStatus, holder: &HolderStatus) -> String {
    let standby = match (holder.standby, &holder.standby_version) {
        (Some(pid), Some(version)) if *version != status.version => {
            format!("standby {pid} (version {version})")
        }
        (Some(pid), _) => format!("standby {pid}"),
        (None, _) => "no standby yet".to_owned(),
    };
    let lost = match (holder.values_survive, holder.requests_survive) {
        (true, true) => "",
        (false, _) => "; this kernel lets values in memory end with a worker (no memfd_secret)",
        (true, false) => "; this kernel lets requests end with a worker (older than Linux 6.9)",
    };
    let notifier = holder.notifier.map(|pid| format!(", notifier {pid}")).unwrap_or_default();
    let witness = match holder.witness {
        Some(pid) => format!(", witness {pid}"),
        None => ", no witness: opens are recorded without the program".to_owned(),
    };
    let (pid, version) = (status.pid, &status.version);
    format!("holder {}, worker {pid} (version {version}), {standby}{notifier}{witness}{lost}", holder.pid)
}
