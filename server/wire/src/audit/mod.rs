//! The audit log: what its records say.

mod event;
mod mode;

pub use event::{Actor, Event, EventId, Object, Outcome, Process};
pub use mode::{AuditMode, InvalidAuditMode};
