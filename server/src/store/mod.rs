//! What the manager remembers: the [`Store`] trait, its records, and the databases behind it.
//!
//! Each method is one transaction: it happens whole or not at all, and what it returns was true when
//! it committed. Times come from the caller, so that no two parts of a change disagree about now.

mod assignments;
mod audit;
#[cfg(test)]
mod conformance;
mod environments;
mod keys;
mod nodes;
mod operators;
mod publication;
mod secrets;
mod services;
mod sqlite;
mod templates;
mod tokens;

use secretfs_wire::{
    EnvironmentName, KeyFingerprint, KeyReference, OperatorName, ServiceName, TargetName, TokenId,
};

use crate::error::Cause;

pub(crate) use assignments::{Assignments, chooses};
pub(crate) use audit::{
    AppendError, AuditBatch, AuditKeyRecord, AuditLog, AuditMark, Head, LossSource, MOST_OF_ONE_ID, ReportId,
    StoredChain, StoredCheckpoint, StoredRecord,
};
pub(crate) use environments::Environments;
pub(crate) use keys::{KeyRecord, KeyUse, Keys, OutdatedKey, Rewrap};
pub(crate) use nodes::{NewNode, NodeRecord, Nodes};
pub(crate) use operators::{NewEnrolment, NewOperator, Operators};
pub(crate) use publication::{Publication, Published};
#[cfg(test)]
pub(crate) use secrets::CurrentVersion;
pub(crate) use secrets::{Delivery, NewSecret, NewVersion, Secrets};
pub(crate) use services::Services;
pub(crate) use sqlite::{Sqlite, SqliteAudit};
pub(crate) use templates::{NewTemplate, Templates};
pub(crate) use tokens::{NewToken, OpenToken, Tokens};

/// A database that the manager can live on.
pub(crate) trait Store:
    Environments + Operators + Keys + Secrets + Services + Templates + Nodes + Tokens + Publication + AuditMark
{
}

impl<S> Store for S where
    S: Environments
        + Operators
        + Keys
        + Secrets
        + Services
        + Templates
        + Nodes
        + Tokens
        + Publication
        + AuditMark
{
}

/// Why the store did not do what it was asked. The first group is the caller's to solve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("there is no {kind} {name}")]
    Missing { kind: &'static str, name: String },
    #[error("{kind} {name} exists already")]
    Exists { kind: &'static str, name: String },
    #[error("environment {name} still has {what}")]
    NotEmpty { name: String, what: &'static str },
    #[error("secret {name} is still attached")]
    Attached { name: String, by: Vec<ServiceName> },
    #[error("target {target} is taken")]
    TargetTaken { target: String },
    #[error("target {input} is not attached")]
    InputMissing { input: TargetName },
    #[error("secret {name} is in use by templates")]
    InTemplates { name: String, by: Vec<TargetName> },
    #[error("node {name} is revoked")]
    Revoked { name: String },
    #[error("the certificate of node {name} ended while it waited")]
    CertificateEnded { name: String },
    #[error("node {name} has another fingerprint: {fingerprint}")]
    OtherFingerprint { name: String, fingerprint: KeyFingerprint },
    #[error("secret {name} has been changed meanwhile")]
    Raced { name: String },
    #[error("secret {name} has no version before its current one")]
    NoEarlierVersion { name: String },
    #[error("{data_keys} data keys are wrapped under what would be retired of key {key}")]
    KeyInUse { key: KeyReference, data_keys: u64 },
    #[error("version {version} of key {key} is retired")]
    KeyRetired { key: KeyReference, version: u64 },
    #[error("the token is not good")]
    TokenRefused,
    #[error("node {node} has joined with token {id}")]
    TokenUsed { id: TokenId, node: String },
    #[error("operator {name} is the last one who can administer everything")]
    LastAdmin { name: String },
    #[error("operator {name} was enrolled in one environment, and can have roles in that one only")]
    RoleOutsideScope { name: OperatorName },
    #[error("who operator {name} is, is not for environment {environment} to decide")]
    OtherScope { name: OperatorName, environment: EnvironmentName },

    #[error("the disk is full")]
    Full(#[source] Cause),
    #[error("the database is busy")]
    Busy(#[source] Cause),
    #[error("the database failed")]
    Database(#[source] Cause),
    #[error("column {column} holds what the manager never wrote")]
    Corrupt { column: &'static str },
}

impl StoreError {
    fn missing(kind: &'static str, name: impl ToString) -> Self {
        Self::Missing { kind, name: name.to_string() }
    }

    fn exists(kind: &'static str, name: impl ToString) -> Self {
        Self::Exists { kind, name: name.to_string() }
    }
}
