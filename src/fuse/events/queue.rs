//! Events on their way from the worker to the notifier.
//!
//! Both ends are the holder's too, so that what is in the queue survives the worker that put it there
//! and the notifier that has not taken it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use super::event::Event;

/// How many events travel together. With the longest names there are, a packet is far from too large.
pub(super) const MOST_EVENTS: usize = 32;
const MOST_BYTES: usize = 64 << 10;

/// The end where events go in.
#[derive(Debug)]
pub(crate) struct EventSender(OwnedFd);

/// The end where they come out.
#[derive(Debug)]
pub(crate) struct EventReceiver(OwnedFd);

/// Makes a queue.
///
/// # Errors
/// What the system says.
pub(crate) fn event_queue() -> io::Result<(EventSender, EventReceiver)> {
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((EventSender(one), EventReceiver(other)))
}

impl EventSender {
    /// The end that `socket` is.
    pub(crate) const fn over(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Puts events in, up to [`MOST_EVENTS`] of them. Never waits.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is no room.
    pub(super) fn try_send(&self, events: &[Event]) -> io::Result<()> {
        let packet = serde_json::to_vec(events)?;
        send(&self.0, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl EventReceiver {
    /// The end that `socket` is.
    pub(crate) const fn over(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Waits for the next events and leaves them in the queue, for another process to find should
    /// this one be killed.
    ///
    /// # Errors
    /// When nobody is left who could put any in, and when what is there cannot be read.
    pub(crate) fn peek(&self) -> io::Result<Vec<Event>> {
        let mut packet = vec![0; MOST_BYTES];
        let length = loop {
            match recv(&self.0, &mut packet, RecvFlags::PEEK) {
                Err(Errno::INTR) => {}
                other => break other?.0,
            }
        };
        match packet.get(..length) {
            None | Some([]) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(packet) => Ok(serde_json::from_slice(packet)?),
        }
    }

    /// Takes away what was found.
    ///
    /// # Errors
    /// When there is nothing.
    pub(crate) fn take(&self) -> io::Result<()> {
        recv(&self.0, &mut [0; 1], RecvFlags::DONTWAIT)?;
        Ok(())
    }
}

impl AsFd for EventSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for EventReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
