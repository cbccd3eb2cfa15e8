//! The system calls that a worker makes, each with the path that needs it.
//!
//! Measured with strace on glibc 2.36: a worker's start, a resolved name, a request to the manager
//! and reads from the mount. Not here on purpose: `clone3`, whose flags a filter cannot see, so that
//! glibc falls back on `clone`; `bind` and `listen`; io_uring, past which no filter sees.

use libc::c_int;

use crate::host::confinement::seccomp::{ANY, Alternative, Argument, Argument as A, Rule};

/// Memory that is not executable, and never becomes so.
const NOT_EXECUTABLE: &[Alternative] = &[&[A::without(2, libc::PROT_EXEC)]];

/// Files are read and never written.
const READ_ONLY: &[Alternative] =
    &[&[A::without(2, libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_PATH)]];

/// A thread of this process: not a process, and no new namespace.
const THREAD: &[Alternative] = &[&[A::bits(0, libc::CLONE_THREAD | NAMESPACES, libc::CLONE_THREAD)]];
const NAMESPACES: c_int = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

/// TCP and UDP. Not MPTCP or SCTP, whose connections Landlock does not see. A Unix socket would reach
/// every daemon of the machine; netlink only helps glibc to sort addresses, and it can do without.
const INTERNET: &[Alternative] = &[
    &[A::is(0, libc::AF_INET), kind(libc::SOCK_STREAM), A::is(2, 0)],
    &[A::is(0, libc::AF_INET), kind(libc::SOCK_STREAM), A::is(2, libc::IPPROTO_TCP)],
    &[A::is(0, libc::AF_INET), kind(libc::SOCK_DGRAM), A::is(2, 0)],
    &[A::is(0, libc::AF_INET6), kind(libc::SOCK_STREAM), A::is(2, 0)],
    &[A::is(0, libc::AF_INET6), kind(libc::SOCK_STREAM), A::is(2, libc::IPPROTO_TCP)],
    &[A::is(0, libc::AF_INET6), kind(libc::SOCK_DGRAM), A::is(2, 0)],
];
/// A socket's type, which is its argument without SOCK_CLOEXEC and SOCK_NONBLOCK.
const fn kind(kind: c_int) -> Argument {
    A::bits(1, !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK), kind)
}

/// Not the kernel's own TLS, no filter, no congestion control: only what hyper, reqwest and glibc set.
const SOCKET_OPTIONS: &[Alternative] = &[
    &[A::is(1, libc::SOL_SOCKET), A::is(2, libc::SO_KEEPALIVE)],
    &[A::is(1, libc::IPPROTO_TCP), A::is(2, libc::TCP_NODELAY)],
    &[A::is(1, libc::IPPROTO_TCP), A::is(2, libc::TCP_KEEPIDLE)],
    &[A::is(1, libc::IPPROTO_TCP), A::is(2, libc::TCP_KEEPINTVL)],
    &[A::is(1, libc::IPPROTO_TCP), A::is(2, libc::TCP_KEEPCNT)],
    &[A::is(1, libc::IPPROTO_TCP), A::is(2, libc::TCP_USER_TIMEOUT)],
    &[A::is(1, libc::IPPROTO_IP), A::is(2, libc::IP_RECVERR)],
    &[A::is(1, libc::IPPROTO_IPV6), A::is(2, libc::IPV6_RECVERR)],
];

/// Not F_SETOWN, which has the kernel send signals to others.
const DESCRIPTOR_FLAGS: &[Alternative] = &[
    &[A::is(1, libc::F_DUPFD_CLOEXEC)],
    &[A::is(1, libc::F_GETFD)],
    &[A::is(1, libc::F_SETFD)],
    &[A::is(1, libc::F_GETFL)],
    &[A::is(1, libc::F_SETFL)],
    &[A::is(1, libc::F_ADD_SEALS)],
];

/// What a worker calls.
pub(super) const ALLOWED: &[Rule] = &[
    // The kernel's requests and the replies, the holder's messages, former workers' manifests, the log.
    (libc::SYS_read, ANY),
    (libc::SYS_write, ANY),
    (libc::SYS_readv, ANY),
    (libc::SYS_pread64, ANY),
    (libc::SYS_writev, ANY),
    (libc::SYS_close, ANY),
    // A session that goes on with the holder's /dev/fuse in place of the one it began with.
    (libc::SYS_dup3, ANY),
    (libc::SYS_fcntl, DESCRIPTOR_FLAGS),
    (libc::SYS_ioctl, &[&[A::is(1, libc::FIONBIO as c_int)], &[A::is(1, libc::FIONREAD as c_int)]]),
    (libc::SYS_geteuid, ANY),
    // The allocator, stacks, and memory that outlives the worker.
    (libc::SYS_brk, ANY),
    (libc::SYS_mmap, NOT_EXECUTABLE),
    (libc::SYS_mprotect, NOT_EXECUTABLE),
    (libc::SYS_mremap, ANY),
    (libc::SYS_munmap, ANY),
    (libc::SYS_madvise, ANY),
    (libc::SYS_mlock, ANY),
    (libc::SYS_memfd_create, ANY),
    (libc::SYS_memfd_secret, ANY),
    (libc::SYS_ftruncate, ANY),
    // Threads: their start, their end, and what std and tokio ask on the way.
    (libc::SYS_clone, THREAD),
    (libc::SYS_futex, ANY),
    (libc::SYS_set_robust_list, ANY),
    (libc::SYS_rseq, ANY),
    (libc::SYS_gettid, ANY),
    (libc::SYS_getpid, ANY),
    (libc::SYS_prctl, &[&[A::is(0, libc::PR_SET_NAME)]]),
    (libc::SYS_prlimit64, &[&[A::null(2)]]),
    (libc::SYS_sched_getaffinity, ANY),
    (libc::SYS_sched_yield, ANY),
    (libc::SYS_exit, ANY),
    (libc::SYS_exit_group, ANY),
    // Signal handlers: std's for stack overflows, tokio's for SIGTERM.
    (libc::SYS_rt_sigaction, ANY),
    (libc::SYS_rt_sigprocmask, ANY),
    (libc::SYS_rt_sigreturn, ANY),
    (libc::SYS_restart_syscall, ANY),
    (libc::SYS_sigaltstack, ANY),
    // Time, where the vDSO does not answer, and sleep.
    (libc::SYS_clock_gettime, ANY),
    (libc::SYS_clock_nanosleep, ANY),
    // tokio's and glibc's waits.
    (libc::SYS_epoll_create1, ANY),
    (libc::SYS_epoll_ctl, ANY),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, ANY),
    (libc::SYS_epoll_pwait, ANY),
    (libc::SYS_eventfd2, ANY),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, ANY),
    (libc::SYS_ppoll, ANY),
    // The manager and DNS. With MSG_FASTOPEN a connection would begin past Landlock.
    (libc::SYS_socket, INTERNET),
    (libc::SYS_connect, ANY),
    (libc::SYS_getpeername, ANY),
    (libc::SYS_getsockname, ANY),
    (libc::SYS_getsockopt, ANY),
    (libc::SYS_setsockopt, SOCKET_OPTIONS),
    (libc::SYS_shutdown, ANY),
    (libc::SYS_recvfrom, ANY),
    (libc::SYS_sendto, &[&[A::without(3, libc::MSG_FASTOPEN)]]),
    (libc::SYS_sendmmsg, &[&[A::without(3, libc::MSG_FASTOPEN)]]),
    // The inherited listener, the holder, and the pairs that fuser's start and tokio's signals need.
    (libc::SYS_accept4, ANY),
    (libc::SYS_recvmsg, ANY),
    (libc::SYS_sendmsg, &[&[A::without(2, libc::MSG_FASTOPEN)]]),
    (libc::SYS_socketpair, &[&[A::is(0, libc::AF_UNIX)]]),
    // Keys, nonces, hash maps.
    (libc::SYS_getrandom, ANY),
    // Name resolution: /etc/hosts and its like.
    (libc::SYS_openat, READ_ONLY),
    (libc::SYS_fstat, ANY),
    (libc::SYS_newfstatat, ANY),
    (libc::SYS_statx, ANY),
    (libc::SYS_lseek, ANY),
    (libc::SYS_uname, ANY),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::confinement::seccomp;

    #[test]
    fn each_call_stands_in_one_list_and_once() {
        seccomp::tests::expect_each_once(ALLOWED);
    }
}
