//! What Prometheus is told, in the OpenMetrics text format. No name of a secret, service, node or
//! environment is ever a label: metrics are read by more people than the store.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::audit::Status;
use crate::limits::Limit;

/// The media type of [`Metrics::encode`].
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl AuditMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("audit_records", "Audit records written", metrics.records.clone());
        registry.register(
            "audit_refused",
            "Events that could not be recorded, so that what they are of was refused",
            metrics.refused.clone(),
        );
        registry.register("audit_head", "The number of the last audit record", metrics.head.clone());
        registry.register_with_unit(
            "audit_checkpoint_age",
            "How long ago the audit log was signed last",
            Unit::Seconds,
            metrics.checkpoint_age.clone(),
        );
        registry.register(
            "audit_trouble",
            "1 while the audit log is broken or cannot be written",
            metrics.trouble.clone(),
        );
        metrics
    }

    fn look(&self, status: &Status) {
        // They only rise, and are counted elsewhere.
        self.records.inc_by(status.records().saturating_sub(self.records.get()));
        self.refused.inc_by(status.refused().saturating_sub(self.refused.get()));
        self.head.set(status.head());
        self.trouble.set(status.trouble().is_some().into());
        if let Some(signed) = status.last_signed() {
            let age = Timestamp::now().duration_since(signed);
            self.checkpoint_age.set(age.as_secs_f64().max(0.0));
        }
    }
}

/// All metrics of one manager.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
    /// TLS connections that are open.
    pub(crate) connections: Gauge,
    /// TLS handshakes that failed or took too long.
    pub(crate) failed_handshakes: Counter<u64, AtomicU64>,
    /// Connections that were closed since there were too many of their kind.
    pub(crate) refused_connections: Counter<u64, AtomicU64>,
    /// Stored versions that did not open in the place where they were.
    pub(crate) refused_versions: Counter<u64, AtomicU64>,
    /// Proofs that several daemons speak as one node.
    pub(crate) identity_conflicts: Counter<u64, AtomicU64>,
    limited: Family<LimitLabels, Counter>,
    nodes: Gauge,
    duplicate_nodes: Gauge,
    audit: AuditMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

/// What the audit log is asked for when somebody reads the metrics.
#[derive(Default)]
struct AuditMetrics {
    records: Counter<u64, AtomicU64>,
    refused: Counter<u64, AtomicU64>,
    head: Gauge<u64, AtomicU64>,
    checkpoint_age: Gauge<f64, AtomicU64>,
    trouble: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    /// As in the OpenAPI document, with the names left out.
    path: String,
    status: u16,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("secretfs_manager");
        // 100 µs to 1.6 s.
        let duration = Histogram::new(exponential_buckets(0.0001, 2.0, 15));
        let requests = Family::default();
        let (connections, nodes) = (Gauge::default(), Gauge::default());
        let (failed_handshakes, refused_connections, refused_versions) =
            (Counter::default(), Counter::default(), Counter::default());
        registry.register("requests", "Requests answered", requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time until a response begins",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register("connections", "Open TLS connections", connections.clone());
        registry.register(
            "failed_handshakes",
            "TLS handshakes that failed or took too long",
            failed_handshakes.clone(),
        );
        registry.register(
            "refused_connections",
            "Connections that were closed since too many had shown no certificate",
            refused_connections.clone(),
        );
        registry.register(
            "refused_versions",
            "Stored versions that did not open where they were",
            refused_versions.clone(),
        );
        let (identity_conflicts, limited, duplicate_nodes) =
            (Counter::default(), Family::default(), Gauge::default());
        registry.register(
            "identity_conflicts",
            "How often several daemons were found to speak as one node",
            identity_conflicts.clone(),
        );
        registry.register("rate_limited", "Requests refused since there were too many", limited.clone());
        registry.register(
            "duplicate_nodes",
            "Nodes as which several daemons speak, until they are approved again",
            duplicate_nodes.clone(),
        );
        registry.register("connected_nodes", "Nodes whose change stream is up here", nodes.clone());
        let audit = AuditMetrics::register(&mut registry);
        Self {
            registry,
            requests,
            duration,
            connections,
            failed_handshakes,
            refused_connections,
            refused_versions,
            identity_conflicts,
            limited,
            nodes,
            duplicate_nodes,
            audit,
        }
    }

    pub(crate) fn answered(&self, method: &str, path: &str, status: u16, took: Duration) {
        let labels = RequestLabels { method: method.to_owned(), path: path.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A request was refused by one of the limits.
    pub(crate) fn limited(&self, limit: Limit) {
        self.limited.get_or_create(&LimitLabels { limit: limit.as_str() }).inc();
    }

    /// All metrics as text.
    pub(crate) fn encode(
        &self,
        connected_nodes: usize,
        duplicate_nodes: u64,
        audit: &Status,
    ) -> Result<String, std::fmt::Error> {
        self.audit.look(audit);
        self.nodes.set(i64::try_from(connected_nodes).unwrap_or(i64::MAX));
        self.duplicate_nodes.set(i64::try_from(duplicate_nodes).unwrap_or(i64::MAX));
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
