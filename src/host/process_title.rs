//! What `ps` shows of this process, when that changes in the course of its life.
//!
//! JUSTIFICATION for unsafe code: the kernel reads the title from the memory that has the arguments,
//! and the only other way to change it (`PR_SET_MM`) takes a capability.
#![allow(unsafe_code, reason = "the kernel reads the title from where the arguments were")]

use std::ffi::CStr;

/// Names this process, which was started through `/proc`, after the program: so `pgrep` finds it.
pub(crate) fn name_process() {
    const NAME: &CStr = c"secretfs";
    let _ = rustix::thread::set_name(NAME);
}

/// The memory that has the arguments of this process.
pub(crate) struct ProcessTitle {
    begin: usize,
    length: usize,
}

impl ProcessTitle {
    /// Finds it, while `/proc` can be read.
    pub(crate) fn find() -> Option<Self> {
        parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Shows another title, as much of it as there is room for: as long as the arguments were.
    pub(crate) fn set(&self, title: &str) {
        let shown = title.len().min(self.length);
        let begin = std::ptr::with_exposed_provenance_mut::<u8>(self.begin);
        // SAFETY: the kernel has put the arguments into these bytes of the process's own stack, from
        // `arg_start` to `arg_end`, where they stay writable for its whole life. No reference to them
        // exists: the standard library copies what it hands out, and is not asked any more by a
        // worker, which has one argument and has read it.
        unsafe {
            std::ptr::copy_nonoverlapping(title.as_ptr(), begin, shown);
            std::ptr::write_bytes(begin.add(shown), 0, self.length - shown);
        }
    }
}

/// `arg_start` and `arg_end` are the fields 48 and 49 of proc_pid_stat(5). The second field is the
/// program's name in parentheses and may have anything in it, parentheses too.
fn parse(stat: &str) -> Option<ProcessTitle> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(48 - 3);
    let mut next = || fields.next()?.parse::<usize>().ok();
    let (begin, end) = (next()?, next()?);
    // Zeros for who may not see them.
    let length = end.checked_sub(begin).filter(|_| begin != 0)?;
    Some(ProcessTitle { begin, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_this_process_are_where_the_kernel_says() {
        let title = ProcessTitle::find().expect("our own");
        let shown = std::fs::read("/proc/self/cmdline").expect("the arguments");
        assert_eq!(title.length, shown.len());
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_is_skipped() {
        let fields: Vec<String> = (3..=52).map(|field| (field * 100).to_string()).collect();
        let title = parse(&format!("1 (a) b (c)) {}", fields.join(" "))).expect("both fields");
        assert_eq!((title.begin, title.length), (4800, 100));
        assert!(parse("1 (short) S 1").is_none());
    }
}
