//! Files that are made from several secrets of their service.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::harness::process::finish;
use crate::harness::requirement::trials;
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount];
    a_file_from_two_secrets_changes_with_each_of_them,
    a_template_is_shown_as_it_was_set_and_changed_at_once,
    files_and_templates_of_one_change_appear_together_and_with_their_sizes,
    what_is_wrong_with_a_template_is_refused_with_its_line,
    a_value_that_is_no_text_fails_its_template_and_nothing_else,
    who_may_read_a_template_need_not_read_what_it_is_made_from,
    a_template_is_read_on_when_its_worker_is_killed_and_the_manager_away,
}

const DSN: &str = "postgres://{{ secrets.user }}:{{ secrets[\"db.password\"] | urlencode }}@db/app\n";

fn set(site: &Site, target: &str, text: &str, options: &[&str]) {
    let command = ["service", "template", "set", "web", target, "-"];
    site.operator.ok_with(&[&command, options].concat(), text.as_bytes());
}

fn serving() -> (Site, Node) {
    let site = Site::start();
    site.serve("web-1", "web", &[("user", b"app"), ("db.password", b"p/w")]);
    set(&site, "dsn", DSN, &[]);
    let node = site.node("web-1");
    (site, node)
}

fn a_file_from_two_secrets_changes_with_each_of_them() {
    let (site, node) = serving();
    // Rendered before it was shown.
    let before = fs::metadata(node.path("web/dsn")).expect("a file");
    assert_eq!(before.len(), "postgres://app:p%2Fw@db/app\n".len() as u64);
    let open = File::open(node.path("web/dsn")).expect("an open file");
    let mut bytes = vec![0; 100];
    let mut read_open = || {
        let length = open.read_at(&mut bytes, 0).expect("a read");
        String::from_utf8(bytes[..length].to_vec()).expect("text")
    };
    assert_eq!(read_open(), "postgres://app:p%2Fw@db/app\n");
    let watched = open.try_clone().expect("a descriptor");
    let waiter = thread::spawn(move || {
        let mut waits = [PollFd::new(&watched, PollFlags::PRI)];
        let limit = Timespec { tv_sec: 45, tv_nsec: 0 };
        poll(&mut waits, Some(&limit)).map(|ready| (ready, waits[0].revents()))
    });
    deadline::eventually("it waits", || node.status()["mounts"][0]["polled"] == 1);

    site.rotate("db.password", b"another one");
    let (ready, events) = waiter.join().expect("a result").expect("a poll");
    assert!(ready == 1 && events.contains(PollFlags::PRI), "{events:?}");
    let after = fs::metadata(node.path("web/dsn")).expect("a file");
    let renewed = "postgres://app:another%20one@db/app\n";
    assert_eq!(after.len(), renewed.len() as u64, "known when it is told");
    assert!(after.modified().expect("a time") > before.modified().expect("a time"));
    assert_eq!(after.ino(), before.ino(), "or a single-file bind mount would stay on the old one");
    assert_eq!(node.read("web/dsn").expect("the new one"), renewed.as_bytes());
    assert_eq!(read_open(), "postgres://app:p%2Fw@db/app\n", "what was open reads what it was opened on");

    site.rotate("user", b"owner");
    node.wait_for("web/dsn", b"postgres://owner:another%20one@db/app\n");
    site.operator.ok(&["secret", "rollback", "db.password"]);
    node.wait_for("web/dsn", b"postgres://owner:p%2Fw@db/app\n");
}

fn a_template_is_shown_as_it_was_set_and_changed_at_once() {
    let (site, node) = serving();
    assert_eq!(site.operator.ok(&["service", "template", "show", "web", "dsn"]), DSN);
    let listed = site.operator.json(&["service", "template", "ls", "web"]);
    assert_eq!(listed[0]["target"], "dsn");
    assert_eq!(listed[0]["inputs"], serde_json::json!(["db.password", "user"]));
    let inspected = site.operator.ok(&["service", "inspect", "web"]);
    assert!(inspected.contains("  dsn  from db.password,user  uid 0  gid 0  mode 0444"), "{inspected}");

    assert_eq!(node.status()["targets"], 3);
    let before = fs::metadata(node.path("web/dsn")).expect("a file").modified().expect("a time");
    set(&site, "dsn", "user={{ secrets.user }}\n", &[]);
    node.wait_for("web/dsn", b"user=app\n");
    let after = fs::metadata(node.path("web/dsn")).expect("a file");
    assert!(after.len() == 9 && after.modified().expect("a time") > before);
    site.operator.ok(&["service", "template", "rm", "web", "dsn"]);
    node.wait_gone("web/dsn");
    assert_eq!(node.read("web/user").expect("a value"), b"app");
}

/// Each version is a number of letters, so that a size tells the version.
fn files_and_templates_of_one_change_appear_together_and_with_their_sizes() {
    let site = Site::start();
    let value = |version: usize| vec![b'x'; 100 + version];
    site.serve("web-1", "web", &[("key", &value(0))]);
    set(&site, "conf", "{{ secrets.key }}", &[]);
    let mut node = site.join("web-1");
    // A change waits for its templates for half of it, and then shows them without a size.
    node.configure("deadline = \"60s\"");
    node.run_connected();
    let stop = Arc::new(AtomicBool::new(false));
    let (key, conf, stopped) = (node.path("web/key"), node.path("web/conf"), stop.clone());
    let reader = thread::spawn(move || {
        let mut reads = 0;
        while !stopped.load(Ordering::Relaxed) {
            // Read one after the other, no version may come after a later one.
            let seen = [&key, &conf, &key, &conf].map(|file| fs::read(file).expect("no read fails").len());
            assert!(seen.is_sorted() && seen[0] >= 100, "an older version after a later one: {seen:?}");
            // The kernel is told of a size after the change, and never of one that is not yet known.
            let size = fs::metadata(&conf).expect("a file").len();
            assert!(size >= 100, "{size} bytes");
            reads += 1;
        }
        reads
    });
    for version in 1..20 {
        site.rotate("key", &value(version));
        node.wait_for("web/conf", &value(version));
    }
    stop.store(true, Ordering::Relaxed);
    let reads: u32 = reader.join().expect("the reader saw each change as one");
    assert!(reads > 50, "only {reads} reads");
}

fn what_is_wrong_with_a_template_is_refused_with_its_line() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    for (text, problem) in [
        ("a\nb={{ secrets.other }}\n", "line 2: no secret is attached to this service as other"),
        ("{% include '/etc/passwd' %}", "line 1: unknown statement include"),
        ("\n{{ secrets.key ~ 'x' }}", "line 2: a secret can be put out and filtered and nothing else"),
        ("{{ secrets.key", "line 1: unexpected end of input"),
    ] {
        let command = ["service", "template", "set", "web", "conf", "-"];
        let outcome = site.operator.run_with(&command, text.as_bytes());
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains(problem), "{}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
    set(&site, "conf", "{{ secrets.key }}", &[]);
    let used = site.operator.run(&["service", "detach", "web", "key"]);
    assert!(used.code == 1 && used.stderr.contains("used by template conf"), "{}", used.stderr);
    let taken = site.operator.run(&["service", "attach", "web", "key", "--target", "conf"]);
    assert!(taken.code == 1 && taken.stderr.contains("target conf"), "{}", taken.stderr);
    let absent = site.operator.run(&["service", "template", "show", "web", "absent"]);
    assert_eq!(absent.code, 3, "{}", absent.stderr);
}

fn a_value_that_is_no_text_fails_its_template_and_nothing_else() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"canary\xff\0"), ("other", b"text")]);
    set(&site, "conf", "{{ secrets.key }}", &[]);
    set(&site, "encoded", "{{ secrets.key | b64encode }}", &[]);
    set(&site, "good", "{{ secrets.other }}", &[]);
    let node = site.node("web-1");
    let error = node.read("web/conf").expect_err("no text");
    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{error}");
    let reason = node.status()["trouble"]["reason"].to_string();
    assert!(reason.contains("web/conf") && reason.contains("the value of key is not UTF-8 text"), "{reason}");
    assert!(!reason.contains("canary") && !node.process().log().contains("canary"));
    assert_eq!(node.read("web/key").expect("a value"), b"canary\xff\0");
    assert_eq!(node.read("web/encoded").expect("a value"), b"Y2FuYXJ5/wA=");
    assert_eq!(node.read("web/good").expect("a value"), b"text");
    site.rotate("key", b"text at last");
    node.wait_for("web/conf", b"text at last");
    assert_eq!(fs::metadata(node.path("web/conf")).expect("a file").len(), 12);
    assert!(node.status()["trouble"].is_null(), "{}", node.status());
}

fn who_may_read_a_template_need_not_read_what_it_is_made_from() {
    let site = Site::start();
    site.serve("web-1", "web", &[]);
    site.create_secret("key", b"value");
    site.attach("web", "key", &["--mode", "0000"]);
    set(&site, "conf", "k={{ secrets.key }}", &["--uid", "1001", "--gid", "2001", "--mode", "0400"]);
    let node = site.node("web-1");
    let file = fs::metadata(node.path("web/conf")).expect("a file");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (1001, 2001, 0o400));
    let read = |uid: u32, name: &str| {
        let mut command = Command::new("setpriv");
        let user = [format!("--reuid={uid}"), "--regid=2002".to_owned(), "--clear-groups".to_owned()];
        command.args(user).args(["--", "cat"]).arg(node.path(name)).env("LC_ALL", "C");
        let outcome = finish(&mut command, b"", site.logs());
        assert!(outcome.code == 0 || outcome.stderr.contains("Permission denied"), "{outcome:?}");
        (outcome.code == 0).then_some(outcome.stdout)
    };
    assert_eq!(read(1001, "web/conf").as_deref(), Some("k=value"));
    assert_eq!(read(1001, "web/key"), None, "only through the template");
    assert_eq!(read(1002, "web/conf"), None);
    set(&site, "conf", "k={{ secrets.key }}", &["--uid", "1002", "--mode", "0400"]);
    deadline::eventually("the owner changes", || read(1001, "web/conf").is_none());
    assert_eq!(read(1002, "web/conf").as_deref(), Some("k=value"));
}

fn a_template_is_read_on_when_its_worker_is_killed_and_the_manager_away() {
    let (site, node) = serving();
    let value = b"postgres://app:p%2Fw@db/app\n";
    assert_eq!(node.read("web/dsn").expect("a value"), value);
    let open = File::open(node.path("web/dsn")).expect("an open file");
    site.manager.pause();
    for _ in 0..3 {
        node.kill_worker(Signal::KILL);
        assert_eq!(node.read("web/dsn").expect("a value"), value, "adopted, not rendered anew");
        assert_eq!(fs::metadata(node.path("web/dsn")).expect("a file").len(), value.len() as u64);
        let mut bytes = [0; 100];
        assert_eq!(open.read_at(&mut bytes, 0).expect("a read"), value.len());
    }
    assert_eq!(node.status()["cache_misses"], 0, "{}", node.status());
    site.manager.resume();
    site.rotate("user", b"owner");
    node.wait_for("web/dsn", b"postgres://owner:p%2Fw@db/app\n");
}
