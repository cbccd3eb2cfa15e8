//! Each test is a child that enters the sandbox, once as root and once as nobody.
//!
//! It does so on libtest's thread for the test and not on the main thread. That makes no difference
//! to what this thread and those it starts can do.

mod manager;
mod refused;
mod work;

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::{Enforced, Sandbox};
use crate::host::{harden, test_child};
use manager::Manager;

#[test]
fn a_worker_does_its_work() {
    const NAME: &str = "worker::sandbox::tests::a_worker_does_its_work";
    in_children(NAME, work::does_its_work);
}

#[test]
fn what_a_worker_does_not_need_is_refused() {
    const NAME: &str = "worker::sandbox::tests::what_a_worker_does_not_need_is_refused";
    in_children(NAME, refused::is_refused);
}

/// Runs `child` in a child that is root and in one that is nobody, with a manager's directory.
fn in_children(name: &str, child: impl FnOnce(&Path)) {
    if let Some(directory) = test_child::part() {
        return child(Path::new(&directory));
    }
    let manager = Manager::start();
    for nobody in [false, true] {
        let mut command = test_child::command(name, manager.directory());
        if nobody {
            test_child::as_nobody(&mut command);
        }
        test_child::expect_success(&command.output().expect("a child"));
    }
}

#[test]
fn what_only_an_attacker_calls_ends_the_process() {
    const NAME: &str = "worker::sandbox::tests::what_only_an_attacker_calls_ends_the_process";
    let attack = test_child::part();
    if attack.is_some() {
        enter(1);
    }
    match attack.as_deref() {
        None => {
            for attack in ["execute", "unshare", "trace", "become root", "leave the root directory"] {
                let output = test_child::command(NAME, attack).output().expect("a child");
                assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{attack}: {output:?}");
            }
        }
        // Replaces this process: there is no fork before.
        Some("execute") => drop(Command::new("/bin/true").exec()),
        Some("unshare") => drop(unshare(CloneFlags::CLONE_NEWUSER)),
        Some("trace") => drop(nix::sys::ptrace::traceme()),
        Some("become root") => drop(nix::unistd::setuid(nix::unistd::Uid::from_raw(0))),
        Some("leave the root directory") => drop(std::os::unix::fs::chroot("/tmp")),
        Some(other) => panic!("no attack is called {other}"),
    }
}

/// Enters the sandbox as a worker does.
fn enter(manager_port: u16) -> Enforced {
    // Where memory cannot be locked, another test says so.
    let _ = harden();
    let enforced = Sandbox::new(Some(manager_port)).enter().expect("a sandbox");
    assert!(enforced.seccomp, "a kernel without seccomp cannot run this test");
    enforced
}

/// Where a child binds what is inherited by a worker.
fn socket(directory: &Path) -> PathBuf {
    directory.join(format!("socket-{}", std::process::id()))
}
