//! Requests and responses of the manager's API, version 1.
//!
//! Values of secrets are in none of them: an operator sends a value as the raw body of a request,
//! and a node receives one as an [envelope](crate::envelope).

mod environment;
mod error;
mod key;
mod node;
mod open;
mod operator;
mod policy;
mod secret;
mod service;
mod system;
mod token;
mod usage;

pub use environment::{CreateEnvironment, Environment};
pub use error::{ApiError, ErrorBody, ErrorCode};
pub use key::{
    EnvironmentKeys, KeyVersion, MigrateKey, REWRAP_MAX_DATA_KEYS, RefusedVersion, RetiredKey, RewrapStep,
    Rewrapped, RotatedKey,
};
pub use node::{
    ApproveNode, ChangeLabels, Duplicate, EnvelopeRequest, HeardInstance, JoinRequest, Joined, Node,
    NodeState, RenewRequest, Renewed, Session,
};
pub use open::{LostOpens, Open, OpenReport, OpenedVersion, REPORT_MAX_OPENS};
pub use operator::{
    AddOperator, CreatedEnrolment, Enroll, LoggedIn, LoginRequest, Operator, OperatorState, RemovedOperator,
};
pub use policy::{Explain, Explanation, Facts, PoliciesInForce, Policy, PolicyEffect};
pub use secret::{AttachedTo, Rollback, Rotated, Secret, SecretDetails, SecretVersion};
pub use service::{Assignment, Attach, Attachment, Service, ServiceDetails, Template, TemplateDetails};
pub use system::{Health, HealthState};
pub use token::{CreateToken, CreatedToken, Token, TokenState};
pub use usage::{HeldVersion, REPORT_MAX_VERSIONS, SecretUsage, UsageReport, VersionInUse};

/// The media type of values and envelopes.
pub const OCTET_STREAM: &str = "application/octet-stream";
/// The media type of a template's text.
pub const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
/// The media type of the change stream: one [`StreamMessage`](crate::stream::StreamMessage) as JSON in each line.
pub const JSON_LINES: &str = "application/jsonl";
/// The header by which a node's daemon says which one it is: an [`InstanceId`](crate::InstanceId).
pub const INSTANCE_HEADER: &str = "secretfs-instance";
/// The header by which a manager says which chain of the audit log it sends: a [`ChainId`](crate::ChainId).
pub const AUDIT_CHAIN_HEADER: &str = "secretfs-audit-chain";
