//! The manager as its callers see it, over mutually authenticated TLS. Only this module names
//! `reqwest`.

mod clock;
mod error;
mod http;
mod link;
mod node;
mod operator;
mod tls;

pub(crate) use clock::{ManagerClock, describe as describe_clock};
pub(crate) use error::ClientError;
pub(crate) use node::{Admission, NodeClient, join};
pub(crate) use operator::{EnvironmentClient, NewValue, OperatorClient};
pub(crate) use tls::Credentials;
