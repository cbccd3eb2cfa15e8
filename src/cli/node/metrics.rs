//! `node metrics`: what holder and worker know, for Prometheus, in the OpenMetrics text format.
//!
//! No name of a secret, service or environment is in it: metrics are read by more people than the mount.

use std::path::Path;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::super::config::ConfigFile;
use super::super::error::Failure;
use super::super::output;
use super::host::StatusArgs;
use super::status::nobody_answers;
use crate::holder::control::{self, HolderStatus};
use crate::node::{self, NodeStatus};

/// Prints all that answers, and fails if somebody does not.
pub(super) async fn run(args: StatusArgs, file: ConfigFile) -> Result<(), Failure> {
    let socket = args.resolve(file)?;
    let orders = control::socket_beside(&socket);
    let holder = control::ask(&orders).await;
    let node = node::ask_status(&socket).await;
    let text = encode(node.as_ref().ok(), holder.as_ref().ok(), Timestamp::now())
        .map_err(|error| Failure::from_error(&error))?;
    output::line(text.trim_end())?;
    let failed = |socket: &Path, error: std::io::Error| nobody_answers(socket, &error);
    holder.map_err(|error| failed(&orders, error))?;
    node.map(drop).map_err(|error| failed(&socket, error))
}

fn encode(
    node: Option<&NodeStatus>,
    holder: Option<&HolderStatus>,
    now: Timestamp,
) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("secretfs_node");
    gauge(&mut registry, "up", "Whether a worker answers", flag(node.is_some()));
    if let Some(node) = node {
        register_node(&mut registry, node, now);
    }
    if let Some(holder) = holder {
        counter(&mut registry, "workers_replaced", "Workers that ended and were replaced", holder.replaced);
        gauge(
            &mut registry,
            "standby",
            "Whether a worker is ready to take over",
            flag(holder.standby.is_some()),
        );
        gauge(&mut registry, "refusing", "Whether requests are answered with EIO", flag(holder.refusing));
    }
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

fn register_node(registry: &mut Registry, node: &NodeStatus, now: Timestamp) {
    let stale = node.stale_since.map_or(0, |since| now.duration_since(since).as_secs().max(0));
    let expiry = node.certificate_expires.map_or(0, Timestamp::as_second);
    let total = |count: fn(&node::MountStatus) -> usize| node.mounts.iter().map(count).sum::<usize>();

    gauge(
        registry,
        "connected",
        "Whether the change stream is up and so all is current",
        flag(node.connected),
    );
    seconds(registry, "stale", "For how long values are last known good only", stale as f64);
    seconds(registry, "max_stale", "For how long they are served at most", node.max_stale_seconds as f64);
    seconds(
        registry,
        "certificate_expiry_timestamp",
        "When the certificate ends, in Unix time",
        expiry as f64,
    );
    let ahead = node.clock_ahead_seconds.unwrap_or_default();
    seconds(registry, "clock_ahead", "How far the clock is ahead of the manager's; small is 0", ahead as f64);
    for (name, help, value) in [
        ("services", "Services of the manifest", node.services),
        ("targets", "Targets of the manifest", node.targets),
        ("rejected_entries", "Entries of the manifest that were left out", node.rejected.len()),
        ("cached_values", "Values in memory", node.cached_values),
        ("cached_bytes", "Bytes of values in memory", node.cached_bytes),
        ("pinned_versions", "Versions that open files hold", node.pinned_versions),
        ("open_files", "Open files", total(|mount| mount.open_files)),
        ("polled_files", "Open files that are polled for a change", total(|mount| mount.polled)),
        ("mounts", "Mounts", node.mounts.len()),
        ("mounts_served", "Mounts that nobody else has unmounted", total(|mount| usize::from(mount.served))),
    ] {
        gauge(registry, name, help, value as f64);
    }
    let unsent = node.audit.oldest_unsent.map_or(0, |oldest| now.duration_since(oldest).as_secs().max(0));
    gauge(
        registry,
        "audit_buffered",
        "Opens that the manager has not on record yet",
        node.audit.buffered as f64,
    );
    seconds(registry, "audit_oldest_unsent", "For how long the oldest of them waits", unsent as f64);
    counter(registry, "audit_lost", "Opens whose records there was no room for", node.audit.lost);
    gauge(registry, "trouble", "Whether some files cannot be opened", flag(node.trouble.is_some()));
    counter(registry, "predecessors", "Workers before the one that serves", node.predecessors);
    counter(registry, "cache_hits", "Opens answered from memory by this worker", node.cache_hits);
    counter(registry, "cache_misses", "Opens that went to the manager", node.cache_misses);
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    registry.register(name, help, measured(value));
}

fn seconds(registry: &mut Registry, name: &str, help: &str, value: f64) {
    registry.register_with_unit(name, help, Unit::Seconds, measured(value));
}

fn measured(value: f64) -> Gauge<f64, AtomicU64> {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
}
