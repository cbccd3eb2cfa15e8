//! An operator's certificate is short and renews itself: a command that finds less than half of its life
//! left asks for the next one when it has done what it was for.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use secretfs_wire::CLOCK_TOLERANCE;
use secretfs_wire::api::RenewRequest;

use super::credentials::IdentityFile;
use crate::client::{CertificateRequest, CertificateSummary, ClientError, OperatorClient};

/// How much longer a command may take for it.
const DEADLINE: Duration = Duration::from_secs(5);
/// How soon it is tried again at least and at most.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(60);

/// What a command needs to renew the certificate that it came with.
#[derive(Clone)]
pub(super) struct Renewal {
    client: OperatorClient,
    file: IdentityFile,
    certificate: CertificateSummary,
}

/// Why a certificate was not renewed. The old one goes on being good.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error("cannot replace the certificate")]
    File(#[from] std::io::Error),
    #[error("cannot make a new key")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    Manager(#[from] ClientError),
}

impl Renewal {
    pub(super) fn new(client: OperatorClient, file: IdentityFile, certificate: CertificateSummary) -> Self {
        Self { client, file, certificate }
    }

    /// How long until it is time, for who goes on for long.
    pub(super) fn wait(&self) -> Duration {
        self.until(half_life(&self.certificate))
    }

    /// How long to wait after an attempt that failed: a tenth of what is left.
    pub(super) fn wait_again(&self) -> Duration {
        (self.until(self.certificate.end) / 10).clamp(AGAIN_FIRST, AGAIN_LAST)
    }

    fn until(&self, time: Timestamp) -> Duration {
        Duration::try_from(time.duration_since(self.client.clock().now())).unwrap_or_default()
    }

    /// Renews the certificate if it is time. Whether that works is nothing that the command failed at.
    pub(super) async fn run_if_due(&self) {
        if !is_due(&self.certificate, self.client.clock().now()) || !self.file.is_own() {
            return;
        }
        match tokio::time::timeout(DEADLINE, self.renew()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the operator's certificate was not renewed"),
            Err(_) => tracing::debug!("the operator's certificate was not renewed in time"),
        }
    }

    async fn renew(&self) -> Result<(), RenewalError> {
        // Another command is at it.
        let Some(_lock) = self.file.try_lock()? else { return Ok(()) };
        // Or has been, or somebody has logged in meanwhile.
        if self.file.summary().as_ref() != Some(&self.certificate) {
            return Ok(());
        }
        let new = CertificateRequest::new()?;
        let renewed = self.client.renew(&RenewRequest { certificate_request: new.request }).await?;
        if CertificateSummary::of(&renewed.certificate).is_none() {
            let reason = "the renewed certificate is not a certificate".to_owned();
            return Err(ClientError::Malformed { reason }.into());
        }
        Ok(self.file.replace(&renewed.certificate, &new.key)?)
    }
}

/// Whether less than half of a certificate's life is left.
fn is_due(certificate: &CertificateSummary, now: Timestamp) -> bool {
    now > half_life(certificate)
}

/// When half of a certificate's life is over.
fn half_life(certificate: &CertificateSummary) -> Timestamp {
    // It is made out to begin earlier than it was made.
    let made = certificate.begin.saturating_add(CLOCK_TOLERANCE).unwrap_or(certificate.begin);
    made + certificate.end.duration_since(made) / 2
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_time_when_less_than_half_of_the_life_is_left() {
        let at = |seconds: i64| Timestamp::from_second(1_700_000_000 + seconds).unwrap();
        let certificate = CertificateSummary { name: "alice".to_owned(), begin: at(-300), end: at(1000) };
        for (now, due) in [(0, false), (499, false), (500, false), (501, true), (2000, true)] {
            assert_eq!(is_due(&certificate, at(now)), due, "{now}");
        }
    }
}
