//! The file system in the kernel: mounting it, answering it, telling it what to forget.
//!
//! This is the only module that names `fuser`, and it decides nothing: what a program may see and
//! what it is told when it may not is up to [`crate::fs`]. Mounting ([`Mount`]) and answering
//! ([`Server`]) are done by different processes; between them is a [`Connection`].

mod adapter;
pub(crate) mod attach;
mod connection;
pub(crate) mod device;
mod error;
mod events;
mod journal;
mod mount;
mod mount_point;
pub(crate) mod mount_table;
mod notices;
mod refusal;
mod resume;
mod server;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use self::attach::{Audience, Superblock};
pub(crate) use self::connection::{Agreement, Connection};
pub(crate) use self::error::MountError;
pub(crate) use self::events::{
    Deed, Event, EventReceiver, EventSender, Inotify, Stage, Watched, event_queue,
};
pub(crate) use self::journal::{Blame, Journal};
pub(crate) use self::mount::Mount;
pub(crate) use self::mount_table::{MountTable, MountTableWatch};
pub(crate) use self::refusal::PreparedRefusal;
pub(crate) use self::server::{PreparedServer, Server};
