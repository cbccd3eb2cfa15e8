//! What every role asks of the host it runs on: files that only their owner reads, memory that only
//! this process reads, and memory that outlives it.

pub(crate) mod files;
mod hardening;
pub(crate) mod shared_memory;

pub(crate) use hardening::harden;
