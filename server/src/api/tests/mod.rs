//! The API, driven as a service.

mod authorization;
mod delivery;
mod refusals;
mod templates;
mod usage;
