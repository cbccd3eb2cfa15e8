//! The API, driven as a service.

mod authorization;
mod delivery;
mod identity;
mod limits;
mod policies;
mod refusals;
mod templates;
mod usage;
