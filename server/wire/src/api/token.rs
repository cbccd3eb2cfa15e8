use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Labels, NodeName, OperatorName, TokenId};

/// Asks for a join token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateToken {
    /// How long it is good for, in seconds: 1 second to 30 days.
    pub ttl_seconds: u64,
    /// Whether a node that joins with it waits for an operator's approval.
    #[serde(default)]
    pub approval: bool,
    /// Labels that the node has from the start.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The one name that a node can join under. Without it, the node says its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub name: Option<NodeName>,
}

/// A join token, shown this once.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedToken {
    /// Names it from now on.
    pub id: TokenId,
    /// The whole token. A credential: whoever has it can join one node.
    pub token: String,
    /// When it is good for nothing.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires: Timestamp,
    /// The manager's URL, as it advertises itself.
    pub manager: String,
}

/// A join token as listings show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// Names it.
    pub id: TokenId,
    /// What has become of it.
    pub state: TokenState,
    /// Whether it demands approval.
    pub approval: bool,
    /// Labels that the node has from the start.
    pub labels: Labels,
    /// The one name that a node can join under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub name: Option<NodeName>,
    /// When it was created.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created: Timestamp,
    /// By whom. Not known of tokens from before that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub created_by: Option<OperatorName>,
    /// When it is good for nothing.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires: Timestamp,
    /// The node that joined with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<NodeName>,
}

/// What has become of a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TokenState {
    /// A node can join with it.
    Open,
    /// A node has joined with it.
    Used,
    /// It is too late to join with it.
    Expired,
}

impl TokenState {
    /// The state's word, such as `open`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Used => "used",
            Self::Expired => "expired",
        }
    }
}
