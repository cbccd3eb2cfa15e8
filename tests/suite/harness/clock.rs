//! Processes whose clock is wrong.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Lets a command believe in a time that is so far off, such as `+7m`. Waits are as long as ever.
pub(crate) fn shift_clock(command: &mut Command, off: &str) {
    let library = library().expect("libfaketime");
    command.env("LD_PRELOAD", library).env("FAKETIME", off);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
}

/// Where Debian has it.
pub(crate) fn library() -> Option<PathBuf> {
    let directories = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let candidates = directories.map(|directory| directory.path().join("faketime/libfaketimeMT.so.1"));
    candidates.into_iter().find(|path| path.exists())
}
