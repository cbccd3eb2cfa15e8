//! What the tests stand on: real processes, real mounts, real containers, each ended and removed
//! by its guard, also when a test fails.

pub(crate) mod area;
pub(crate) mod clock;
pub(crate) mod cold_readers;
pub(crate) mod engine;
pub(crate) mod fake_manager;
pub(crate) mod image;
pub(crate) mod manager;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod operator;
pub(crate) mod pki;
pub(crate) mod process;
pub(crate) mod readers;
pub(crate) mod recorder;
pub(crate) mod requirement;
pub(crate) mod rsyslog;
pub(crate) mod service_manager;
pub(crate) mod site;
pub(crate) mod supervised;
pub(crate) mod tls;
pub(crate) mod tls_server;
pub(crate) mod traced;
pub(crate) mod watch;

pub(crate) use crate::backends::deadline;
pub(crate) use area::Area;
pub(crate) use node::Node;
pub(crate) use operator::Operator;
pub(crate) use requirement::Need;
pub(crate) use site::Site;
