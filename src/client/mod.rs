//! The manager as its callers see it, over mutually authenticated TLS.

mod admission;
mod audit;
mod certificate;
mod clock;
mod error;
mod http;
mod link;
mod node;
mod operator;
mod operators;
mod tls;

pub(crate) use admission::{Admission, join, login};
pub(crate) use audit::{AUDIT_LINE_MAX_BYTES, AuditExtent, AuditLines};
pub(crate) use certificate::{CertificateRequest, CertificateSummary, certificate_end};
pub(crate) use clock::{ManagerClock, describe as describe_clock};
pub(crate) use error::ClientError;
pub(crate) use http::retry_after;
pub(crate) use node::NodeClient;
pub(crate) use operator::{EnvironmentClient, NewValue, OperatorClient};
pub(crate) use operators::OperatorsClient;
pub(crate) use tls::Credentials;
