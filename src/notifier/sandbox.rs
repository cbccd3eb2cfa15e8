//! What a notifier gives up: all but its mounts, and all system calls but those that are seen there.

use std::os::fd::AsFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, PathBeneath, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, Scope,
};
use rustix::io::Errno;
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
    /// The kernel has Landlock and refuses the rules.
    #[error("cannot restrict files")]
    Landlock(#[from] RulesetError),
    /// The kernel has seccomp and refuses the filters.
    #[error("cannot restrict system calls")]
    Seccomp(#[from] seccompiler::Error),
}

/// The newest version of Landlock that this has been tried with.
const NEWEST: ABI = ABI::V7;

/// To be allowed, by the files' modes, what it is there for: to write to what nobody may write to.
const CAPABILITIES: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// Enters the sandbox, for good, on the only thread that there is.
pub(super) fn enter(mounts: impl IntoIterator<Item = impl AsFd>) -> Result<(), SandboxError> {
    rustix::thread::set_no_new_privs(true).map_err(SandboxError::NewPrivileges)?;
    capabilities::keep_only(CAPABILITIES).map_err(SandboxError::Capabilities)?;
    let files = restrict_files(mounts)?;
    let calls = seccomp::enter(ALLOWED)?;
    match files && calls {
        true => tracing::debug!("confined"),
        false => tracing::warn!(files, calls, "this kernel confines a notifier in part only"),
    }
    Ok(())
}

/// No file but those of the mounts, no network, no signal to others. Tells whether the kernel can.
fn restrict_files(mounts: impl IntoIterator<Item = impl AsFd>) -> Result<bool, RulesetError> {
    let seen = AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::RemoveFile;
    let mounts = mounts.into_iter().map(|mount| Ok::<_, RulesetError>(PathBeneath::new(mount, seen)));
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(mounts)?
        .restrict_self()?;
    Ok(matches!(status.landlock, LandlockStatus::Available { .. }))
}

/// Files are written, and neither made nor cut short by that.
const WRITE_ONLY: &[Alternative] =
    &[&[A::bits(2, libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_PATH, libc::O_WRONLY)]];
const NO_DEVICE: &[Alternative] = &[&[A::bits(2, libc::S_IFMT.cast_signed(), libc::S_IFREG.cast_signed())]];
const NO_DIRECTORY: &[Alternative] = &[&[A::is(2, 0)]];
const NOT_EXECUTABLE: &[Alternative] = &[&[A::without(2, libc::PROT_EXEC)]];

/// What a notifier calls.
const ALLOWED: &[Rule] = &[
    // What it is there for.
    (libc::SYS_openat, WRITE_ONLY),
    // Directories, and what is known of names in them. Its flags are where no filter sees them.
    (libc::SYS_openat2, ANY),
    (libc::SYS_fstat, ANY),
    (libc::SYS_write, ANY),
    (libc::SYS_close, ANY),
    (libc::SYS_utimensat, ANY),
    (libc::SYS_mknodat, NO_DEVICE),
    (libc::SYS_mkdirat, ANY),
    (libc::SYS_unlinkat, NO_DIRECTORY),
    // The queue, and patience with a worker that refuses.
    (libc::SYS_recvfrom, ANY),
    (libc::SYS_clock_nanosleep, ANY),
    (libc::SYS_restart_syscall, ANY),
    // The allocator, and the log with its time.
    (libc::SYS_brk, ANY),
    (libc::SYS_mmap, NOT_EXECUTABLE),
    (libc::SYS_mremap, ANY),
    (libc::SYS_munmap, ANY),
    (libc::SYS_madvise, ANY),
    (libc::SYS_futex, ANY),
    (libc::SYS_clock_gettime, ANY),
    // The end: of the process, and of a panic.
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
        seccomp::tests::expect_each_once(ALLOWED);
    }
}
