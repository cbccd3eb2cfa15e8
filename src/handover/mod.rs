//! What the holder of a mount and its workers say to each other, and what one worker leaves to the
//! next.
//!
//! A worker may be killed at any instruction. What must not be lost with it is therefore never only
//! in it: values and open files are in memory that the holder keeps ([`Ledger`], and the arena of
//! [`crate::cache`]), and a manifest is given to the holder before it is shown. Holder and worker may
//! be of different versions: the first message says in which format the others are, and who cannot
//! read it says so and leaves everything as it was.

mod channel;
pub(crate) mod document;
mod ledger;
mod message;
mod outbox;

pub(crate) use self::channel::{Channel, ChannelError, MOST_DESCRIPTORS, Packet};
pub(crate) use self::ledger::Ledger;
pub(crate) use self::message::{
    Activation, Begin, Duty, FORMAT, FromHolder, FromWorker, MountToServe, Opening, Sequence, ServeConfig,
    User,
};
pub(crate) use self::outbox::Outbox;
