//! Makes and removes the mount itself: by system call, or else with the help of fusermount3.
//!
//! Not left to the FUSE library, because it unmounts by path when it is done, whether or not the
//! mount was its own, and because it tells apart too few of the ways in which mounting fails.

use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::device::Device;
use super::error::MountError;
use super::mount_table::{MountTable, NAME};

/// Who may see the mount at all; the files' own permissions come on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) enum Audience {
    /// Every user of the machine.
    #[default]
    Everyone,
    /// Only the user who mounts it: not even root. Needs no permission of the administrator.
    OnlyMe,
}

/// Whether anything could be written through a mount of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Superblock {
    /// Through none.
    ReadOnly,
    /// Through those that are not read-only themselves. The one that everybody sees is.
    Writable,
}

/// A directory that everybody may list, in octal. The kernel goes by this until it has asked for the
/// first time, and a stricter mode would turn the first readers away.
const ROOT_MODE: &str = "40555";
const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";

/// A mount that has been made.
#[derive(Debug)]
pub(super) struct Attached {
    /// To the kernel. Where it ends the mount is dead.
    pub(super) connection: OwnedFd,
    pub(super) device: Device,
    pub(super) superblock: Superblock,
}

/// Mounts on top of whatever is at `point`.
pub(super) fn attach(
    point: &Path,
    audience: Audience,
    superblock: Superblock,
) -> Result<Attached, MountError> {
    let connection = OpenOptions::new().read(true).write(true).open(DEVICE).map_err(MountError::NoDevice)?;
    let connection = OwnedFd::from(connection);
    match mount_directly(&connection, point, audience, superblock) {
        Ok(device) => Ok(Attached { connection, device, superblock }),
        Err(Errno::PERM) => mount_with_helper(point, audience),
        Err(error) => Err(MountError::Refused { path: point.to_owned(), source: error.into() }),
    }
}

/// Made first and put in place then, so that its device is known whoever else mounts there.
fn mount_directly(
    connection: &OwnedFd,
    point: &Path,
    audience: Audience,
    superblock: Superblock,
) -> Result<Device, Errno> {
    let read_only = (superblock == Superblock::ReadOnly).then_some("ro");
    let flags: Vec<_> = read_only.into_iter().chain(permissions(audience).iter().copied()).collect();
    let mount = make_mount(connection.as_fd(), &flags, ATTRIBUTES | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    let device = Device::of(&mount)?;
    move_mount(&mount, "", CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(device)
}

/// Another mount of what is mounted: it can be written to, and is nowhere. It ends with its descriptor,
/// and until then the file system is not unmounted. Takes Linux 5.15, and a writable superblock.
///
/// Asks nobody, so whoever serves the connection may be dead.
pub(super) fn mount_again(connection: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(make_mount(connection, &[], ATTRIBUTES)?)
}

/// What holds for every mount.
const ATTRIBUTES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Makes a mount that is nowhere yet. If the connection has a file system already, it is of that one,
/// and the flags, which are the file system's, change nothing.
fn make_mount(
    connection: BorrowedFd<'_>,
    flags: &[&str],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let settings = [
        ("source", NAME.to_owned()),
        ("subtype", NAME.to_owned()),
        ("fd", connection.as_raw_fd().to_string()),
        ("rootmode", ROOT_MODE.to_owned()),
        ("user_id", rustix::process::getuid().as_raw().to_string()),
        ("group_id", rustix::process::getgid().as_raw().to_string()),
    ];
    for (key, value) in settings {
        fsconfig_set_string(&context, key, value)?;
    }
    for flag in flags {
        fsconfig_set_flag(&context, *flag)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The kernel checks owner, group and mode of each file against who asks.
const fn permissions(audience: Audience) -> &'static [&'static str] {
    match audience {
        Audience::Everyone => &["default_permissions", "allow_other"],
        Audience::OnlyMe => &["default_permissions"],
    }
}

/// The set-uid helper mounts and hands the connection back through a socket, which here is its
/// standard input: that way it alone inherits it.
pub(super) fn mount_with_helper(point: &Path, audience: Audience) -> Result<Attached, MountError> {
    let (ours, theirs) = UnixStream::pair().map_err(MountError::Start)?;
    let permissions = permissions(audience).join(",");
    let options = format!("ro,nosuid,nodev,noexec,fsname={NAME},subtype={NAME},{permissions}");
    let mut helper = Command::new(HELPER);
    helper.env("_FUSE_COMMFD", "0").arg("-o").arg(options).arg("--").arg(point);
    helper.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = helper.spawn().map_err(MountError::NoFusermount)?;
    // Our copy of its end, so that its death ends the wait for its answer.
    drop(helper);
    let received = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(MountError::Start)?;
    match received {
        Ok(Some(connection)) => {
            let table = MountTable::read().map_err(MountError::Table)?;
            match table.top(point) {
                Some(top) => {
                    Ok(Attached { connection, device: top.device, superblock: Superblock::ReadOnly })
                }
                None => Err(MountError::Fusermount("it mounted nothing".to_owned())),
            }
        }
        Ok(None) | Err(_) => Err(refusal(&String::from_utf8_lossy(&output.stderr))),
    }
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut buffer = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket, &mut buffer, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptors.next())
}

fn refusal(message: &str) -> MountError {
    if message.contains("user_allow_other") {
        return MountError::OthersNotAllowed;
    }
    MountError::Fusermount(message.trim().to_owned())
}

/// Takes the topmost mount away from `point`. Open files keep working until they are closed.
pub(crate) fn detach(point: &Path) -> Result<(), MountError> {
    let still = |source| MountError::StillMounted { path: point.to_owned(), source };
    match rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => detach_with_helper(point),
        Err(error) => Err(still(error.into())),
    }
}

pub(super) fn detach_with_helper(point: &Path) -> Result<(), MountError> {
    let mut helper = Command::new(HELPER);
    helper.args(["-u", "-z", "--"]).arg(point).stdin(Stdio::null());
    let output = helper.output().map_err(MountError::NoFusermount)?;
    if output.status.success() {
        return Ok(());
    }
    Err(refusal(&String::from_utf8_lossy(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_says_what_to_do() {
        let said =
            "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf\n";
        assert!(matches!(refusal(said), MountError::OthersNotAllowed));
        let error = refusal("fusermount3: mount failed: Operation not permitted\n");
        assert_eq!(
            error.to_string(),
            "fusermount3 refused: fusermount3: mount failed: Operation not permitted"
        );
    }
}
