//! System calls: those that serving takes.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::SandboxError;

/// What a worker calls, and where. Whatever is not here is answered ENOSYS, as by a kernel that does
/// not have it, so that a newer C library falls back to what it used before.
#[rustfmt::skip]
const ALLOWED: &[(libc::c_long, &str)] = &[
    // The kernel's requests, and everything else that has a descriptor.
    (libc::SYS_read, "requests of the kernel"),
    (libc::SYS_write, "notifications to the kernel, log"),
    (libc::SYS_writev, "answers to the kernel"),
    (libc::SYS_pread64, "manifests of former workers"),
    (libc::SYS_close, "descriptors"),
    (libc::SYS_dup3, "taking a connection over"),
    (libc::SYS_fcntl, "descriptors: close on exec, not blocking, duplicates"),
    (libc::SYS_fstat, "sizes of shared memory and manifests"),
    (libc::SYS_statx, "the same, by the standard library"),
    (libc::SYS_lseek, "files of name resolution"),
    // Messages of the holder, the manager, and who asks for the status.
    (libc::SYS_sendmsg, "holder, DNS"),
    (libc::SYS_recvmsg, "holder, DNS"),
    (libc::SYS_sendmmsg, "DNS"),
    (libc::SYS_sendto, "manager, prepared sessions"),
    (libc::SYS_recvfrom, "manager, prepared sessions"),
    (libc::SYS_socketpair, "prepared sessions"),
    (libc::SYS_connect, "manager, DNS"),
    (libc::SYS_bind, "netlink socket of getaddrinfo(3); TCP is restricted by Landlock"),
    (libc::SYS_accept4, "node status"),
    (libc::SYS_shutdown, "manager, node status"),
    (libc::SYS_getsockname, "manager, DNS"),
    (libc::SYS_getpeername, "manager"),
    (libc::SYS_getsockopt, "manager"),
    (libc::SYS_setsockopt, "manager, DNS"),
    // Manifests for the workers to come.
    (libc::SYS_memfd_create, "manifests"),
    (libc::SYS_ftruncate, "manifests"),
    // Names of managers.
    (libc::SYS_openat, "files of name resolution; which ones is up to Landlock"),
    (libc::SYS_newfstatat, "files of name resolution"),
    (libc::SYS_readlinkat, "files of name resolution"),
    (libc::SYS_uname, "name resolution"),
    (libc::SYS_getuid, "modules of name resolution"),
    (libc::SYS_geteuid, "modules of name resolution"),
    (libc::SYS_getgid, "modules of name resolution"),
    (libc::SYS_getegid, "modules of name resolution"),
    (libc::SYS_ioctl, "how much is left to read of an answer of DNS"),
    // The runtime waits.
    (libc::SYS_epoll_create1, "runtime"),
    (libc::SYS_epoll_ctl, "runtime"),
    (libc::SYS_epoll_pwait, "runtime"),
    (libc::SYS_eventfd2, "runtime"),
    (libc::SYS_ppoll, "DNS"),
    (libc::SYS_futex, "locks"),
    (libc::SYS_clock_gettime, "time, where the kernel does not map it"),
    (libc::SYS_clock_nanosleep, "back-off"),
    (libc::SYS_nanosleep, "back-off"),
    (libc::SYS_restart_syscall, "a wait that a stop has interrupted"),
    (libc::SYS_gettimeofday, "name resolution"),
    // Memory and threads.
    (libc::SYS_mmap, "memory"),
    (libc::SYS_munmap, "memory"),
    (libc::SYS_mremap, "memory"),
    (libc::SYS_mprotect, "stacks of threads"),
    (libc::SYS_madvise, "memory, ends of threads"),
    (libc::SYS_brk, "memory"),
    (libc::SYS_clone3, "threads"),
    (libc::SYS_set_robust_list, "threads"),
    (libc::SYS_rseq, "threads"),
    (libc::SYS_gettid, "threads"),
    (libc::SYS_getpid, "threads"),
    (libc::SYS_sched_getaffinity, "threads"),
    (libc::SYS_sched_yield, "locks"),
    (libc::SYS_sigaltstack, "threads"),
    (libc::SYS_rt_sigaction, "threads, crashes"),
    (libc::SYS_rt_sigprocmask, "threads, crashes"),
    (libc::SYS_rt_sigreturn, "signals"),
    (libc::SYS_membarrier, "runtime, cryptography"),
    (libc::SYS_getrandom, "keys, salts, hash tables"),
    (libc::SYS_sysinfo, "runtime"),
    // The end.
    (libc::SYS_tgkill, "a crash ends the process by a signal to itself"),
    (libc::SYS_exit, "threads"),
    (libc::SYS_exit_group, "the end"),
];

/// Calls that newer machines have under other names.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[(libc::c_long, &str)] = &[
    (libc::SYS_poll, "DNS"),
    (libc::SYS_epoll_wait, "runtime"),
    (libc::SYS_open, "files of name resolution, in older C libraries"),
    (libc::SYS_stat, "files of name resolution, in older C libraries"),
    (libc::SYS_readlink, "files of name resolution"),
    (libc::SYS_access, "modules of name resolution"),
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[(libc::c_long, &str)] = &[];

/// What only somebody calls who has taken a worker over: the end of it.
const FATAL: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_pivot_root,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_open_by_handle_at,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
];

/// Sockets of these families only.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// Of prctl(2): names of threads, and of memory, as allocators give them.
const PRCTL: [i32; 2] = [libc::PR_SET_NAME, libc::PR_SET_VMA];

pub(super) fn restrict() -> Result<(), SandboxError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| SandboxError::Architecture(std::env::consts::ARCH))?;
    let apply = || {
        let fatal = FATAL.iter().map(|call| (*call, Vec::new())).collect();
        install(fatal, SeccompAction::Allow, SeccompAction::KillProcess, architecture)?;
        let no_such_call = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        install(allowed()?, no_such_call, SeccompAction::Allow, architecture)
    };
    apply().map_err(SandboxError::Seccomp)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn allowed() -> Result<Rules, seccompiler::Error> {
    let whole = ALLOWED.iter().chain(ALLOWED_HERE);
    let mut rules: Rules = whole.map(|(call, _)| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_socket, first_argument_is_one_of(&FAMILIES)?);
    rules.insert(libc::SYS_prctl, first_argument_is_one_of(&PRCTL)?);
    // For threads only, by C libraries that do not know clone3: never into another namespace.
    let namespaces = (libc::CLONE_NEWNS
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP) as u64;
    let none = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(namespaces), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![none])?]);
    Ok(rules)
}

fn first_argument_is_one_of(values: &[i32]) -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let mut rules = Vec::new();
    for value in values {
        let value = u64::from(value.unsigned_abs());
        let equal = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        rules.push(SeccompRule::new(vec![equal])?);
    }
    Ok(rules)
}

fn install(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
    architecture: TargetArch,
) -> Result<(), seccompiler::Error> {
    let filter = SeccompFilter::new(rules, otherwise, matched, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_allowed_call_says_what_it_is_for_and_is_listed_once() {
        let mut seen = std::collections::BTreeSet::new();
        for (call, purpose) in ALLOWED.iter().chain(ALLOWED_HERE) {
            assert!(!purpose.is_empty() && seen.insert(*call), "{call}");
            assert!(!FATAL.contains(call), "{call} is allowed and fatal");
        }
        allowed().expect("rules that make a filter");
    }
}
