//! How a command fails: one line on stderr that says what was wrong and what to do next, and an
//! exit code for scripts.

use std::process::ExitCode;

use secretfs_wire::api::ErrorCode;

use super::output;
use crate::client::ClientError;
use crate::host::error_chain;
use crate::host::logging::last_words;

/// The exit codes of the command line contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Denied = 4,
    Unreachable = 5,
}

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// It was tried and did not work.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    /// It was asked for in a way that cannot be done.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    /// It is not allowed, or not any more.
    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self { exit: Exit::Denied, message: message.into() }
    }

    /// Nobody answers.
    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.into() }
    }

    /// It did not work, with every cause that the error names.
    pub(super) fn from_error(error: &dyn std::error::Error) -> Self {
        Self::failed(error_chain(error))
    }

    /// What it was asked for is not there.
    pub(super) fn not_found(error: &dyn std::error::Error) -> Self {
        Self { exit: Exit::NotFound, message: error_chain(error) }
    }

    /// Adds what to do next.
    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.message = format!("{}; {hint}", self.message);
        self
    }

    /// Writes the line and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        last_words(&self.message);
        ExitCode::from(self.exit as u8)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        if let ClientError::Busy { refusal, .. } = error {
            return Self::from(*refusal);
        }
        let exit = match &error {
            ClientError::Unreachable { .. }
            | ClientError::NoConnection { .. }
            | ClientError::Untrusted
            | ClientError::WrongClock { .. } => Exit::Unreachable,
            ClientError::Malformed { .. } | ClientError::Busy { .. } => Exit::Failed,
            ClientError::Refused(refusal) => match refusal.code {
                ErrorCode::NotFound => Exit::NotFound,
                ErrorCode::Denied | ErrorCode::Unauthenticated | ErrorCode::PendingApproval => Exit::Denied,
                // Worth another try in all cases, and of no use at once.
                ErrorCode::Unavailable | ErrorCode::AuditUnavailable | ErrorCode::RateLimited => {
                    Exit::Unreachable
                }
                ErrorCode::Invalid
                | ErrorCode::Conflict
                | ErrorCode::Superseded
                | ErrorCode::SessionUnknown
                | ErrorCode::TooLarge
                | ErrorCode::Internal => Exit::Failed,
            },
        };
        let message = match error {
            ClientError::Unreachable { reason } | ClientError::NoConnection { reason } => {
                format!("cannot reach the manager: {reason}; is it running, and is --manager right?")
            }
            other => other.to_string(),
        };
        Self { exit, message }
    }
}

impl From<output::WriteError> for Failure {
    fn from(error: output::WriteError) -> Self {
        Self::failed(format!("cannot write the result: {error}"))
    }
}
