//! One thread of a process, stopped at will while the others run: by ptrace(2), as a debugger does.

use std::fs;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// The thread of a worker that reads the kernel's requests. The FUSE library names it.
pub(crate) const READING: &str = "fuser-0";

/// A thread that stands still. It goes on when this is dropped.
pub(crate) struct Stopped(Pid);

impl Stopped {
    /// Stops the thread of this name. Dropped or [reaped](Self::reap) on the same thread of the test.
    pub(crate) fn stop(process: u32, name: &str) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).expect("a process");
        let thread = threads
            .map(|thread| thread.expect("a thread").path())
            .find(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim_end() == name))
            .unwrap_or_else(|| panic!("{process} has no thread {name}"));
        let number = thread.file_name().and_then(|number| number.to_str()).expect("a number");
        let thread = Pid::from_raw(number.parse().expect("a number"));
        ptrace::seize(thread, ptrace::Options::empty()).expect("it is traced");
        ptrace::interrupt(thread).expect("it is told to stop");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        Self(thread)
    }

    /// Takes note of its death, which nobody else can while it is traced.
    pub(crate) fn reap(self) {
        let _ = waitpid(self.0, Some(WaitPidFlag::__WALL));
        std::mem::forget(self);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}
