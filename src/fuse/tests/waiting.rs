//! Nobody hangs: what is known is answered while the manager is silent, the rest fails in time.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::io::Errno;

use super::super::Blame;
use super::{Rig, eventually};
use crate::fs::FsError;

#[test]
fn names_metadata_and_cached_values_are_there_while_the_manager_is_silent() {
    let names: Vec<String> = (0..1000).map(|i| format!("target_{i:04}")).collect();
    let rows: Vec<_> =
        (1..).zip(&names).map(|(id, name)| ("web", name.as_str(), id, b"value".as_slice())).collect();
    let rig = Rig::new(&rows);
    assert_eq!(rig.read("web/target_0007"), b"value");
    rig.source.shut_gate();
    let mut listed: Vec<_> = fs::read_dir(rig.path("web"))
        .expect("a listing")
        .map(|entry| entry.expect("an entry"))
        .inspect(|entry| assert_eq!(entry.metadata().expect("metadata").len(), 5))
        .map(|entry| entry.file_name().into_string().expect("a name"))
        .collect();
    listed.sort();
    assert_eq!(listed, names);
    assert_eq!(rig.read("web/target_0007"), b"value");
    assert_eq!(rig.source.asked().len(), 1);
}

/// What the holder does where the kernel cannot send a request again (before Linux 6.9).
#[test]
fn a_request_whose_worker_is_gone_can_be_answered_by_somebody_else() {
    let rig = Rig::new(&[("web", "db", 1, b"value")]);
    rig.source.shut_gate();
    let path = rig.path("web/db");
    let reader = std::thread::spawn(move || fs::read(path));
    rig.wait_for_asked(1);
    eventually("it waits in a task", || rig.journal.now() == 0);
    let [request] = rig.journal.settle(Blame::Nobody)[..] else { panic!("one request waits") };
    rig.mount.connection().fail(request);
    let error = reader.join().expect("a reader").expect_err("nobody has the value");
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
}

#[test]
fn a_value_that_does_not_come_is_an_error_after_the_deadline() {
    let rig = Rig::with_deadline(Duration::from_millis(50), &[("web", "db", 1, b"value")]);
    rig.source.shut_gate();
    let error = fs::read(rig.path("web/db")).expect_err("nobody answers");
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    assert_eq!(rig.fs.trouble().expect("a reason for `node status`").error, FsError::TimedOut);
    // The fetch goes on, and the next one finds what it brings.
    rig.source.open_gate();
    eventually("the value arrives", || rig.cache.status().entries == 1);
    assert_eq!(rig.read("web/db"), b"value");
    assert_eq!(rig.source.asked().len(), 1);
}

#[test]
fn one_who_waits_keeps_no_other_waiting() {
    let rig = Rig::new(&[("web", "cold", 1, b"cold value"), ("web", "warm", 2, b"warm value")]);
    assert_eq!(rig.read("web/warm"), b"warm value");
    rig.source.shut_gate();
    std::thread::scope(|scope| {
        let cold = scope.spawn(|| rig.read("web/cold"));
        rig.wait_for_asked(2);
        assert_eq!(rig.read("web/warm"), b"warm value");
        assert!(rig.path("web/cold").exists());
        assert!(!cold.is_finished());
        rig.source.open_gate();
        assert_eq!(cold.join().expect("the cold value"), b"cold value");
    });
}

#[test]
fn a_reader_that_waits_can_be_killed() {
    let rig = Rig::with_deadline(Duration::from_secs(1), &[("web", "db", 1, b"value")]);
    rig.source.shut_gate();
    let mut cat = Command::new("cat");
    let cat = cat.arg(rig.path("web/db")).stderr(Stdio::null()).stdout(Stdio::null());
    let mut cat = cat.spawn().expect("cat");
    rig.wait_for_asked(1);
    cat.kill().expect("a signal");
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(cat.wait().expect("its end")));
    let status = ended.recv_timeout(Duration::from_secs(10)).expect("it dies by the deadline");
    assert_eq!(status.signal(), Some(9));
}
