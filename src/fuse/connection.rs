//! The kernel's side of a mount: a connection that more than one process serves, one after the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{Config, Filesystem, InitFlags, KernelConfig, Request, Session, SessionACL};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};

/// The largest write that the kernel may send, and the smallest that it agrees to. Nobody may
/// write, and small requests keep the read buffer small, which a worker locks in memory.
const MAX_WRITE: u32 = 4096;

/// `FUSE_NOTIFY_RESEND` (linux/fuse.h, since Linux 6.9): a header of 16 bytes and nothing behind it.
/// Length 16, the code where an error would be, and no request's number.
const RESEND: [[u8; 4]; 4] = [16u32.to_ne_bytes(), 7u32.to_ne_bytes(), [0; 4], [0; 4]];

/// What kernel and file system agreed on when the connection began, for those who serve it later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agreement {
    /// The protocol's minor version; the major one is 7.
    pub(super) minor: u32,
    /// What the kernel can do, as the bits of `fuse_init_in`.
    pub(super) capabilities: u64,
}

/// A connection that has begun: `FUSE_INIT` is answered, which happens once in its life.
///
/// It lives for as long as any process has its descriptor. While nobody serves it, requests wait.
#[derive(Debug)]
pub(crate) struct Connection {
    device: OwnedFd,
    agreement: Agreement,
}

impl Connection {
    /// Begins a connection that has just been mounted.
    pub(super) fn begin(device: OwnedFd) -> io::Result<Self> {
        let agreement = Arc::new(OnceLock::new());
        // The library's handshake and not its loop: the session is dropped before it serves anything.
        let greeter = Greeter(agreement.clone());
        drop(Session::from_fd(greeter, device.try_clone()?, SessionACL::All, Config::default())?);
        let agreement = *agreement.get().ok_or_else(|| io::Error::other("the kernel did not begin"))?;
        Ok(Self { device, agreement })
    }

    /// A connection that another process has begun.
    pub(crate) const fn begun(device: OwnedFd, agreement: Agreement) -> Self {
        Self { device, agreement }
    }

    /// What was agreed on.
    pub(crate) const fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// Whether the kernel can send again what a process has read and not answered.
    pub(crate) fn can_resend(&self) -> bool {
        InitFlags::from_bits_retain(self.agreement.capabilities).contains(InitFlags::FUSE_HAS_RESEND)
    }

    /// Waits up to `limit` for the end: unmounted, by us or by somebody else, and the last file closed.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        // The kernel reports an error on a device whose connection has ended, whatever is asked for.
        let mut devices = [PollFd::new(&self.device, PollFlags::empty())];
        let limit = Timespec::try_from(limit).ok();
        rustix::event::poll(&mut devices, limit.as_ref()).is_ok_and(|ended| ended > 0)
    }

    /// Makes the kernel send again all that was read and is not answered. Only when nobody is left
    /// who might still answer it.
    ///
    /// # Errors
    /// When the connection has ended, or the kernel is older than Linux 6.9.
    pub(crate) fn resend(&self) -> io::Result<()> {
        rustix::io::write(&self.device, RESEND.as_flattened()).map(drop).map_err(Into::into)
    }

    /// Answers a request with an error, whoever has read it: for kernels that cannot send it again.
    pub(crate) fn fail(&self, request: u64) {
        let answer = [&16u32.to_ne_bytes()[..], &(-libc::EIO).to_ne_bytes(), &request.to_ne_bytes()].concat();
        // It may have been answered in its worker's last moment.
        let _ = rustix::io::write(&self.device, &answer);
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Wishes for what every server of a connection relies on. The same for the one that begins it and
/// those that take it over.
pub(super) fn agree(config: &mut KernelConfig) -> io::Result<Agreement> {
    let agreement = Agreement { minor: config.kernel_abi().1, capabilities: config.capabilities().bits() };
    // They only widen what the kernel does at once or tells; an old kernel without them is fine.
    for wish in [InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_HAS_RESEND] {
        config.add_capabilities(wish).ok();
    }
    match config.set_max_write(MAX_WRITE) {
        Ok(_) => Ok(agreement),
        Err(nearest) => {
            Err(io::Error::other(format!("the FUSE library writes {nearest} bytes at the least")))
        }
    }
}

/// Answers `FUSE_INIT` and nothing else.
struct Greeter(Arc<OnceLock<Agreement>>);

impl Filesystem for Greeter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let agreement = agree(config)?;
        // The kernel asks once.
        self.0.set(agreement).ok();
        Ok(())
    }
}
