//! Answers every request with an error, when no worker lives long enough to give a better answer.
//!
//! A reader that gets an error can go on, end, or be ended; one that gets nothing can do none of it.

use std::ffi::OsStr;
use std::io;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags,
    PollEvents, PollFlags, PollNotifier, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::connection::{Agreement, Connection, agree};
use super::resume::Standby;
use crate::fs::{Handle, Handles, Inode};

/// A refusal of everything on one mount, ready to begin.
pub(crate) struct PreparedRefusal(Standby);

impl PreparedRefusal {
    /// Prepares for a connection that began with `agreement`. Files that are closed are taken from
    /// `handles`: the kernel says so once.
    ///
    /// # Errors
    /// When the system has no thread or no socket left.
    pub(crate) fn new(agreement: Agreement, handles: Handles) -> io::Result<Self> {
        Standby::prepare(agreement, Refusal { handles }).map(Self)
    }

    /// Refuses from now on, until the process ends.
    ///
    /// # Errors
    /// When the connection is none.
    pub(crate) fn refuse(self, connection: &Connection) -> io::Result<()> {
        self.0.serve(connection).map(drop)
    }
}

struct Refusal {
    handles: Handles,
}

/// EIO, and never ENOSYS: that would tell the kernel not to ask the next worker either.
macro_rules! refuse {
    ($(fn $name:ident($($type:ty),*) -> $reply:ty;)*) => {$(
        fn $name(&self, _: &Request, $(_: $type,)* reply: $reply) {
            reply.error(Errno::EIO);
        }
    )*};
}

impl Filesystem for Refusal {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        agree(config).map(drop)
    }

    refuse! {
        fn lookup(INodeNo, &OsStr) -> ReplyEntry;
        fn getattr(INodeNo, Option<FileHandle>) -> ReplyAttr;
        fn open(INodeNo, OpenFlags) -> ReplyOpen;
        fn read(INodeNo, FileHandle, u64, u32, OpenFlags, Option<LockOwner>) -> ReplyData;
        fn opendir(INodeNo, OpenFlags) -> ReplyOpen;
        fn readdir(INodeNo, FileHandle, u64) -> ReplyDirectory;
        fn statfs(INodeNo) -> ReplyStatfs;
        fn getxattr(INodeNo, &OsStr, u32) -> ReplyXattr;
        fn listxattr(INodeNo, u32) -> ReplyXattr;
        fn ioctl(INodeNo, FileHandle, IoctlFlags, u32, &[u8], u32) -> ReplyIoctl;
        fn write(INodeNo, FileHandle, u64, &[u8], WriteFlags, OpenFlags, Option<LockOwner>) -> ReplyWrite;
        fn setattr(
            INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>, Option<TimeOrNow>,
            Option<SystemTime>, Option<FileHandle>, Option<SystemTime>, Option<SystemTime>,
            Option<SystemTime>, Option<BsdFileFlags>
        ) -> ReplyAttr;
        fn mknod(INodeNo, &OsStr, u32, u32, u32) -> ReplyEntry;
        fn mkdir(INodeNo, &OsStr, u32, u32) -> ReplyEntry;
        fn unlink(INodeNo, &OsStr) -> ReplyEmpty;
        fn poll(INodeNo, FileHandle, PollNotifier, PollEvents, PollFlags) -> ReplyPoll;
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.handles.release(Inode::from_u64(ino.0), Handle::from_u64(handle.0));
        reply.ok();
    }

    /// The one operation that is refused for good, as by every worker.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}
