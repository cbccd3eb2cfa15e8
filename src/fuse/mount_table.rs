//! What is mounted where, as a process sees it.
//!
//! Read from the kernel's table and not asked of the file systems themselves: a dead or hung one
//! would not answer.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::attach::Superblock;
use super::device::Device;

/// The source and subtype of all our mounts.
pub(super) const NAME: &str = "secretfs";

/// A line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// The mount's number, of all that are in the kernel now.
    pub(crate) id: u64,
    /// The mount that it is mounted on.
    pub(crate) parent: u64,
    pub(crate) device: Device,
    /// What of the file system is mounted: `/` for all of it, a path in it for a bind of a part. What
    /// has been unlinked ends in `//deleted`.
    pub(crate) root: PathBuf,
    /// Where, as seen from the root directory of the process that the table was read for.
    pub(crate) point: PathBuf,
    /// Whether the file system can be written to, which a mount of it may still forbid.
    pub(super) superblock: Superblock,
    fs_type: String,
}

impl Mounted {
    /// Whether it calls itself a secretfs, of this process or another. Whoever may mount may say so.
    pub(crate) fn is_ours(&self) -> bool {
        self.fs_type.strip_prefix("fuse.") == Some(NAME)
    }

    /// Whether all of the file system is mounted there, and not a part of it.
    pub(crate) fn is_whole(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// All mounts that a process can see.
#[derive(Debug, Clone)]
pub(crate) struct MountTable(Vec<Mounted>);

impl MountTable {
    /// This process's.
    pub(crate) fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?))
    }

    /// The content of a `/proc/PID/mountinfo`. A line that makes no sense is left out.
    pub(crate) fn parse(table: &[u8]) -> Self {
        Self(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
    }

    /// Each mount, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mounted> {
        self.0.iter()
    }

    /// The topmost mount at a canonical path.
    pub(crate) fn top(&self, path: &Path) -> Option<&Mounted> {
        let covered = |mounted: &Mounted| self.0.iter().any(|other| lies_on(other, mounted));
        // Of several, all but the last lie hidden under a mount further up the path.
        self.0.iter().rfind(|mounted| mounted.point == path && !covered(mounted))
    }

    /// The mounts at a canonical path that lie one on the other, from the topmost down.
    pub(crate) fn layers(&self, path: &Path) -> Vec<&Mounted> {
        let below = |mounted: &&Mounted| self.0.iter().find(|other| lies_on(mounted, other));
        std::iter::successors(self.top(path), below).collect()
    }
}

/// Tells whether the mount table has changed, without reading it.
#[derive(Debug)]
pub(crate) struct MountTableWatch(File);

impl MountTableWatch {
    pub(crate) fn new() -> io::Result<Self> {
        File::open("/proc/self/mountinfo").map(Self)
    }

    /// Since it was asked last, or since the beginning.
    pub(crate) fn has_changed(&self) -> bool {
        let mut table = [PollFd::new(&self.0, PollFlags::PRI)];
        rustix::event::poll(&mut table, Some(&Timespec::default())).is_ok_and(|changed| changed > 0)
    }
}

/// Whether `upper` covers `lower` and not only a place in it.
fn lies_on(upper: &Mounted, lower: &Mounted) -> bool {
    // The root of all mounts is its own parent.
    upper.parent == lower.id && upper.point == lower.point && upper.id != lower.id
}

/// `36 35 98:0 /root /mount/point options [tags...] - type source options`
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = number(fields.next()?)?;
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let mut of_file_system = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(of_file_system.next()?).into_owned();
    let mut options = of_file_system.nth(1)?.split(|byte| *byte == b',');
    let superblock = match options.next() {
        Some(b"rw") => Superblock::Writable,
        _ => Superblock::ReadOnly,
    };
    Some(Mounted { id, parent, device, root, point, superblock, fs_type })
}

fn number<N: FromStr>(field: &[u8]) -> Option<N> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut rest = field;
    let mut plain = Vec::with_capacity(field.len());
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..3).filter(|_| *first == b'\\');
        let code = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                plain.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    // The last mount at /run/my secrets was put beneath the one before it.
    const TABLE: &[u8] = br"22 1 0:21 / / rw shared:1 - ext4 /dev/vda rw
30 22 0:26 / /run/my\040secrets rw,nosuid shared:5 master:1 - tmpfs tmpfs rw
31 33 0:27 / /run/my\040secrets ro,nosuid - fuse.secretfs secretfs ro,user_id=0
32 22 0:28 / /run/other ro - fuse.sshfs secretfs ro
33 30 0:29 /web/db//deleted /run/my\040secrets ro master:5 propagate_from:2 - fuse.secretfs secretfs rw
short line";

    #[test]
    fn the_topmost_mount_at_a_path_counts() {
        let table = MountTable::parse(TABLE);
        let mounted = table.top(Path::new("/run/my secrets")).expect("mounted");
        assert_eq!((mounted.device.to_string().as_str(), mounted.is_ours()), ("0:27", true));
        assert!(!table.top(Path::new("/run/other")).expect("mounted").is_ours());
        assert_eq!(table.top(Path::new("/run")), None);
    }

    #[test]
    fn layers_are_found_by_what_lies_on_what() {
        let table = MountTable::parse(TABLE);
        let ids = |path| table.layers(Path::new(path)).iter().map(|layer| layer.id).collect::<Vec<_>>();
        assert_eq!(ids("/run/my secrets"), [31, 33, 30]);
        assert_eq!(ids("/"), [22]);
        assert!(ids("/run").is_empty());
    }

    #[test]
    fn a_line_says_what_of_a_file_system_is_mounted() {
        let table = MountTable::parse(TABLE);
        let bind = table.iter().find(|mounted| mounted.id == 33).expect("the line");
        assert_eq!((bind.root.as_os_str(), bind.is_whole()), (OsStr::new("/web/db//deleted"), false));
        let plain = table.iter().find(|mounted| mounted.id == 31).expect("the line");
        assert_eq!((plain.is_whole(), plain.parent), (true, 33));
        assert_eq!((plain.superblock, bind.superblock), (Superblock::ReadOnly, Superblock::Writable));
        assert_eq!(table.iter().filter(|mounted| mounted.is_ours()).count(), 2, "with and without tags");
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescape(br"a\134\9\04"), br"a\\9\04");
    }

    #[test]
    fn the_kernels_own_table_can_be_read() {
        let table = MountTable::read().expect("the table");
        assert!(table.top(Path::new("/")).is_some());
    }
}
