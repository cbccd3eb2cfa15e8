//! The number by which the kernel tells one file system from another.

use std::fmt;
use std::os::fd::AsFd;
use std::str::FromStr;

use rustix::fs::{AtFlags, Statx, StatxFlags};
use serde::{Deserialize, Serialize};

/// Major and minor number of a file system. Taken for as long as it is mounted anywhere or has a file
/// open, and then free for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Device {
    major: u32,
    minor: u32,
}

/// What is not a device number.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a device number such as 0:45")]
pub(crate) struct InvalidDevice(String);

impl Device {
    /// The device of what `file` is open on, which is not asked and so need not be alive.
    pub(crate) fn of(file: impl AsFd) -> rustix::io::Result<Self> {
        Ok(Self::from_statx(&look(file, StatxFlags::empty())?))
    }

    /// The device in what the kernel says of a file.
    pub(crate) const fn from_statx(status: &Statx) -> Self {
        Self { major: status.stx_dev_major, minor: status.stx_dev_minor }
    }

    /// The minor number: the name of a FUSE connection in /sys/fs/fuse/connections.
    pub(crate) const fn minor(self) -> u32 {
        self.minor
    }
}

/// What the kernel remembers of an open file. It asks nobody, so a dead file system answers as well
/// as a living one.
pub(crate) fn look(file: impl AsFd, wanted: StatxFlags) -> rustix::io::Result<Statx> {
    rustix::fs::statx(file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, wanted)
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for Device {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, InvalidDevice> {
        let numbers = text
            .split_once(':')
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? }));
        numbers.ok_or_else(|| InvalidDevice(text.to_owned()))
    }
}

impl TryFrom<String> for Device {
    type Error = InvalidDevice;

    fn try_from(text: String) -> Result<Self, InvalidDevice> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_the_mount_table_writes_it() {
        let device: Device = "0:45".parse().expect("a device");
        assert_eq!((device.minor(), device.to_string().as_str()), (45, "0:45"));
        for wrong in ["", "45", "0:", "0:x", "0:4:5", "-1:4"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_open_file_has_the_device_that_stat_shows() {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::File::open("/proc/self").expect("a directory");
        let device = Device::of(&file).expect("its device");
        let number = file.metadata().expect("its status").dev();
        assert_eq!(rustix::fs::makedev(device.major, device.minor), number);
    }
}
