//! What every role asks of the host it runs on: files that only their owner reads, and memory that
//! only this process reads.

pub(crate) mod files;
mod hardening;

pub(crate) use hardening::harden;
