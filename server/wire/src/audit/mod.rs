//! The audit log: what its records say.

mod event;

pub use event::{Actor, Event, EventId, Object, Outcome, Process};
