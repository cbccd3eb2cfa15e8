//! What is mounted where, as this process sees it.
//!
//! Read from the kernel's table and not asked of the file systems themselves: a dead or hung one
//! would not answer.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The source and subtype of all our mounts.
pub(super) const NAME: &str = "secretfs";

/// A line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Major and minor number of the file system. Taken for as long as it is mounted anywhere or
    /// has a file open, and then free for the next one.
    pub(super) device: String,
    point: PathBuf,
    fs_type: String,
}

impl Mounted {
    /// The topmost mount at a canonical path.
    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        Ok(topmost(&fs::read("/proc/self/mountinfo")?, path))
    }

    /// Whether it is a secretfs, of this process or another.
    pub(super) fn is_ours(&self) -> bool {
        self.fs_type.strip_prefix("fuse.") == Some(NAME)
    }
}

fn topmost(table: &[u8], path: &Path) -> Option<Mounted> {
    table.split(|byte| *byte == b'\n').filter_map(parse).rfind(|mounted| mounted.point == path)
}

/// `36 35 98:0 /root /mount/point options [tags...] - type source options`
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = text(fields.nth(2)?);
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let fs_type = text(fields.skip_while(|field| *field != b"-").nth(1)?);
    Some(Mounted { device, point, fs_type })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
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
    use super::*;

    const TABLE: &[u8] = br"22 1 0:21 / / rw shared:1 - ext4 /dev/vda rw
30 22 0:26 / /run/my\040secrets rw,nosuid shared:5 master:1 - tmpfs tmpfs rw
31 30 0:27 / /run/my\040secrets ro,nosuid - fuse.secretfs secretfs ro,user_id=0
32 22 0:28 / /run/other ro - fuse.sshfs secretfs ro
short line";

    #[test]
    fn the_topmost_mount_at_a_path_counts() {
        let mounted = topmost(TABLE, Path::new("/run/my secrets")).expect("mounted");
        assert_eq!((mounted.device.as_str(), mounted.is_ours()), ("0:27", true));
        assert!(!topmost(TABLE, Path::new("/run/other")).expect("mounted").is_ours());
        assert_eq!(topmost(TABLE, Path::new("/run")), None);
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescape(br"a\134\9\04"), br"a\\9\04");
    }

    #[test]
    fn the_kernels_own_table_can_be_read() {
        assert!(Mounted::at(Path::new("/")).expect("the table").is_some());
    }
}
