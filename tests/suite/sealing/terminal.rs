//! Unlocking at a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

use super::Rig;
use crate::harness::deadline;
use crate::harness::process::SECRETFS;

pub(super) fn a_terminal_is_asked_and_shows_no_key() {
    let mut rig = Rig::new(&[]);
    rig.manager.run_sealed();
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    unlockpt(&terminal).expect("ours");
    let name = ptsname(&terminal, Vec::new()).expect("its name");
    let end = File::options().read(true).write(true).open(name.to_str().expect("a path")).expect("its end");
    let mut child = Command::new("setsid")
        .args(["--ctty", "--wait", SECRETFS, "manager", "unlock", "--data-dir"])
        .arg(rig.manager.data())
        .stdin(Stdio::from(end))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setsid");
    let mut keyboard = File::from(terminal);
    let mut screen = keyboard.try_clone().expect("the same terminal");
    let (show, shown) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 1024];
        // An error is the end of the terminal.
        while let Ok(length) = screen.read(&mut bytes) {
            if show.send(String::from_utf8_lossy(&bytes[..length]).into_owned()).is_err() {
                return;
            }
        }
    });
    let mut seen = String::new();
    deadline::eventually("it asks", || {
        seen.extend(shown.try_iter());
        seen.contains("Unlock key: ")
    });
    let key = rig.manager.unlock_lines();
    keyboard.write_all(key.as_bytes()).expect("typed");
    let status = deadline::poll("it ends", || child.try_wait().expect("a child of ours"));
    assert_eq!(status.code(), Some(0));
    rig.serves();
    seen.extend(shown.iter());
    assert!(!seen.contains(&key[5..20]), "{seen}");
}
