//! Who opened a file is who opened it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use secretfs_wire::api::{Open, REPORT_MAX_OPENS};
use secretfs_wire::audit::Unseen;

use super::{NEVER, Rig, eventually, key, serve};
use crate::audit::{Audit, Ring};
use crate::fs::test_manifest::{manifest, target};
use crate::fs::test_memory::handles;
use crate::fs::{FileSystem, Layout};
use crate::fuse::{Audience, Mount, Superblock};
use crate::host::test_child;
use crate::witness;

/// A second mount beside a rig's, whose opens are really recorded.
struct Audited {
    _rig: Rig,
    audit: Arc<Audit>,
    mount: Mount,
    _server: super::Server,
}

impl Audited {
    fn new(witness: Option<crate::handover::Channel>) -> Self {
        let rig = Rig::new(&[("web", "db", 1, b"value")]);
        let audit = Audit::new(Ring::private(1 << 20).expect("memory"), witness);
        audit.begin().expect("it begins");
        let (cache, freshness) = (rig.cache.clone(), rig.freshness.clone());
        let layout = Layout::AllServices;
        let fs = FileSystem::new(cache, freshness, audit.of_mount(0), handles(), key(), layout, NEVER);
        fs.update(&Arc::new(manifest([("web", "db", target(1, 5))])));
        let point = rig.scratch.path().join("audited");
        fs::create_dir(&point).expect("a directory");
        let mount = Mount::new(&point, Audience::Everyone, Superblock::ReadOnly).expect("a mount");
        let server = serve(&mount, &fs, &rig.runtime);
        // Other users may walk to it.
        fs::set_permissions(rig.scratch.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        Self { _rig: rig, audit, mount, _server: server }
    }

    fn opens(&self) -> Vec<Open> {
        let batch = self.audit.next(REPORT_MAX_OPENS, 0);
        batch.map_or(vec![], |batch| batch.opens().to_vec())
    }

    fn file(&self) -> std::path::PathBuf {
        self.mount.path().join("web/db")
    }
}

#[test]
fn a_child_of_another_user_is_known_by_user_number_and_program() {
    let audited = Audited::new(Some(witness::tests::in_this_process()));
    let mut cat = Command::new("/bin/cat");
    cat.arg(audited.file()).stdout(Stdio::piped());
    let child = test_child::as_nobody(&mut cat).spawn().expect("cat");
    let pid = child.id();
    assert_eq!(child.wait_with_output().expect("its end").stdout, b"value");
    let opens = audited.opens();
    let [open] = opens.as_slice() else { panic!("{opens:?}") };
    assert_eq!((open.service.as_str(), open.target.as_str()), ("web", "db"));
    assert_eq!((open.version_id, open.failure.as_deref()), (target(1, 5).version_id, None));
    let process = &open.process;
    assert_eq!((process.uid, process.gid), (test_child::NOBODY, test_child::NOBODY));
    assert_eq!(process.pid, pid);
    let cat = fs::canonicalize("/bin/cat").expect("cat");
    assert_eq!(process.executable.as_deref(), cat.to_str());
    assert!(process.started.is_some() && process.cgroup.is_some(), "{process:?}");
}

#[test]
fn a_thread_is_on_record_as_its_process() {
    let audited = Audited::new(Some(witness::tests::in_this_process()));
    let script = "import sys, threading\n\
        thread = threading.Thread(target=lambda: open(sys.argv[1]).read())\n\
        thread.start()\nthread.join()\n";
    let mut python = Command::new("python3");
    let mut child = python.args(["-c", script]).arg(audited.file()).spawn().expect("Python 3");
    assert!(child.wait().expect("its end").success());
    let opens = audited.opens();
    let [open] = opens.as_slice() else { panic!("{opens:?}") };
    assert_eq!((open.process.pid, open.process.unseen), (child.id(), None));
}

#[test]
fn a_program_that_becomes_another_is_recorded_as_what_it_is() {
    let audited = Audited::new(Some(witness::tests::in_this_process()));
    let file = audited.file();
    // The shell opens it itself, twice, and then becomes cat, which does too.
    let script = format!("read x < {0}; read x < {0}; exec /bin/cat {0}", file.display());
    let child = Command::new("/bin/sh").args(["-c", &script]).stdout(Stdio::null()).spawn();
    let mut child = child.expect("a shell");
    assert!(child.wait().expect("its end").success());
    let opens = audited.opens();
    let real = |path: &str| fs::canonicalize(path).expect(path).to_str().map(str::to_owned);
    let programs: Vec<_> = opens.iter().map(|open| open.process.executable.clone()).collect();
    assert_eq!(programs, [real("/bin/sh"), real("/bin/sh"), real("/bin/cat")]);
    assert!(opens.iter().all(|open| open.process.pid == child.id()));
    assert_eq!(opens[0].process.started, opens[2].process.started, "it is one process");
}

#[test]
fn without_a_witness_the_kernels_word_is_recorded() {
    let audited = Audited::new(None);
    fs::read(audited.file()).expect("the value");
    let opens = audited.opens();
    assert_eq!((&opens[0].process.executable, opens[0].process.unseen), (&None, Some(Unseen::NoWitness)));
    assert_eq!(opens[0].process.uid, 0);
    assert_ne!(opens[0].process.pid, 0);
}

#[test]
fn a_witness_that_does_not_answer_delays_an_open_by_a_moment() {
    let (asking, _nobody_reads) = crate::handover::Channel::pair().expect("a channel");
    let audited = Audited::new(Some(asking));
    let began = Instant::now();
    fs::read(audited.file()).expect("the value");
    assert!(began.elapsed().as_secs() < 5);
    eventually("it is on record", || audited.opens().len() == 1);
    let process = audited.opens()[0].process.clone();
    assert_eq!((process.executable, process.unseen), (None, Some(Unseen::TooLate)));
}
