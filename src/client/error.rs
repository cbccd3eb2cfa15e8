use std::time::Duration;

use rustls::CertificateError;
use secretfs_wire::api::{ApiError, ErrorCode};

use super::clock;
use crate::host::innermost_cause;

/// Why a call to the manager did not do what it should.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ClientError {
    /// No connection, no answer in time, or a TLS handshake that either side refused.
    #[error("{reason}")]
    Unreachable {
        /// The innermost cause, which names the step that failed.
        reason: String,
    },
    /// A TLS handshake that failed because the clocks of both differ.
    #[error("{reason}")]
    WrongClock {
        /// By how much, as far as it can be told, and what to do.
        reason: String,
    },
    /// What answered shows a certificate of another CA than the manager's. A sealed manager has no other.
    #[error(
        "the manager's certificate is not of its CA: it is sealed and waits for `secretfs manager unlock`, or \
         somebody else answers at its address"
    )]
    Untrusted,
    /// No connection to wait at: nothing listens, no way there, or no packet comes back. To try again
    /// costs the manager nothing.
    #[error("{reason}")]
    NoConnection {
        /// The innermost cause.
        reason: String,
    },
    /// The manager refused.
    #[error("{0}")]
    Refused(ApiError),
    /// The manager refused, and said when to come back.
    #[error("{refusal}")]
    Busy {
        /// How it refused.
        refusal: Box<Self>,
        /// How long it wants to be left alone.
        retry_after: Duration,
    },
    /// What answered does not speak as a manager does.
    #[error("the answer is not a secretfs manager's: {reason}")]
    Malformed {
        /// What was wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// How long to wait, if the manager refused only since it was asked too often.
    pub(crate) fn rate_limit(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } if self.code() == Some(ErrorCode::RateLimited) => {
                Some(*retry_after)
            }
            _ => None,
        }
    }

    /// The manager's code, when it was the manager that refused.
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            Self::Busy { refusal, .. } => refusal.code(),
            Self::Unreachable { .. }
            | Self::WrongClock { .. }
            | Self::Untrusted
            | Self::NoConnection { .. }
            | Self::Malformed { .. } => None,
        }
    }
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        match handshake_error(&error) {
            // The CAs of all managers have one name, so the signature of another one's is a wrong one.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => return Self::Untrusted,
            Some(failed) => {
                if let Some(reason) = clock::explain(failed) {
                    return Self::WrongClock { reason };
                }
            }
            None => {}
        }
        if error.is_timeout() {
            return Self::Unreachable { reason: "no answer in time".to_owned() };
        }
        let reason = innermost_cause(&error);
        if error.is_decode() { Self::Malformed { reason } } else { Self::Unreachable { reason } }
    }
}

/// What TLS says of a handshake that failed. It is inside of I/O errors, whose `source` leaves out what
/// they hold.
fn handshake_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    handshake_error(held.map(|held| held as _).or_else(|| error.source())?)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_tls_says_is_found_in_errors_of_errors() {
        let said = rustls::Error::DecryptError;
        let outer = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, said.clone()));
        assert_eq!(handshake_error(&outer), Some(&said));
        assert_eq!(handshake_error(&io::Error::other("no TLS")), None);
    }
}
