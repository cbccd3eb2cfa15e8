//! The cheapest FUSE file system that answers what secretfs answers: one file, all constants.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, Request, SessionACL,
};

/// The argument that makes this program serve it.
pub(super) const COMMAND: &str = "--serve-bare";
/// Its only file.
pub(super) const FILE: &str = "value";

const TTL: Duration = Duration::from_secs(60 * 60);
const FILE_INODE: INodeNo = INodeNo(2);

/// Serves until it is unmounted or killed, with the mount options that secretfs has.
pub(super) fn serve(point: &Path, size: usize) -> io::Result<()> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(1);
    config.mount_options =
        vec![MountOption::RO, MountOption::NoSuid, MountOption::NoDev, MountOption::NoExec];
    config.mount_options.push(MountOption::DefaultPermissions);
    fuser::mount(Bare { value: vec![b'x'; size] }, point, &config)
}

struct Bare {
    value: Vec<u8>,
}

impl Bare {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let (kind, perm, size) = match ino {
            FILE_INODE => (FileType::RegularFile, 0o444, self.value.len() as u64),
            _ => (FileType::Directory, 0o555, 0),
        };
        FileAttr {
            ino,
            size,
            blocks: 1,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Bare {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&TTL, &self.attributes(FILE_INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let start = (offset as usize).min(self.value.len());
        let end = start.saturating_add(size as usize).min(self.value.len());
        reply.data(&self.value[start..end]);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}
