//! How much one caller may ask for, and how often it may fail, before it has to wait.
//!
//! Everything here is in memory and bounded. A restart forgets it, which gives away nothing: what is
//! guessed at has 256 random bits. The limits are there so that nobody who fails, or does not stop
//! asking, takes the manager from the others or fills its log.

mod failures;
mod newcomers;
mod refusals;
mod requests;

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use secretfs_wire::NodeId;

use crate::ca::Subject;
use crate::config::LimitsConfig;

use failures::Failures;
use refusals::Refusals;
use requests::RequestLimit;

pub(crate) use newcomers::{Newcomers, Place};
pub(crate) use refusals::Refused;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Limit {
    /// Failed joins and logins of an address: calls that somebody makes who has no identity yet.
    Enrolment,
    /// Failed proofs of an identity, of an address.
    Authentication,
    /// Requests of a node.
    Node,
    /// Opens that a node reports.
    Opens,
    /// Requests of an operator.
    Operator,
}

/// Who is limited.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Limited {
    /// All that comes from an address, or from an IPv6 network.
    Address(IpAddr),
    /// Whoever has this certificate.
    Subject(Subject),
}

/// All limits of a manager, and what they have refused.
pub(crate) struct Limits {
    failures: Failures,
    nodes: RequestLimit<Subject>,
    opens: RequestLimit<NodeId>,
    operators: RequestLimit<Subject>,
    refusals: Refusals,
}

impl Limit {
    /// Its name in metrics and in the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Enrolment => "enrolment",
            Self::Authentication => "authentication",
            Self::Node => "node",
            Self::Opens => "opens",
            Self::Operator => "operator",
        }
    }

    /// Of what there was too much.
    pub(crate) const fn of_what(self) -> &'static str {
        match self {
            Self::Enrolment => "failed joins or logins from this address",
            Self::Authentication => "calls without a valid certificate from this address",
            Self::Node => "requests of this node",
            Self::Opens => "reported opens of this node",
            Self::Operator => "requests of this operator",
        }
    }
}

impl Limits {
    pub(crate) fn new(config: &LimitsConfig) -> Self {
        Self {
            failures: Failures::new(config.failures, config.failure_wait),
            nodes: RequestLimit::new(config.node),
            opens: RequestLimit::new(config.node_opens),
            operators: RequestLimit::new(config.operator),
            refusals: Refusals::default(),
        }
    }

    /// Counts a request of whom a certificate names. How long it has to wait, if it may not be made now.
    pub(crate) fn request(&self, subject: &Subject) -> Result<(), (Limit, Duration)> {
        let (limit, requests) = match subject {
            Subject::Node { .. } => (Limit::Node, &self.nodes),
            Subject::Operator { .. } => (Limit::Operator, &self.operators),
        };
        requests.admit(subject, NonZeroU32::MIN).map_err(|wait| (limit, wait))
    }

    /// Counts opens that a node reports. How long it has to wait with them, if they are too many now.
    pub(crate) fn opens(&self, node: NodeId, count: NonZeroU32) -> Result<(), Duration> {
        self.opens.admit(&node, count)
    }

    /// How long an address has to wait until it may try again, if it has failed too often.
    pub(crate) fn wait(&self, limit: Limit, address: IpAddr) -> Option<Duration> {
        self.failures.wait(limit, address, Instant::now())
    }

    /// Counts a failure of an address.
    pub(crate) fn failed(&self, limit: Limit, address: IpAddr) {
        self.failures.failed(limit, address, Instant::now());
    }

    /// What was refused.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }
}

/// What counts as one address: whoever has one of IPv6 has at least a /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        assert_eq!(network(address("2001:db8:1:2:3:4:5:6")), address("2001:db8:1:2::"));
        assert_ne!(network(address("2001:db8:1:3::1")), address("2001:db8:1:2::"));
        assert_eq!(network(address("192.0.2.1")), address("192.0.2.1"));
        assert_eq!(network(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }
}
