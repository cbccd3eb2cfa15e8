//! What secretfs nodes, operators and managers say to each other.
//!
//! Everything here is sans-IO: checked names and ids, the request and response types of the
//! manager's API, [`SecretBytes`], tokens and the sealed [`envelope`]. There is no socket,
//! no file and no clock, so that each piece can be tested and fuzzed as bytes in, bytes out.

#![forbid(unsafe_code)]

mod action;
pub mod api;
pub mod audit;
pub mod envelope;
mod fingerprint;
mod host;
mod id;
mod key;
mod label;
pub mod manifest;
mod name;
mod ownership;
mod role;
mod secret;
pub mod stream;
pub mod template;
mod token;
mod token_id;

/// How far the clock of a node or an operator may be behind the manager's: certificates are valid from so
/// long before they are issued.
pub const CLOCK_TOLERANCE: std::time::Duration = std::time::Duration::from_secs(5 * 60);

pub use action::{Action, UnknownAction};
pub use fingerprint::{InvalidFingerprint, KeyFingerprint};
pub use host::{HOST_MAX_ADDRESSES, HostFact, HostFacts, MachineDigest};
pub use id::{CallId, ChainId, InstanceId, InvalidId, NodeId, OpenLogId, OperatorId, SessionId, VersionId};
pub use key::{InvalidKeyBackend, KeyBackendKind, KeyReference};
pub use label::{InvalidLabel, Labels, Selector};
pub use name::{
    EnvironmentName, InvalidName, KeyName, NAME_MAX_BYTES, NodeName, OperatorName, SecretName, ServiceName,
    TargetName,
};
pub use ownership::{InvalidMode, Mode, Ownership};
pub use role::{Grant, Role, UnknownRole};
pub use secret::{InvalidSecretSize, SECRET_MAX_BYTES, SecretBytes};
pub use token::{CaPin, EnrolmentToken, InvalidToken, InvalidTokenSecret, JoinToken, TokenSecret};
pub use token_id::{InvalidTokenId, TokenId};
