//! Packets between holder and worker.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// The largest message. The largest there is names all mounts.
const MOST_BYTES: usize = 128 << 10;
/// SCM_MAX_FD of linux/net/scm.h.
pub(crate) const MOST_DESCRIPTORS: usize = 253;

/// One end of the connection between a holder and one of its workers.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// Descriptors that came with a message.
pub(crate) type Descriptors = std::vec::IntoIter<OwnedFd>;

/// Why nothing was sent or received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The other end is closed.
    #[error("the other process has ended")]
    Ended,
    /// Nothing is there, or no room is; only where the caller does not want to wait.
    #[error("the other process does not answer")]
    WouldBlock,
    /// What came is no message, or one of another version.
    #[error("the message cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// What came is too large for a message.
    #[error("the message is too large")]
    TooLarge,
    /// The system refused.
    #[error("the socket failed")]
    System(#[source] io::Error),
}

impl From<Errno> for ChannelError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET => Self::Ended,
            Errno::AGAIN => Self::WouldBlock,
            error => Self::System(error.into()),
        }
    }
}

impl Channel {
    /// The two ends of a new channel.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// The end that `socket` is.
    pub(crate) const fn over(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// The socket.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.0
    }

    /// Sends a message and waits until there is room for it.
    ///
    /// # Errors
    /// All but [`ChannelError::WouldBlock`].
    pub(crate) fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.send_with(message, descriptors, SendFlags::NOSIGNAL)
    }

    /// Sends a message if there is room for it.
    ///
    /// # Errors
    /// [`ChannelError::WouldBlock`] when the other side has not read for long.
    pub(crate) fn try_send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.send_with(message, descriptors, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<(), ChannelError> {
        // Wiped, because a message may have a private key.
        let text = Zeroizing::new(serde_json::to_vec(message).map_err(ChannelError::Malformed)?);
        if text.len() > MOST_BYTES || descriptors.len() > MOST_DESCRIPTORS {
            return Err(ChannelError::TooLarge);
        }
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(ChannelError::TooLarge);
        }
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, flags)?;
        Ok(())
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// All but [`ChannelError::WouldBlock`].
    pub(crate) fn receive(&self) -> Result<Packet, ChannelError> {
        self.receive_with(RecvFlags::CMSG_CLOEXEC)
    }

    /// Takes a message that is there.
    ///
    /// # Errors
    /// [`ChannelError::WouldBlock`] when there is none.
    pub(crate) fn try_receive(&self) -> Result<Packet, ChannelError> {
        self.receive_with(RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
    }

    fn receive_with(&self, flags: RecvFlags) -> Result<Packet, ChannelError> {
        // First how long it is: a worker whose turn has come should not touch memory for nothing.
        let (_, length) = loop {
            match recv(&self.0, &mut [0; 0], flags | RecvFlags::PEEK | RecvFlags::TRUNC) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        if length > MOST_BYTES {
            return Err(ChannelError::TooLarge);
        }
        let mut text = Zeroizing::new(vec![0; length]);
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut control, flags) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        if received.flags.contains(ReturnFlags::TRUNC) || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ChannelError::TooLarge);
        }
        if received.bytes == 0 {
            return Err(ChannelError::Ended);
        }
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        text.truncate(received.bytes);
        Ok(Packet { text, descriptors: descriptors.into_iter() })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A message that has been received and not yet read.
pub(crate) struct Packet {
    text: Zeroizing<Vec<u8>>,
    /// What came with it.
    pub(crate) descriptors: Descriptors,
}

impl Packet {
    /// Reads it.
    ///
    /// # Errors
    /// [`ChannelError::Malformed`].
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, ChannelError> {
        serde_json::from_slice(&self.text).map_err(ChannelError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{FORMAT, FromWorker, Opening, Sequence};
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (one, other) = Channel::pair().expect("a channel");
        let (reader, writer) = io::pipe().expect("a pipe");
        one.send(&FromWorker::Manifest(Sequence(7)), &[writer.as_fd()]).expect("sent");
        drop(writer);
        let mut packet = other.receive().expect("received");
        assert!(matches!(packet.read().expect("read"), FromWorker::Manifest(Sequence(7))));
        let writer = packet.descriptors.next().expect("a descriptor");
        rustix::io::write(&writer, b"x").expect("written");
        assert_eq!(rustix::io::read(&reader, &mut [0; 8]).expect("read"), 1);
    }

    #[test]
    fn the_end_of_the_other_process_is_seen_after_what_it_said() {
        let (one, other) = Channel::pair().expect("a channel");
        assert!(matches!(other.try_receive(), Err(ChannelError::WouldBlock)));
        one.send(&FromWorker::Serving, &[]).expect("sent");
        drop(one);
        assert!(other.receive().is_ok());
        assert!(matches!(other.receive(), Err(ChannelError::Ended)));
        assert!(matches!(other.send(&FromWorker::Serving, &[]), Err(ChannelError::Ended)));
    }

    #[test]
    fn the_format_is_read_from_a_message_of_any_version() {
        let (one, other) = Channel::pair().expect("a channel");
        one.send(&serde_json::json!({ "format": FORMAT + 1, "of": "the future" }), &[]).expect("sent");
        let opening: Opening = other.receive().expect("received").read().expect("read");
        assert_eq!(opening.format, FORMAT + 1);
    }
}
