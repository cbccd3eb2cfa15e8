//! From FUSE requests to the file system and back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyOpen, ReplyPoll, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle as Runtime;

use super::connection::agree;
use super::events::{Announced, Deed, Doing};
use super::journal::{Entry, Journal};
use crate::audit::Caller;
use crate::fs::{
    Access, Attributes, FileSystem, FsError, Full, Handle, Inode, Kind, Opening, Readiness, RequestId,
};

/// How long the kernel may remember names and attributes: it is told of every change.
pub(super) const TTL: Duration = Duration::from_secs(60 * 60);

/// Numbers are never used for another file, so every inode is of the first generation.
pub(super) const GENERATION: Generation = Generation(0);

pub(super) struct Adapter {
    pub(super) fs: Arc<FileSystem>,
    /// Where opens wait for values.
    pub(super) runtime: Runtime,
    pub(super) journal: Journal,
    /// How the notifier is known, if this mount has one.
    pub(super) announced: Option<Announced>,
}

/// The handle of a file that is open to be written. Nobody has this one to read.
const WRITING: FileHandle = FileHandle(u64::MAX);

/// Operations that would change something. The mount is read-only and the kernel refuses them before
/// they get here, unless somebody has remounted it.
macro_rules! read_only {
    ($(fn $name:ident($($type:ty),*) -> $reply:ty;)*) => {$(
        fn $name(&self, _: &Request, $(_: $type,)* reply: $reply) {
            reply.error(errno(&FsError::ReadOnly));
        }
    )*};
}

/// The kernel marks a request that it sends again in the highest bit of its number
/// (`FUSE_UNIQUE_RESEND` of linux/fuse.h).
const RESENT: u64 = 1 << 63;

impl Adapter {
    /// Takes a request in hand, unless it has killed too many workers: then it is answered EIO.
    fn enter(&self, request: &Request) -> Option<Entry<'_>> {
        let request = request_id(request);
        let entry = self.journal.enter(request);
        if entry.is_none() {
            tracing::error!(
                request.number,
                "a request has ended several workers and is answered with an error"
            );
        }
        entry
    }

    /// Whether it is the notifier that asks, and is there to write this file.
    fn writes(&self, request: &Request, ino: INodeNo) -> bool {
        let writes = |doing: &Doing| doing.deed == Deed::Write && doing.inode == inode(ino);
        self.allow(request, writes).and_then(|()| self.fs.attributes(inode(ino))).is_ok()
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        agree(config).map(drop)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        // What is not UTF-8 is no name, so it is not there. An absent name is not remembered by the
        // kernel: when it appears nobody has to be told.
        let found = match name.to_str() {
            Some(name) => self.fs.lookup(inode(parent), name),
            None => Err(FsError::NotFound),
        };
        let (found, remembered) = self.looked_up(request, inode(parent), found);
        match found {
            Ok(attributes) => {
                let remembered = remembered.min(ttl(&attributes));
                reply.entry(&remembered, &file_attr(&attributes), GENERATION);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        let found = self.fs.attributes(inode(ino)).map(|attributes| (attributes, ttl(&attributes)));
        let gone = || self.doing(request)?.gone(inode(ino));
        match found.or_else(|error| gone().ok_or(error)) {
            Ok((attributes, remembered)) => reply.attr(&remembered, &file_attr(&attributes)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let Some(entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        if flags.acc_mode() == OpenAccMode::O_WRONLY && self.writes(request, ino) {
            // What pages the kernel has stay: nothing is written.
            return reply.opened(WRITING, FopenFlags::FOPEN_DIRECT_IO);
        }
        let access = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => Access::Read,
            OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR => Access::Write,
        };
        match self.fs.open(inode(ino), access, request_id(request), caller(request)) {
            Ok(Opening::Ready(handle)) => answer_open(Ok(handle), reply),
            // The reply waits in a task, so that this thread goes on with other requests.
            Ok(Opening::Wait(handle)) => {
                let waiting = entry.into_waiting();
                self.runtime.spawn(async move {
                    answer_open(handle.await, reply);
                    drop(waiting);
                });
            }
            Err(error) => answer_open(Err(error), reply),
        }
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        match self.fs.read(inode(ino), Handle::from_u64(handle.0), offset, size) {
            Ok(slice) => reply.data(slice.expose_secret()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Answered once and for all with "not implemented": the kernel then closes files without asking.
    /// Otherwise every close would wait for an answer, also while no worker runs.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        self.fs.release(inode(ino), Handle::from_u64(handle.0));
        reply.ok();
    }

    // No state for an open directory: a place in a listing means the same in every tree.
    fn readdir(&self, request: &Request, ino: INodeNo, _: FileHandle, place: u64, mut reply: ReplyDirectory) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        let listed = self.fs.list(inode(ino), place, |inode, place, kind, name| {
            match reply.add(INodeNo(inode.as_u64()), place, file_type(kind), name) {
                true => Full::Yes,
                false => Full::No,
            }
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        let value = self.fs.xattr(inode(ino), name.as_bytes());
        answer_xattr(value.as_ref().map(String::as_bytes), size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        let names = self.fs.xattrs(inode(ino));
        answer_xattr(names.as_ref().map(Vec::as_slice), size, reply);
    }

    /// As files in /sys do it: always readable, and PRI and ERR once the file is worth opening again.
    fn poll(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        poller: PollNotifier,
        _: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        let wants_notice = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY);
        let register = wants_notice.then(|| poller.handle().0);
        let readable = PollEvents::POLLIN | PollEvents::POLLRDNORM;
        reply.poll(match self.fs.poll(inode(ino), Handle::from_u64(handle.0), register) {
            Readiness::Current => readable,
            Readiness::Changed => readable | PollEvents::POLLPRI | PollEvents::POLLERR,
        });
    }

    /// Many programs ask every file whether it is a terminal.
    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// Takes what the notifier writes for written.
    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        match self.writes(request, ino) {
            true => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            false => reply.error(errno(&FsError::ReadOnly)),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        let touches = |doing: &Doing| doing.deed == Deed::Touch && doing.inode == inode(ino);
        match self.allow(request, touches).and_then(|()| self.fs.attributes(inode(ino))) {
            Ok(attributes) => reply.attr(&TTL, &file_attr(&attributes)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        self.make(request, parent, name.to_str(), Deed::Create, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        self.make(request, parent, name.to_str(), Deed::CreateDirectory, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        let Some(_entry) = self.enter(request) else { return reply.error(Errno::EIO) };
        let removes = |doing: &Doing| doing.deed == Deed::Remove && doing.parent == inode(parent);
        match self.allow(request, removes) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    read_only! {
        fn rmdir(INodeNo, &OsStr) -> ReplyEmpty;
        fn symlink(INodeNo, &OsStr, &Path) -> ReplyEntry;
        fn rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags) -> ReplyEmpty;
        fn link(INodeNo, INodeNo, &OsStr) -> ReplyEntry;
        fn create(INodeNo, &OsStr, u32, u32, i32) -> ReplyCreate;
        fn fallocate(INodeNo, FileHandle, u64, u64, i32) -> ReplyEmpty;
        fn setxattr(INodeNo, &OsStr, &[u8], i32, u32) -> ReplyEmpty;
        fn removexattr(INodeNo, &OsStr) -> ReplyEmpty;
    }
}

/// DIRECT_IO: every read asks for the bytes of its own handle. The page cache would have one content
/// for all handles of an inode, and so would mix two versions.
fn answer_open(opened: Result<Handle, FsError>, reply: ReplyOpen) {
    match opened {
        Ok(handle) => reply.opened(FileHandle(handle.as_u64()), FopenFlags::FOPEN_DIRECT_IO),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Asked with size 0, the kernel wants to know the size.
fn answer_xattr(value: Result<&[u8], &FsError>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(value),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    let modified = attributes.modified.into();
    FileAttr {
        ino: INodeNo(attributes.inode.as_u64()),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: file_type(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// The kernel asks again, each time, for what it will not be told.
const fn ttl(attributes: &Attributes) -> Duration {
    if attributes.settled { TTL } else { Duration::ZERO }
}

const fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
    }
}

const fn inode(ino: INodeNo) -> Inode {
    Inode::from_u64(ino.0)
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

fn request_id(request: &Request) -> RequestId {
    let number = u64::from(request.unique());
    RequestId { number: number & !RESENT, repeated: number & RESENT != 0 }
}

pub(super) fn errno(error: &FsError) -> Errno {
    Errno::from_i32(error.errno().raw_os_error())
}
