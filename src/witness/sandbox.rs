//! What a witness gives up: all files but those of `/proc`, all powers but that of looking at processes,
//! and all system calls but those that it takes.
//!
//! Not Landlock: it keeps a process from looking at any other.

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, chroot};
use rustix::thread::CapabilitySet;

use crate::host::confinement::seccomp::{ANY, Alternative, Argument as A, Rule};
use crate::host::confinement::{capabilities, seccomp};

/// What could not be given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    /// A program that it executes could have more rights than it has.
    #[error("cannot give up new privileges")]
    NewPrivileges(#[source] Errno),
    /// Capabilities stay.
    #[error("cannot drop capabilities")]
    Capabilities(#[source] Errno),
    /// The kernel has seccomp and refuses the filters.
    #[error("cannot restrict system calls")]
    Seccomp(#[from] seccompiler::Error),
}

/// To look at processes of other users, and to open what only they may read of that.
const CAPABILITIES: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

const PROC: &str = "/proc";

/// Nothing is written or executed there, and no link followed: those in `/proc` lead to the files of all
/// processes.
const LOOK_ONLY: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NOSYMFOLLOW);

/// Makes `/proc` the only file system that there is for this process. Tells where it is from now on.
///
/// An ordinary user cannot do this, and has nothing but its own files to lose.
pub(super) fn leave_files() -> &'static str {
    match leave() {
        Ok(()) => "/",
        Err(error) => {
            let is_root = rustix::process::geteuid().is_root();
            match is_root {
                true => tracing::warn!(%error, "this host lets a witness see files beside /proc"),
                false => tracing::debug!(%error, "an ordinary user's witness sees that user's files"),
            }
            PROC
        }
    }
}

fn leave() -> Result<(), Errno> {
    let before = openat(CWD, "/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| Errno::from_raw_os_error(error as i32))?;
    change_root().inspect_err(|_| {
        // What is mounted would stay mounted here, whoever unmounts it elsewhere.
        if let Err(error) = setns(before, CloneFlags::CLONE_NEWNS) {
            tracing::error!(%error, "a witness keeps what is mounted from being unmounted");
        }
    })
}

fn change_root() -> Result<(), Errno> {
    // Nothing of this is seen outside, and nothing that happens outside here.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount_bind(PROC, PROC)?;
    mount_remount(PROC, MountFlags::BIND | LOOK_ONLY, "")?;
    chdir(PROC)?;
    // With all that is mounted below. Who is in it keeps it, and this process is in `/proc`.
    unmount("/", UnmountFlags::DETACH)?;
    chroot(".")
}

/// Enters the rest of the sandbox, for good, on the only thread that there is.
pub(super) fn enter() -> Result<(), SandboxError> {
    rustix::thread::set_no_new_privs(true).map_err(SandboxError::NewPrivileges)?;
    let sees_others = capabilities::keep_only(CAPABILITIES).map_err(SandboxError::Capabilities)?;
    let calls = seccomp::enter(ALLOWED)?;
    match calls {
        true => tracing::debug!(sees_others, "confined"),
        false => tracing::warn!("this kernel confines a witness in part only"),
    }
    Ok(())
}

/// Files are read, and neither made nor written.
const READ_ONLY: &[Alternative] =
    &[&[A::without(2, libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_PATH)]];
const NOT_EXECUTABLE: &[Alternative] = &[&[A::without(2, libc::PROT_EXEC)]];

/// What a witness calls.
const ALLOWED: &[Rule] = &[
    // What it is there for.
    (libc::SYS_openat, READ_ONLY),
    (libc::SYS_read, ANY),
    (libc::SYS_pread64, ANY),
    (libc::SYS_readlinkat, ANY),
    (libc::SYS_close, ANY),
    // Whether two processes have one memory. Ends every other process of ours.
    (libc::SYS_kcmp, ANY),
    // Those who ask.
    (libc::SYS_recvfrom, ANY),
    (libc::SYS_recvmsg, ANY),
    (libc::SYS_sendmsg, &[&[A::without(2, libc::MSG_FASTOPEN)]]),
    // The allocator, and the log with its time.
    (libc::SYS_write, ANY),
    (libc::SYS_brk, ANY),
    (libc::SYS_mmap, NOT_EXECUTABLE),
    (libc::SYS_mremap, ANY),
    (libc::SYS_munmap, ANY),
    (libc::SYS_madvise, ANY),
    (libc::SYS_futex, ANY),
    (libc::SYS_clock_gettime, ANY),
    (libc::SYS_restart_syscall, ANY),
    // The end: of the process, and of a panic.
    (libc::SYS_exit, ANY),
    (libc::SYS_exit_group, ANY),
    (libc::SYS_getpid, ANY),
    (libc::SYS_gettid, ANY),
    (libc::SYS_rt_sigaction, ANY),
    (libc::SYS_rt_sigprocmask, ANY),
    (libc::SYS_rt_sigreturn, ANY),
    (libc::SYS_sigaltstack, ANY),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_stands_in_one_list_and_once() {
        let others: Vec<Rule> = ALLOWED.iter().filter(|(call, _)| *call != libc::SYS_kcmp).copied().collect();
        assert_eq!(others.len() + 1, ALLOWED.len());
        seccomp::tests::expect_each_once(&others);
    }
}
