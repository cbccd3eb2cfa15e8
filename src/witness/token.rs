//! Whether a process is still the one that it was: the same thread, and in it the same program.
//!
//! A process id may be another process's after its end, and a process may become another program. Both
//! are seen by two descriptors that are opened once and asked at each open of a file:
//!
//! - `pagemap` (proc_pid_pagemap(5)) is bound to the memory that the process had when it was opened. A
//!   read says end of file once that memory is gone, by exec or by exit, and otherwise checks what it is
//!   asked for. So it is asked for what is no whole entry: the kernel then neither looks at the memory
//!   nor takes a lock of it, and tells nothing.
//! - `oom_score_adj` (proc_pid_oom_score_adj(5)) is bound to the thread: a read fails once that is gone.
//!   Memory that several processes share (vfork(2)) outlives one of them.
//!
//! Together they cost half a microsecond, a look at `/proc` twenty.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::{Errno, pread};

/// The files of a process's directory in `/proc`, in the order of the descriptors.
pub(crate) const FILES: [&str; 2] = ["pagemap", "oom_score_adj"];

/// The two descriptors.
#[derive(Debug)]
pub(crate) struct Token {
    memory: OwnedFd,
    thread: OwnedFd,
}

impl Token {
    /// The token that these descriptors are, of files as in [`FILES`].
    pub(crate) fn new([memory, thread]: [OwnedFd; 2]) -> Self {
        Self { memory, thread }
    }

    /// Whether the process is the one that it was.
    pub(crate) fn holds(&self) -> bool {
        let no_entry = &mut [0_u8; 1];
        pread(&self.memory, &mut *no_entry, 0) == Err(Errno::INVAL)
            && pread(&self.thread, &mut *no_entry, 0).is_ok_and(|read| read > 0)
    }

    /// The descriptors.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.memory.as_fd(), self.thread.as_fd()]
    }
}
