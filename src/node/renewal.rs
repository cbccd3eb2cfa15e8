//! A node's certificate renews itself at a random point of its life, so that a fleet that joined
//! together does not renew together, and so early that a manager may be away for hours.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use backon::{ExponentialBuilder, Retryable as _};
use jiff::Timestamp;
use secretfs_wire::api::RenewRequest;
use tokio::sync::Notify;

use super::chance;
use super::presence::Node;
use crate::client::{
    CertificateRequest, ClientError, Credentials, ManagerClock, NodeClient, certificate_end,
};

/// Where in the life that a certificate has left it is renewed.
const POINT: Range<f64> = 0.5..0.8;

/// How often the manager's clock is asked for. Until it has been heard, this host's is believed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two renewals at least.
const BETWEEN: Duration = Duration::from_secs(1);

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewalError {
    /// The new key or its request could not be made.
    #[error("cannot make a new TLS key")]
    Key(#[source] rcgen::Error),
    /// The manager was not reached, or refused.
    #[error(transparent)]
    Manager(#[from] ClientError),
}

/// When a certificate is renewed: at a random point between a half and four fifths of what it has left,
/// and at once when it has ended.
///
/// What it has left is counted by the manager's clock, which decides whether it is good. That clock may
/// not be known at first, so the question is asked again and again; the point stays.
struct RenewalPoint {
    end: Timestamp,
    fraction: f64,
}

impl RenewalPoint {
    fn choose(end: Timestamp) -> Self {
        Self { end, fraction: POINT.start + (POINT.end - POINT.start) * chance::fraction() }
    }

    /// How long it is until then, when it is `now` for the manager and `waited` ago the point was chosen.
    fn wait(&self, now: Timestamp, waited: Duration) -> Duration {
        let left = Duration::try_from(self.end.duration_since(now)).unwrap_or(Duration::ZERO);
        (left + waited).mul_f64(self.fraction).saturating_sub(waited)
    }

    /// Waits until then.
    async fn reach(&self, clock: &ManagerClock) {
        let chosen = Instant::now();
        loop {
            let wait = self.wait(clock.now(), chosen.elapsed());
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait.min(LOOK_AGAIN)).await;
        }
    }
}

/// Asks for a certificate for a new key, under the old certificate.
pub(super) async fn renew(client: &NodeClient, ca: &str) -> Result<Credentials, RenewalError> {
    let request = CertificateRequest::new().map_err(RenewalError::Key)?;
    let renewed = client.renew(&RenewRequest { certificate_request: request.request }).await?;
    if certificate_end(&renewed.certificate).is_none() {
        let reason = "the renewed certificate is not a certificate".to_owned();
        return Err(ClientError::Malformed { reason }.into());
    }
    Ok(Credentials { certificate: renewed.certificate, key: request.key, ca: ca.to_owned() })
}

/// Renews the certificate again and again, each time under the one before.
pub(super) async fn keep_certificate(
    node: Arc<Node>,
    client: Arc<ArcSwap<NodeClient>>,
    ca: String,
    renewed: Arc<Notify>,
) {
    loop {
        let Some(end) = node.shown().certificate_expires else { return };
        // Whatever a manager issues, it is not asked without a pause.
        tokio::time::sleep(BETWEEN).await;
        RenewalPoint::choose(end).reach(&client.load().clock()).await;
        let patience = ExponentialBuilder::default()
            .with_min_delay(Duration::from_secs(1))
            .with_max_delay(Duration::from_secs(60))
            .with_jitter()
            .without_max_times();
        let attempt = || async { renew(&client.load_full(), &ca).await };
        let credentials = attempt
            .retry(patience)
            .notify(|error, _| {
                let reason = error.to_string();
                tracing::warn!(reason, ends = %end, "certificate not renewed yet");
            })
            .await;
        let Ok(credentials) = credentials else { return };
        let new = match client.load().with_credentials(&credentials) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(%error, "the renewed certificate cannot be used");
                continue;
            }
        };
        // Kept before it is used: a worker that comes after this one is never behind the manager.
        node.outbox().renewed(&credentials);
        client.store(Arc::new(new));
        let end = certificate_end(&credentials.certificate);
        node.shown().certificate_expires = end;
        tracing::info!(ends = ?end, "certificate renewed");
        renewed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_falls_between_half_and_four_fifths_of_what_is_left() {
        let now = Timestamp::UNIX_EPOCH;
        let end = now + Duration::from_secs(1000);
        let wait = |_| RenewalPoint::choose(end).wait(now, Duration::ZERO).as_secs_f64();
        let waits: Vec<_> = (0..200).map(wait).collect();
        assert!(waits.iter().all(|wait| (500.0..=800.0).contains(wait)), "{waits:?}");
        let spread =
            waits.iter().copied().fold(f64::MIN, f64::max) - waits.iter().copied().fold(f64::MAX, f64::min);
        assert!(spread > 100.0, "a fleet would renew together: {spread}");
    }

    #[test]
    fn the_point_stays_while_time_passes_and_moves_when_the_clock_is_known() {
        let at = |seconds| Timestamp::UNIX_EPOCH + Duration::from_secs(seconds);
        let point = RenewalPoint { end: at(1000), fraction: 0.6 };
        let wait = |now, waited| point.wait(at(now), Duration::from_secs(waited)).as_secs();
        assert_eq!([wait(0, 0), wait(100, 100), wait(599, 599), wait(600, 600)], [600, 500, 1, 0]);
        // The manager is found to be 400 s further than this host, which has waited for 50 s.
        assert_eq!(wait(450, 50), 310);
        assert_eq!(wait(2000, 0), 0, "it has ended");
    }
}
