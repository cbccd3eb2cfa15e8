//! What Prometheus is told, in the OpenMetrics text format. No name of a secret, service, node or
//! environment is ever a label: metrics are read by more people than the store.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Metrics::encode`].
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of one manager.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
    /// TLS connections that are open.
    pub(crate) connections: Gauge,
    /// TLS handshakes that failed or took too long.
    pub(crate) failed_handshakes: Counter<u64, AtomicU64>,
    /// Stored versions that did not open in the place where they were.
    pub(crate) refused_versions: Counter<u64, AtomicU64>,
    nodes: Gauge,
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
        let (failed_handshakes, refused_versions) = (Counter::default(), Counter::default());
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
            "refused_versions",
            "Stored versions that did not open where they were",
            refused_versions.clone(),
        );
        registry.register("connected_nodes", "Nodes whose change stream is up here", nodes.clone());
        Self { registry, requests, duration, connections, failed_handshakes, refused_versions, nodes }
    }

    pub(crate) fn answered(&self, method: &str, path: &str, status: u16, took: Duration) {
        let labels = RequestLabels { method: method.to_owned(), path: path.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// All metrics as text.
    pub(crate) fn encode(&self, connected_nodes: usize) -> Result<String, std::fmt::Error> {
        self.nodes.set(i64::try_from(connected_nodes).unwrap_or(i64::MAX));
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
