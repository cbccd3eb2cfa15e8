//! Log collectors: where records of the audit log are sent, to be kept and searched with other logs.
//!
//! - [`syslog`]: messages of RFC 5424 over TLS, TCP, UDP or to a Unix socket
//! - [`otlp`]: OpenTelemetry's protocol over HTTP
//!
//! What is sent again after a failure may arrive twice: each record says by its chain and number which
//! one it is.

mod error;
mod otlp;
mod syslog;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use secretfs_wire::audit::{Record, WrittenRecord};
use url::Url;

pub(crate) use error::CollectorError;
pub(crate) use syslog::{host_of, message as syslog_message};
pub(crate) use tls::Trust;

/// How long one attempt to send some records may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts, doubled each time, and as much again at most at random.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// For whoever waits for the end: together half a minute.
const FEW_TIMES: usize = 5;

/// A record on its way out.
pub(crate) struct Outgoing {
    /// What it says.
    pub(crate) record: Record,
    /// As it was recorded.
    pub(crate) written: WrittenRecord,
}

/// How a collector is reached.
pub(crate) struct Access {
    /// Where it is; the scheme says how it is spoken to.
    pub(crate) url: Url,
    /// Whom it has to be, and who we are to it.
    pub(crate) trust: Trust,
    /// A file with headers that it wants with each HTTP request, such as one with a token.
    pub(crate) headers: Option<PathBuf>,
}

/// A collector.
pub(crate) struct Collector {
    protocol: Protocol,
    pauses: ExponentialBuilder,
}

enum Protocol {
    Syslog(syslog::Receiver),
    Otlp(otlp::Client),
}

impl Collector {
    /// Prepares to send records of the manager at `source`. Connects with the first. One that is away is
    /// tried a few times, or, if that is for somebody `patient`, until it is back.
    pub(crate) fn new(access: Access, source: &Url, patient: bool) -> Result<Self, CollectorError> {
        let protocol = match access.url.scheme() {
            "http" | "https" => Protocol::Otlp(otlp::Client::new(access, source)?),
            _ => Protocol::Syslog(syslog::Receiver::new(&access, source)?),
        };
        let pauses = ExponentialBuilder::new()
            .with_min_delay(SHORTEST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter();
        let pauses = if patient { pauses.without_max_times() } else { pauses.with_max_times(FEW_TIMES) };
        Ok(Self { protocol, pauses })
    }

    /// Sends some.
    pub(crate) async fn send(&self, records: &[Outgoing]) -> Result<(), CollectorError> {
        let attempt = || async {
            let sent = async {
                match &self.protocol {
                    Protocol::Syslog(receiver) => receiver.send(records).await,
                    Protocol::Otlp(client) => client.send(records).await,
                }
            };
            tokio::time::timeout(TIMEOUT, sent).await.unwrap_or(Err(CollectorError::Silent))
        };
        attempt
            .retry(self.pauses)
            .when(CollectorError::passes)
            .adjust(|error, pause| pause.map(|pause| pause.max(error.retry_after().unwrap_or_default())))
            .notify(|error, pause| tracing::warn!(%error, ?pause, "the collector is tried again"))
            .await
    }

    /// Hangs up when all that was sent is on its way.
    pub(crate) async fn close(self) -> Result<(), CollectorError> {
        match self.protocol {
            Protocol::Syslog(receiver) => {
                tokio::time::timeout(TIMEOUT, receiver.close()).await.unwrap_or(Err(CollectorError::Silent))
            }
            Protocol::Otlp(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod test_records {
    use secretfs_wire::audit::{Actor, Event, Outcome, Record};
    use secretfs_wire::{Action, ChainId};

    use super::Outgoing;

    /// A denied rotation.
    pub(super) fn denied() -> Outgoing {
        let event = Event::new(Action::SecretRotate, Outcome::Denied, Actor::Manager);
        let record = Record {
            chain: "00000000000000ab".parse::<ChainId>().unwrap(),
            sequence: 7,
            time: "2026-11-25T08:00:00.123456Z".parse().unwrap(),
            previous: None,
            event,
            key: None,
            follows: None,
        };
        Outgoing { written: record.write().unwrap(), record }
    }
}
