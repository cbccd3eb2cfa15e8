//! What a process gives up for good, so that whoever takes it over has little.
//!
//! - [`capabilities`]: root's powers
//! - [`seccomp`]: system calls that it does not make

pub(crate) mod capabilities;
mod fatal;
pub(crate) mod seccomp;
