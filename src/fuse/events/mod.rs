//! inotify events: what watchers are told, its way to the notifier, and the answers to the system calls
//! that the notifier makes so that the kernel tells them.
//!
//! A worker says what has changed ([`Backlog`], [`EventSender`]); the notifier shows what it is about to do
//! ([`Stage`]) and does it on its own mount; the worker that gets it as a request answers it
//! ([`Announced`]).

mod announced;
mod backlog;
mod event;
mod newcomers;
mod queue;
mod stage;

pub(in crate::fuse) use self::announced::Announced;
pub(in crate::fuse) use self::backlog::Backlog;
pub(crate) use self::backlog::Watched;
pub(crate) use self::event::{Deed, Event, Inotify};
pub(in crate::fuse) use self::newcomers::Newcomers;
pub(crate) use self::queue::{EventReceiver, EventSender, event_queue};
pub(in crate::fuse) use self::stage::Doing;
pub(crate) use self::stage::Stage;
