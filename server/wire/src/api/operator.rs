use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{EnvironmentName, Grant, OperatorName, Role};

/// A person or a job that the manager knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Operator {
    /// The operator's name.
    pub name: OperatorName,
    /// Whether they can act.
    pub state: OperatorState,
    /// The one environment that enrolled the operator, and outside of which they have no roles; all if it is
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<EnvironmentName>,
    /// The operator's roles, as far as whoever asks may see them.
    pub grants: Vec<Grant>,
    /// When the operator was added.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
    /// When the operator's newest certificate ends, unless it is renewed. Not known of an operator from
    /// before certificates were short, until the first renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub certificate_expires: Option<Timestamp>,
    /// Until when somebody can log in as this operator with a token that was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub enrolment_expires: Option<Timestamp>,
}

/// Whether an operator can act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OperatorState {
    /// Nobody has logged in as this operator yet.
    Invited,
    /// There is a certificate that is good.
    Active,
    /// The last certificate has ended; a new enrolment is needed.
    Expired,
}

impl OperatorState {
    /// The state's word, such as `active`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Active => "active",
            Self::Expired => "expired",
        }
    }
}

/// Asks for a new operator, with roles where the path says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AddOperator {
    /// The roles. In an environment there is at least one.
    pub roles: Vec<Role>,
    /// How long the enrolment token is good for, in seconds: 1 second to 30 days.
    pub ttl_seconds: u64,
}

/// What went with an operator who was removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RemovedOperator {
    /// Who it was.
    pub operator: OperatorName,
    /// How many open join tokens of theirs were withdrawn.
    pub withdrawn_tokens: u64,
}

/// Asks for an enrolment token for an operator who is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enroll {
    /// How long it is good for, in seconds: 1 second to 30 days.
    pub ttl_seconds: u64,
}

/// An enrolment token, shown this once.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedEnrolment {
    /// Whom it is for.
    pub operator: OperatorName,
    /// The whole token. A credential: whoever has it can become this operator, once.
    pub token: String,
    /// When it is good for nothing.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires: Timestamp,
    /// The manager's URL, as it advertises itself.
    pub manager: String,
}

/// An operator's first words, without a client certificate. Whose token it is says who logs in.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoginRequest {
    /// The secret part of the enrolment token.
    pub token: String,
    /// A PKCS #10 certificate request for the operator's key, as PEM. Only its key and its proof of
    /// possession count; the manager writes the names.
    pub certificate_request: String,
}

/// What an operator is told who has logged in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoggedIn {
    /// Who it is.
    pub operator: Operator,
    /// The certificate, as PEM.
    pub certificate: String,
}
