//! The file system in the kernel: mounting it, answering it, telling it what to forget.
//!
//! This is the only module that names `fuser`, and it decides nothing: what a program may see and
//! what it is told when it may not is up to [`crate::fs`].

mod adapter;
mod attach;
mod device;
mod error;
mod mount;
mod mount_point;
mod mount_table;
mod notices;
mod pollers;
#[cfg(test)]
mod tests;

pub(crate) use self::attach::Audience;
pub(crate) use self::error::MountError;
pub(crate) use self::mount::Mount;
