//! The API, driven as a service.

mod audit;
mod authorization;
mod delivery;
mod identity;
mod limits;
mod no_cleartext;
mod opens;
mod operators;
mod policies;
mod refusals;
mod templates;
mod usage;
