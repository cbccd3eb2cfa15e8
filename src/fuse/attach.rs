//! Makes and removes the mount itself: by system call, or else with the help of fusermount3.
//!
//! Not left to the FUSE library, because it unmounts by path when it is done, whether or not the
//! mount was its own, and because it tells apart too few of the ways in which mounting fails.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::error::MountError;
use super::mount_table::NAME;

/// Who may see the mount at all; the files' own permissions come on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) enum Audience {
    /// Every user of the machine.
    #[default]
    Everyone,
    /// Only the user who mounts it: not even root. Needs no permission of the administrator.
    OnlyMe,
}

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";

/// Mounts, and returns the connection to the kernel.
pub(super) fn attach(point: &Path, audience: Audience) -> Result<OwnedFd, MountError> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE).map_err(MountError::NoDevice)?;
    let device = OwnedFd::from(device);
    match mount_directly(&device, point, audience) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => mount_with_helper(point, audience),
        Err(error) => Err(MountError::Refused { path: point.to_owned(), source: error.into() }),
    }
}

fn mount_directly(device: &OwnedFd, point: &Path, audience: Audience) -> Result<(), Errno> {
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},{}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
        options(audience),
    );
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(NAME, point, "fuse", flags, data.as_c_str())
}

/// The kernel checks owner, group and mode of each file against who asks.
fn options(audience: Audience) -> String {
    let others = match audience {
        Audience::Everyone => ",allow_other",
        Audience::OnlyMe => "",
    };
    format!("subtype={NAME},default_permissions{others}")
}

/// The set-uid helper mounts and hands the connection back through a socket, which here is its
/// standard input: that way it alone inherits it.
pub(super) fn mount_with_helper(point: &Path, audience: Audience) -> Result<OwnedFd, MountError> {
    let (ours, theirs) = UnixStream::pair().map_err(MountError::Start)?;
    let options = format!("ro,nosuid,nodev,noexec,fsname={NAME},{}", options(audience));
    let mut helper = Command::new(HELPER);
    helper.env("_FUSE_COMMFD", "0").arg("-o").arg(options).arg("--").arg(point);
    helper.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = helper.spawn().map_err(MountError::NoFusermount)?;
    // Our copy of its end, so that its death ends the wait for its answer.
    drop(helper);
    let received = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(MountError::Start)?;
    match received {
        Ok(Some(device)) => Ok(device),
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
pub(super) fn detach(point: &Path) -> Result<(), MountError> {
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
