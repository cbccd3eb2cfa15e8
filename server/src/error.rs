//! What a request can fail with, and what its caller is told about it.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use secretfs_wire::api::{ApiError, ErrorBody, ErrorCode};
use secretfs_wire::{
    EnvironmentName, KeyFingerprint, NodeName, OperatorName, SecretName, ServiceName, TargetName, TokenId,
};

use crate::audit::AuditError;
use crate::authz::Denial;
use crate::keys::{BackendFault, KeyError};
use crate::limits::Limit;
use crate::store::StoreError;

/// Why a request was not served. Its `Display` is what the caller reads; causes that only the
/// manager's owner may know are sources, and go to the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unauthenticated(&'static str),
    #[error("a {caller} may not do this")]
    Denied { caller: &'static str },
    #[error("{0}")]
    NotAllowed(Box<Denial>),
    #[error("this token is for node {name}, and for no other")]
    TokenForAnother { name: NodeName },
    #[error("this node waits for an operator's approval")]
    PendingApproval,
    #[error("there is no {kind} {name}")]
    NotFound { kind: &'static str, name: String },
    #[error("nothing of this name is assigned to this node")]
    NotVisible,
    #[error("there is no such path")]
    NoRoute,
    #[error("this path does not know this method")]
    NoMethod,
    #[error("{kind} {name} exists already")]
    Exists { kind: &'static str, name: String },
    #[error("environment {name} still has {what}")]
    NotEmpty { name: String, what: &'static str },
    #[error("secret {name} is attached to {}", list(.by))]
    Attached { name: String, by: Vec<ServiceName> },
    #[error("target {target} of this service holds something else")]
    TargetTaken { target: String },
    #[error("secret {name} is used by template {} of this service", list(.by))]
    InTemplates { name: String, by: Vec<TargetName> },
    #[error("operator {name} is the last one who can administer everything")]
    LastAdmin { name: String },
    #[error("operator {name} was enrolled in one environment, and can have roles in that one only")]
    RoleOutsideScope { name: OperatorName },
    #[error("who operator {name} is, is not for environment {environment} to decide")]
    OtherScope { name: OperatorName, environment: EnvironmentName },
    #[error("policy {policy} names operator {name}, so no single environment says who that is")]
    NamedByPolicy { name: OperatorName, policy: String },
    #[error("node {name} is revoked for good")]
    Revoked { name: String },
    #[error("the certificate of node {name} ended while it waited, so that it cannot come back")]
    CertificateEnded { name: String },
    #[error("node {name} has another fingerprint: {fingerprint}")]
    OtherFingerprint { name: String, fingerprint: KeyFingerprint },
    #[error("node {node} has joined with token {id}")]
    TokenUsed { id: TokenId, node: String },
    #[error("too many {}; try again in {} s", limit.of_what(), seconds(*wait))]
    RateLimited { limit: Limit, wait: Duration },
    #[error("secret {name} was changed by somebody else at the same time")]
    Raced { name: String },
    #[error("this version is no longer the current one")]
    Superseded,
    #[error("this session is not known, or has expired")]
    SessionUnknown,
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the key was changed by somebody else at the same time")]
    KeyChanged,
    #[error("{0}")]
    KeyInUse(String),
    #[error("version {version} of secret {secret} was not sealed for the place where it is stored")]
    Damaged { secret: SecretName, version: u64 },
    /// What the caller reads of a key's failure depends on which it is.
    #[error("{}", key_message(.0))]
    Key(#[source] KeyError),
    #[error("{}", match .was_done {
        true => "this was done, and the manager cannot record how it ended",
        false => "the manager cannot record this, and does nothing without a record",
    })]
    Unrecorded {
        was_done: bool,
        #[source]
        cause: AuditError,
    },
    #[error("the manager is sealed")]
    Sealed,
    #[error("the manager cannot do this now")]
    Unavailable(#[source] Cause),
    #[error("the manager failed")]
    Internal(#[source] Cause),
}

/// The cause behind a failure, for the log.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

fn list(names: &[impl ToString]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// The kind and the HTTP status. Every variant stands here; there is no other mapping.
    fn kind(&self) -> (ErrorCode, StatusCode) {
        match self {
            Self::Invalid(_) => (ErrorCode::Invalid, StatusCode::BAD_REQUEST),
            Self::NoMethod => (ErrorCode::Invalid, StatusCode::METHOD_NOT_ALLOWED),
            Self::Unauthenticated(_) => (ErrorCode::Unauthenticated, StatusCode::UNAUTHORIZED),
            Self::Denied { .. } | Self::NotAllowed(_) | Self::TokenForAnother { .. } => {
                (ErrorCode::Denied, StatusCode::FORBIDDEN)
            }
            Self::PendingApproval => (ErrorCode::PendingApproval, StatusCode::FORBIDDEN),
            Self::NotFound { .. } | Self::NotVisible | Self::NoRoute => {
                (ErrorCode::NotFound, StatusCode::NOT_FOUND)
            }
            Self::Exists { .. }
            | Self::NotEmpty { .. }
            | Self::Attached { .. }
            | Self::TargetTaken { .. }
            | Self::InTemplates { .. }
            | Self::Revoked { .. }
            | Self::CertificateEnded { .. }
            | Self::OtherFingerprint { .. }
            | Self::TokenUsed { .. }
            | Self::LastAdmin { .. }
            | Self::RoleOutsideScope { .. }
            | Self::OtherScope { .. }
            | Self::NamedByPolicy { .. }
            | Self::KeyChanged
            | Self::KeyInUse(_)
            | Self::Raced { .. } => (ErrorCode::Conflict, StatusCode::CONFLICT),
            Self::Damaged { .. } => (ErrorCode::Internal, StatusCode::INTERNAL_SERVER_ERROR),
            Self::Key(error) => key_kind(error),
            Self::Unrecorded { .. } => (ErrorCode::AuditUnavailable, StatusCode::SERVICE_UNAVAILABLE),
            Self::Superseded => (ErrorCode::Superseded, StatusCode::CONFLICT),
            Self::SessionUnknown => (ErrorCode::SessionUnknown, StatusCode::CONFLICT),
            Self::TooLarge { .. } => (ErrorCode::TooLarge, StatusCode::PAYLOAD_TOO_LARGE),
            Self::RateLimited { .. } => (ErrorCode::RateLimited, StatusCode::TOO_MANY_REQUESTS),
            Self::Sealed | Self::Unavailable(_) => (ErrorCode::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
            Self::Internal(_) => (ErrorCode::Internal, StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// What the caller can do next, where the manager knows.
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotAllowed(denial) => return denial.hint(),
            Self::TokenForAnother { .. } => "join without --name, or ask for a token for the other name",
            Self::PendingApproval => "ask an operator for `secretfs node approve`",
            Self::NotEmpty { .. } => "remove that first",
            Self::Attached { .. } => "detach it first with `secretfs service detach`",
            Self::TargetTaken { .. } => "remove that first, or choose another target",
            Self::InTemplates { .. } => {
                "change or remove the template first with `secretfs service template`"
            }
            Self::Revoked { .. } => "remove it and join again with a new token",
            Self::CertificateEnded { .. } => {
                "remove it with `secretfs node rm`, and let the host join again with a new token"
            }
            Self::OtherFingerprint { .. } => {
                "compare with `secretfs node status` on that host; if it is another one, remove this node"
            }
            Self::TokenUsed { .. } => "to shut that node out use `secretfs node revoke`",
            Self::LastAdmin { .. } => "make somebody else admin everywhere first, who has logged in",
            Self::RoleOutsideScope { name } => {
                return Some(format!(
                    "after an admin of all environments has enrolled them anew (`secretfs operator enroll {name} \
                     --all-environments`) and they have logged in, they can have any role"
                ));
            }
            Self::OtherScope { .. } | Self::NamedByPolicy { .. } => {
                "it takes an admin of all environments, with --all-environments"
            }
            Self::Exists { kind: "operator", .. } => {
                "to give them a role use `secretfs operator grant`, for a new token `secretfs operator enroll`"
            }
            Self::Raced { .. } => "look at it and try again",
            Self::KeyChanged => "try again",
            Self::KeyInUse(_) => "move them first with `secretfs key rewrap`",
            Self::Damaged { .. } => "rotate the secret, or restore the store from a backup",
            Self::Key(KeyError::NotConfigured(_)) => {
                "add its section to the manager's configuration, and restart it"
            }
            Self::Unrecorded { .. } => "see what the manager's health says, and mend that",
            Self::Sealed => "unlock it on its host with `secretfs manager unlock`",
            Self::SessionUnknown => "begin a new session",
            Self::Exists { kind: "node", .. } => {
                "revoke or remove that node first, or join under another name"
            }
            Self::Exists { kind: "secret", .. } => "to give it a new value, rotate it",
            Self::NotFound { kind: "environment", .. } => "create it with `secretfs env create`",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The kind, as the caller is told it.
    pub(crate) fn code(&self) -> ErrorCode {
        self.kind().0
    }

    /// Something that must not happen, and why it did.
    pub(crate) fn internal(cause: impl Into<Cause>) -> Self {
        Self::Internal(cause.into())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing { kind, name } => Self::NotFound { kind, name },
            StoreError::Exists { kind, name } => Self::Exists { kind, name },
            StoreError::NotEmpty { name, what } => Self::NotEmpty { name, what },
            StoreError::Attached { name, by } => Self::Attached { name, by },
            StoreError::TargetTaken { target } => Self::TargetTaken { target },
            StoreError::InTemplates { name, by } => Self::InTemplates { name, by },
            StoreError::InputMissing { .. } => Self::Invalid(error.to_string()),
            StoreError::Revoked { name } => Self::Revoked { name },
            StoreError::CertificateEnded { name } => Self::CertificateEnded { name },
            StoreError::OtherFingerprint { name, fingerprint } => {
                Self::OtherFingerprint { name, fingerprint }
            }
            StoreError::Raced { name } => Self::Raced { name },
            StoreError::NoEarlierVersion { .. } => Self::Invalid(error.to_string()),
            StoreError::KeyInUse { .. } => Self::KeyInUse(error.to_string()),
            StoreError::KeyRetired { .. } => Self::KeyChanged,
            StoreError::TokenRefused => {
                Self::Unauthenticated("this token is wrong, used, withdrawn or expired; ask for a new one")
            }
            StoreError::TokenUsed { id, node } => Self::TokenUsed { id, node },
            StoreError::LastAdmin { name } => Self::LastAdmin { name },
            StoreError::RoleOutsideScope { name } => Self::RoleOutsideScope { name },
            StoreError::OtherScope { name, environment } => Self::OtherScope { name, environment },
            StoreError::Busy(_) | StoreError::Full(_) => Self::Unavailable(Box::new(error)),
            StoreError::Database(_) | StoreError::Corrupt { .. } => Self::internal(error),
        }
    }
}

impl From<AuditError> for Error {
    fn from(cause: AuditError) -> Self {
        match cause {
            AuditError::Unfit => Self::Invalid(cause.to_string()),
            cause => Self::Unrecorded { was_done: false, cause },
        }
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

/// Whole seconds, so that who waits so long is let in.
fn seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

/// Files and cryptography are the manager's own; what a key backend outside of it says is for
/// whoever has to mend it.
fn key_message(error: &KeyError) -> String {
    match error {
        KeyError::Exists(_)
        | KeyError::NotConfigured(_)
        | KeyError::Backend { .. }
        | KeyError::Missing(_) => error.to_string(),
        KeyError::File { .. } => "the manager cannot do this now".to_owned(),
        KeyError::Refused | KeyError::Crypto | KeyError::Size(_) => "the manager failed".to_owned(),
    }
}

fn key_kind(error: &KeyError) -> (ErrorCode, StatusCode) {
    match error {
        _ if error.is_transient() => (ErrorCode::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        KeyError::Exists(_) | KeyError::Backend { fault: BackendFault::NotAllowed(_), .. } => {
            (ErrorCode::Conflict, StatusCode::CONFLICT)
        }
        KeyError::NotConfigured(_) => (ErrorCode::Invalid, StatusCode::BAD_REQUEST),
        KeyError::Missing(_)
        | KeyError::Refused
        | KeyError::Crypto
        | KeyError::Size(_)
        | KeyError::File { .. }
        | KeyError::Backend { .. } => (ErrorCode::Internal, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (code, status) = self.kind();
        match &self {
            Self::Internal(cause) | Self::Unavailable(cause) => {
                tracing::error!(cause = %chain(cause.as_ref()), "a request failed");
            }
            Self::Key(error) => tracing::error!(cause = %chain(error), "a request failed"),
            _ => {}
        }
        let error = ApiError { code, message: self.to_string(), hint: self.hint() };
        let mut response = (status, Json(ErrorBody { error })).into_response();
        if let Self::RateLimited { wait, .. } = self {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
        }
        // For the record of the call.
        response.extensions_mut().insert(code);
        response
    }
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn the_cause_of_a_failure_stays_in_the_log() {
        for error in [Error::internal("canary"), Error::Unavailable("canary".into())] {
            let response = error.into_response();
            assert!(response.status().is_server_error());
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            let body: ErrorBody = serde_json::from_slice(&body).expect("an error body");
            assert!(!format!("{body:?}").contains("canary"));
        }
    }
}
