//! Whether two processes have one memory.
//!
//! JUSTIFICATION for unsafe code: no library wraps kcmp(2). It takes numbers and no pointer.
#![allow(unsafe_code, reason = "a system call that no library wraps")]

use rustix::io::Errno;

/// `KCMP_VM` of linux/kcmp.h.
const MEMORY: libc::c_int = 1;

/// Whether two processes have one memory.
///
/// # Errors
/// What the kernel says: one is not there, may not be looked at, or the kernel cannot compare.
pub(super) fn have_one_memory(one: u32, other: u32) -> Result<bool, Errno> {
    let (one, other) = (one.cast_signed(), other.cast_signed());
    // SAFETY: the call takes numbers only, and changes nothing.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, MEMORY, 0, 0) } {
        0 => Ok(true),
        1.. => Ok(false),
        _ => {
            Err(std::io::Error::last_os_error().raw_os_error().map_or(Errno::NOSYS, Errno::from_raw_os_error))
        }
    }
}
