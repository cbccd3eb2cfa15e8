//! Serves a connection that another process has begun, with a library that always begins its own.
//!
//! fuser 0.18 makes a session of a descriptor only by waiting for `FUSE_INIT` on it, and the kernel
//! says that once in the life of a connection. So the session is given one end of a socket pair, and
//! the other end says what the kernel would: first `FUSE_INIT`, then a request that fills the read
//! buffer. When the connection is to be served, the device takes the place of the socket under the
//! session's descriptor number, and one last message on the socket ends the read that is under way.
//! From then on the session reads from the kernel. This costs some 50 µs, and nothing is patched.
//!
//! The read buffer must be in memory before the first request is: a process that is killed while the
//! kernel copies a request into a page that is not there costs the reader an EIO (measured: 2,790
//! times in 4,990). The library allocates it untouched, so the second message touches it.
//!
//! JUSTIFICATION for unsafe code: replacing a descriptor under the library, which lends it and cannot
//! be asked to give it up.
#![allow(unsafe_code, reason = "the library's descriptor is replaced under it")]

use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use fuser::{Config, Filesystem, Notifier, Session, SessionACL};
use rustix::io::DupFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::connection::{Agreement, Connection};

/// Operation codes of linux/fuse.h.
const FORGET: u32 = 2;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;

/// How much of the read buffer is touched. With the smallest writes no request of the kernel is
/// larger than 16 KiB; a value for setxattr could be 64 KiB if the mount were not read-only.
const TOUCHED: usize = 68 << 10;

/// A session that is ready to serve a connection, with its thread started and its buffer in memory.
pub(super) struct Standby {
    /// The session's descriptor, for as long as its thread runs.
    number: RawFd,
    /// What the thread reads from until it serves.
    socket: OwnedFd,
    notifier: Notifier,
    ended: Receiver<()>,
}

/// A session that serves.
pub(super) struct Serving {
    pub(super) notifier: Notifier,
    /// Disconnected when the kernel has no more requests: unmounted, and the last file closed.
    pub(super) ended: Receiver<()>,
}

impl Standby {
    /// Prepares a session for a connection that began with `agreement`.
    pub(super) fn prepare(agreement: Agreement, filesystem: impl Filesystem) -> io::Result<Self> {
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        send(&socket, &Message::new(INIT).word(7).word(agreement.minor).word(0).capabilities(agreement))?;
        // The library checks again what the kernel has checked: that this user may see the mount.
        let session = Session::from_fd(filesystem, theirs, SessionACL::All, config())?;
        expect_answer(&socket, 0)?;

        let (number, notifier) = (session.as_fd().as_raw_fd(), session.notifier());
        let (sender, ended) = mpsc::channel();
        let run = move || {
            if let Err(error) = session.run() {
                tracing::error!(%error, "the file system is no longer served");
            }
            drop(sender);
        };
        thread::Builder::new().name("secretfs-fuse".to_owned()).spawn(run)?;

        // The library refuses to be interrupted, and by that tells that it has read the message.
        send(&socket, &Message::new(INTERRUPT).double(0).padded(TOUCHED))?;
        expect_answer(&socket, -libc::ENOSYS)?;
        Ok(Self { number, socket, notifier, ended })
    }

    /// Serves the connection from now on.
    pub(super) fn serve(self, connection: &Connection) -> io::Result<Serving> {
        // SAFETY: the session's thread holds this descriptor open until it ends, which it does only
        // after a message of ours. `ManuallyDrop`, because it stays the session's.
        let mut theirs = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.number) });
        rustix::io::dup3(connection, &mut theirs, DupFlags::CLOEXEC)?;
        // Nobody is forgotten, and nothing is answered: it only ends the read from the socket.
        match send(&self.socket, &Message::new(FORGET).double(0)) {
            // The thread was not reading just then, and reads from the kernel already: with that, the
            // other end of the socket is gone.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
        Ok(Serving { notifier: self.notifier, ended: self.ended })
    }
}

/// One thread answers: an answer takes a microsecond and comes from memory, so that a second thread
/// costs more in wake-ups than it brings. What has to wait does so elsewhere.
fn config() -> Config {
    let mut config = Config::default();
    config.n_threads = Some(1);
    config
}

/// A request as the kernel would send it: `fuse_in_header`, and what belongs to the operation.
struct Message(Vec<u8>);

impl Message {
    fn new(operation: u32) -> Self {
        // Length (set by `send`), operation, number (1, which the kernel never uses), and zeros for
        // inode, uid, gid, pid and padding.
        Self(Vec::new()).word(0).word(operation).double(1).double(0).double(0).double(0)
    }

    fn word(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn double(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// The flags of `fuse_init_in` in its two halves, and its 11 unused words.
    fn capabilities(self, agreement: Agreement) -> Self {
        let bits = agreement.capabilities | fuser::InitFlags::FUSE_INIT_EXT.bits();
        let both = self.word(bits as u32).word((bits >> 32) as u32);
        (0..11).fold(both, |message, _| message.word(0))
    }

    fn padded(mut self, length: usize) -> Self {
        self.0.resize(length, 0);
        self
    }
}

fn send(socket: &OwnedFd, message: &Message) -> io::Result<()> {
    let length = u32::try_from(message.0.len()).unwrap_or(u32::MAX).to_ne_bytes();
    let parts = [IoSlice::new(&length), IoSlice::new(message.0.get(4..).unwrap_or_default())];
    rustix::net::sendmsg(socket, &parts, &mut Default::default(), SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Reads an answer, whose `fuse_out_header` has the length, an error and the request's number.
fn expect_answer(socket: &OwnedFd, error: i32) -> io::Result<()> {
    let mut answer = [0; 256];
    let (length, _) = rustix::net::recv(socket, &mut answer, RecvFlags::empty())?;
    if length >= 16 && answer[4..8] == error.to_ne_bytes() {
        return Ok(());
    }
    Err(io::Error::other("the FUSE library did not answer as this version of it should"))
}
