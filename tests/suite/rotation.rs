//! A secret changes while programs read it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::requirement::trials;
use crate::harness::{Site, deadline};

trials! {
    needs [Mount];
    an_open_handle_reads_the_old_value_to_its_end_and_the_next_open_the_new_one,
    size_and_inode_follow_a_rotation,
    a_rollback_brings_an_older_value_back,
    no_reader_sees_a_mixture_or_an_error_while_values_rotate,
    a_file_changes_owner_and_mode_when_its_attachment_does,
    a_secret_that_is_attached_later_appears,
    files_of_one_change_become_visible_together,
}

fn an_open_handle_reads_the_old_value_to_its_end_and_the_next_open_the_new_one() {
    let site = Site::start();
    let (old, new) = (vec![b'o'; 300_000], vec![b'n'; 200_000]);
    site.serve("web-1", "web", &[("key", &old)]);
    let node = site.node("web-1");
    let mut reading = File::open(node.path("web/key")).expect("an open file");
    let mut begin = vec![0; 100_000];
    reading.read_exact(&mut begin).expect("a begin");
    let unread = File::open(node.path("web/key")).expect("an open file that nobody has read from");

    site.rotate("key", &new);
    node.wait_for("web/key", &new);

    let mut rest = Vec::new();
    reading.read_to_end(&mut rest).expect("the rest");
    assert!([begin, rest].concat() == old, "the handle that was being read");
    let mut all = vec![0; old.len()];
    unread.read_exact_at(&mut all, 0).expect("the whole value");
    assert!(all == old, "the handle that was open and unread");
}

fn size_and_inode_follow_a_rotation() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"short")]);
    let node = site.node("web-1");
    let before = node.path("web/key").metadata().expect("a file");
    site.rotate("key", b"considerably longer");
    node.wait_for("web/key", b"considerably longer");
    let after = node.path("web/key").metadata().expect("a file");
    assert_eq!((before.len(), after.len()), (5, 19));
    assert_eq!(before.ino(), after.ino(), "or a single-file bind mount would stay on the old value");
    assert!(after.modified().expect("a time") > before.modified().expect("a time"));
}

fn a_rollback_brings_an_older_value_back() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"one")]);
    site.rotate("key", b"two");
    site.rotate("key", b"three");
    let node = site.node("web-1");
    assert_eq!(node.read("web/key").expect("a value"), b"three");
    site.operator.ok(&["secret", "rollback", "key"]);
    node.wait_for("web/key", b"two");
    site.operator.ok(&["secret", "rollback", "key", "--to", "1"]);
    node.wait_for("web/key", b"one");
    site.rotate("key", b"four");
    node.wait_for("web/key", b"four");
    assert_eq!(site.operator.json(&["secret", "inspect", "key"])["current"], 4);
}

fn no_reader_sees_a_mixture_or_an_error_while_values_rotate() {
    let site = Site::start();
    // Each version is one letter, and no two have the same length.
    let value = |version: u8| vec![b'a' + version; 20_000 + 1_000 * usize::from(version)];
    site.serve("web-1", "web", &[("key", &value(0))]);
    let node = site.node("web-1");
    let stop = Arc::new(AtomicBool::new(false));
    let (path, stopped) = (node.path("web/key"), stop.clone());
    let reader = thread::spawn(move || {
        let mut reads = 0;
        while !stopped.load(Ordering::Relaxed) {
            let read = fs::read(&path).expect("no read fails");
            let version = read[0] - b'a';
            let length = 20_000 + 1_000 * usize::from(version);
            assert!(read.len() == length && read.iter().all(|byte| *byte == read[0]), "a mixture");
            reads += 1;
        }
        reads
    });
    for version in 1..15 {
        site.rotate("key", &value(version));
        node.wait_for("web/key", &value(version));
    }
    stop.store(true, Ordering::Relaxed);
    let reads: u32 = reader.join().expect("the reader met neither a mixture nor an error");
    assert!(reads > 50, "only {reads} reads");
}

fn a_file_changes_owner_and_mode_when_its_attachment_does() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    site.attach("web", "key", &["--uid", "1001", "--mode", "0400"]);
    let path = node.path("web/key");
    deadline::eventually("the owner changes", || {
        path.metadata().is_ok_and(|file| file.uid() == 1001 && file.mode() & 0o777 == 0o400)
    });
    // The envelope is bound to owner and mode, so what is read now was sealed anew.
    assert_eq!(node.read("web/key").expect("a value"), b"value");
}

fn a_secret_that_is_attached_later_appears() {
    let site = Site::start();
    site.create_service("web", "web-1");
    let node = site.node("web-1");
    // Asked for before it is there: no "not there" may be remembered.
    node.read("web/late").expect_err("not there yet");
    site.create_secret("late", b"value");
    site.attach("web", "late", &[]);
    node.wait_for("web/late", b"value");
}

/// One secret at two targets and in two services: whoever has read the new value from one of them
/// never gets the old one from another.
fn files_of_one_change_become_visible_together() {
    const ROTATIONS: u8 = 25;
    let site = Site::start();
    site.serve("web-1", "web", &[("key", &[0; 100])]);
    site.attach("web", "key", &["--target", "alias"]);
    site.create_service("job", "web-1");
    site.attach("job", "key", &[]);
    let node = site.node("web-1");
    let paths = ["web/key", "job/key", "web/alias"].map(|below| node.path(below));
    let readers: Vec<_> = (0..4)
        .map(|first| {
            let paths = paths.clone();
            thread::spawn(move || {
                let (mut last, mut seen) = (0, BTreeSet::new());
                for path in paths.iter().cycle().skip(first) {
                    let read = fs::read(path).expect("no read fails");
                    assert!(read.len() == 100 && read.iter().all(|byte| *byte == read[0]), "a mixture");
                    assert!(read[0] >= last, "{} after {last} from {}", read[0], path.display());
                    last = read[0];
                    seen.insert(last);
                    if last == ROTATIONS {
                        break;
                    }
                }
                seen.len()
            })
        })
        .collect();
    for version in 1..=ROTATIONS {
        site.rotate("key", &[version; 100]);
    }
    for reader in readers {
        let seen = deadline::within(deadline::PATIENCE, "the last version", || reader.join());
        assert!(seen.expect("no value went back") > 5, "too few versions to say anything");
    }
}
