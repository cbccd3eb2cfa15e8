//! Memory that several processes map, or that outlives the one that made it.
//!
//! JUSTIFICATION for unsafe code: `mmap` hands out an address and nothing else, and the standard
//! library has no way to make it a slice. Nothing else here is unsafe: the memory is shown as atomic
//! words only, so that no other process, however it writes, can make a program in safe Rust unsound.
#![allow(unsafe_code, reason = "mmap, and a system call that no library wraps")]

use std::io;
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// Bytes in a word.
const WORD: usize = size_of::<u64>();

/// Makes memory that whoever has its descriptor can map and read: for what is no secret.
///
/// Its size is fixed, so that no mapping of it can be cut short under its reader.
///
/// # Errors
/// What the system says: no memory, no descriptor.
pub(crate) fn create(name: &str, words: usize) -> io::Result<OwnedFd> {
    let memory = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, (words * WORD) as u64)?;
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memory)
}

/// Makes memory that only a process that maps it can read: not root through `/proc`, not a debugger,
/// not the kernel's own map of all memory. It is never swapped (memfd_secret(2), Linux 5.14).
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where the kernel does not have it or has it switched off.
pub(crate) fn create_secret(words: usize) -> io::Result<OwnedFd> {
    // SAFETY: the call takes one flag and no pointer.
    let descriptor = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let descriptor = i32::try_from(descriptor).unwrap_or(-1);
    if descriptor < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::ENOSYS) => io::ErrorKind::Unsupported.into(),
            _ => error,
        });
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let memory = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // The kernel lets the size be set once.
    ftruncate(&memory, (words * WORD) as u64)?;
    Ok(memory)
}

/// A mapping. It stays where it is until it is dropped.
#[derive(Debug)]
struct Mapping {
    begin: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and all access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `Words`, with this length, and the last reference to it ends here.
        let unmapped = unsafe { munmap(self.begin.as_ptr().cast(), self.words * WORD) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours is not one");
    }
}

/// A part of such memory, as words that any process may read and write at any time.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl Words {
    /// Zeroed memory of this process alone.
    ///
    /// # Errors
    /// What the system says: no memory, or a limit on locked memory.
    pub(crate) fn private(words: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place that nothing else uses.
        let begin = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                words * WORD,
                access,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        Self::new(begin, words)
    }

    /// The first `words` of memory that [`create`] or [`create_secret`] made, here or elsewhere.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when it is smaller; otherwise what the system says.
    pub(crate) fn map(memory: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let size = fstat(memory)?.st_size;
        if usize::try_from(size).unwrap_or(0) < words * WORD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "shared memory is smaller than it should be",
            ));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place that nothing else uses. The memory is as large as the
        // mapping and stays so, sealed or secret, so that no access to it can fault.
        let begin =
            unsafe { mmap(std::ptr::null_mut(), words * WORD, access, MapFlags::SHARED, memory.as_fd(), 0)? };
        Self::new(begin, words)
    }

    fn new(begin: *mut std::ffi::c_void, words: usize) -> io::Result<Self> {
        let begin = NonNull::new(begin.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { mapping: Arc::new(Mapping { begin, words }), range: 0..words })
    }

    /// A part of this part.
    ///
    /// # Panics
    /// When it is not inside.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        let range = self.range.start + range.start..self.range.start + range.end;
        assert!(range.start <= range.end && range.end <= self.range.end, "not a part of this memory");
        Self { mapping: self.mapping.clone(), range }
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: mapped for as long as `self` holds the mapping, aligned to a page, and at least
        // this long (`new` and `part` keep the range inside). Any bit pattern is a word, and words
        // that are atomic may be changed by others while we look.
        unsafe {
            let begin = self.mapping.begin.as_ptr().add(self.range.start);
            std::slice::from_raw_parts(begin, self.range.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn two_mappings_of_one_memory_show_the_same() {
        for memory in [create("test", 1024), create_secret(1024)] {
            let memory = memory.expect("memory");
            let one = Words::map(memory.as_fd(), 1024).expect("a mapping");
            let two = Words::map(memory.as_fd(), 1024).expect("another");
            one.part(8..16)[7].store(42, Relaxed);
            assert_eq!(two[15].load(Relaxed), 42);
            drop(one);
            assert_eq!(two[15].load(Relaxed), 42);
        }
    }

    #[test]
    fn memory_that_is_too_small_is_refused() {
        let memory = create("test", 8).expect("memory");
        let error = Words::map(memory.as_fd(), 9).expect_err("too small");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(ftruncate(&memory, 0).is_err(), "it could be cut short under its readers");
    }

    #[test]
    #[should_panic(expected = "not a part")]
    fn a_part_is_inside() {
        let _ = Words::private(8).expect("memory").part(4..9);
    }

    #[test]
    fn secret_memory_cannot_be_read_through_its_descriptor() {
        let memory = create_secret(8).expect("memory");
        let error = rustix::io::read(&memory, &mut [0; 8]).expect_err("nobody reads it");
        assert_eq!(error, rustix::io::Errno::INVAL);
    }
}
