use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;

/// Why a collector cannot be reached, or does not take what it is sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectorError {
    /// Nobody speaks so.
    #[error(
        "a collector's URL is https://, http://, tls://, tcp://, udp:// or unix://, with a host or a path"
    )]
    Url,
    /// What is to be told in confidence would be readable on the way.
    #[error("headers are sent over https:// only, or to this host")]
    Exposed,
    /// A file of the trust cannot be used.
    #[error("cannot use {}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No authority is known that may certify a collector.
    #[error("this system trusts no certificate authority; name the collector's")]
    NoRoots,
    /// TLS cannot be spoken.
    #[error("cannot prepare TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No connection, or one that broke.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// No HTTP answer.
    #[error("{reason}")]
    Http {
        /// The innermost cause, which names the step that failed.
        reason: String,
    },
    /// No answer in time.
    #[error("it does not answer in time")]
    Silent,
    /// It answers that it cannot now (OTLP 1.9, "Retryable Response Codes").
    #[error("it is busy (HTTP status {status})")]
    Busy {
        /// How it said so.
        status: StatusCode,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It answers that it will not.
    #[error("it refuses (HTTP status {0})")]
    Refused(StatusCode),
}

impl CollectorError {
    /// Whether it may be otherwise the next time.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Connection(error) => error.kind() != io::ErrorKind::InvalidData,
            Self::Http { .. } | Self::Silent | Self::Busy { .. } => true,
            Self::Url
            | Self::Exposed
            | Self::File { .. }
            | Self::NoRoots
            | Self::Tls(_)
            | Self::Refused(_) => false,
        }
    }

    /// How long it wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
