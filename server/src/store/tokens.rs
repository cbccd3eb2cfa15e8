use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::Token;
use secretfs_wire::{EnvironmentName, Labels, NodeName, OperatorName, TokenId};

use super::StoreError;

/// A join token to be remembered by the SHA-256 of its secret part.
pub(crate) struct NewToken {
    pub(crate) digest: [u8; 32],
    pub(crate) approval: bool,
    pub(crate) labels: Labels,
    /// The one name that it joins, if it is for one.
    pub(crate) name: Option<NodeName>,
    pub(crate) created: Timestamp,
    pub(crate) created_by: OperatorName,
    pub(crate) expires: Timestamp,
}

/// What a token is for that somebody can join with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenToken {
    pub(crate) environment: EnvironmentName,
    pub(crate) name: Option<NodeName>,
}

/// Tokens that nodes join with. Those that are open are withdrawn with the operator who made them: see
/// [`Operators`](super::Operators).
#[async_trait]
pub(crate) trait Tokens: Send + Sync {
    /// The newest first.
    async fn tokens(&self, environment: &EnvironmentName, now: Timestamp) -> Result<Vec<Token>, StoreError>;

    /// Refuses a maker who was removed meanwhile: nobody would withdraw it. Tokens that ended more than
    /// 30 days ago are forgotten on the way.
    async fn create_token(&self, environment: &EnvironmentName, new: NewToken) -> Result<(), StoreError>;

    /// Forgets a token, so that nobody joins with it. Refuses one that somebody has joined with.
    async fn remove_token(&self, environment: &EnvironmentName, id: TokenId) -> Result<(), StoreError>;

    /// What a token that is still good is for, so that a certificate can be made out.
    async fn open_token(&self, digest: &[u8; 32], now: Timestamp) -> Result<OpenToken, StoreError>;
}
