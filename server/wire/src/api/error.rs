//! What the manager answers when it does not do what it was asked.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of refusal. A caller decides by the code; the message is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ErrorCode {
    /// The request is malformed, or asks for what the grammar refuses.
    Invalid,
    /// There is no valid client certificate, or none that the manager still honours.
    Unauthenticated,
    /// The caller is known but may not do this.
    Denied,
    /// The node waits for an operator's approval.
    PendingApproval,
    /// It does not exist, or the caller may not know that it does.
    NotFound,
    /// It exists already, or is in use.
    Conflict,
    /// A node asked for a version that is no longer the current one.
    Superseded,
    /// The node's session is not known to this manager, or has expired.
    SessionUnknown,
    /// The body is larger than allowed.
    TooLarge,
    /// The caller asks too often, or has failed too often; `Retry-After` says when to come back.
    RateLimited,
    /// The manager cannot do it now.
    Unavailable,
    /// The manager cannot record it, and does nothing without a record.
    AuditUnavailable,
    /// The manager failed.
    Internal,
}

impl ErrorCode {
    /// The code's word, such as `not_found`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::PendingApproval => "pending_approval",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Superseded => "superseded",
            Self::SessionUnknown => "session_unknown",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
            Self::AuditUnavailable => "audit_unavailable",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
        }
    }
}

/// The body of every response that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ApiError,
}

/// One refusal: what was wrong and, where the manager knows, what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiError {
    /// The kind.
    pub code: ErrorCode,
    /// What was wrong, in one line.
    pub message: String,
    /// What to do next, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ApiError {}
