//! The API, driven as a service.

mod audit;
mod authorization;
mod delivery;
mod facts;
mod identity;
mod limits;
mod no_cleartext;
mod opens;
mod operators;
mod policies;
mod refusals;
mod scopes;
mod templates;
mod tokens;
mod usage;
