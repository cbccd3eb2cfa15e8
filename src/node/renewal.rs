//! A node's certificate renews itself at a random point of its life, so that a fleet that joined
//! together does not renew together, and so early that a manager may be away for hours.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use backon::{ExponentialBuilder, Retryable as _};
use jiff::Timestamp;
use secretfs_wire::api::RenewRequest;
use tokio::sync::Notify;

use super::chance;
use super::identity::{CertificateRequest, certificate_end};
use super::presence::Node;
use crate::client::{ClientError, Credentials, NodeClient};

/// Where in the life that a certificate has left it is renewed.
const POINT: Range<f64> = 0.5..0.8;

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

/// How long to wait before a certificate that ends at `end` is renewed: a random half to four
/// fifths of what is left, and nothing when it has ended.
pub(super) fn wait_before_renewal(now: Timestamp, end: Timestamp) -> Duration {
    let left = Duration::try_from(end.duration_since(now)).unwrap_or(Duration::ZERO);
    left.mul_f64(POINT.start + (POINT.end - POINT.start) * chance::fraction())
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
        tokio::time::sleep(wait_before_renewal(Timestamp::now(), end)).await;
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
        let waits: Vec<_> = (0..200).map(|_| wait_before_renewal(now, end).as_secs_f64()).collect();
        assert!(waits.iter().all(|wait| (500.0..=800.0).contains(wait)), "{waits:?}");
        let spread =
            waits.iter().copied().fold(f64::MIN, f64::max) - waits.iter().copied().fold(f64::MAX, f64::min);
        assert!(spread > 100.0, "a fleet would renew together: {spread}");
    }

    #[test]
    fn a_certificate_that_has_ended_is_renewed_at_once() {
        assert_eq!(wait_before_renewal(Timestamp::MAX, Timestamp::UNIX_EPOCH), Duration::ZERO);
    }
}
