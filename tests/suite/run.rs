//! `secretfs run`: a program is told when its secrets change, once, and otherwise left alone.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, test_kill_process};

use crate::harness::area::{Area, Logs};
use crate::harness::process::{Outcome, finish, secretfs};
use crate::harness::requirement::trials;
use crate::harness::supervised::{Supervised, arguments, supervisor};
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount];
    the_exit_code_is_the_programs,
    what_makes_no_sense_is_refused,
    signals_reach_the_program,
    an_interrupt_at_a_terminal_reaches_the_program_once,
    a_program_ends_with_its_supervisor,
    several_changes_are_one_signal_and_the_new_values_are_there,
    what_is_taken_away_and_what_appears_are_changes,
    a_change_that_is_taken_back_is_none,
    a_program_is_restarted_and_killed_if_it_does_not_end,
    restarts_are_bounded,
    a_program_that_is_told_to_end_is_not_started_again,
    a_command_runs_one_at_a_time_and_may_fail,
    dying_workers_and_a_restarted_daemon_are_no_change,
}

/// Says each signal that it gets; ends with code 3 on SIGTERM.
const LISTENING: &str = "\
    for signal in HUP INT QUIT USR1 USR2 WINCH; do trap \"echo got $signal\" $signal; done; \
    trap 'echo got TERM; exit 3' TERM; \
    echo started $$; while :; do sleep 0.02; done";

/// Says its values at the start and on each SIGHUP.
const READING: &str = "\
    read_all() { (cd \"$SECRETS\" && for file in *; do echo \"$file=$(cat \"$file\")\"; done); }; \
    trap 'echo got HUP with $(read_all)' HUP; trap 'exit 0' TERM; \
    echo started with $(read_all); while :; do sleep 0.02; done";

/// What polling makes of a rotation: sooner than any timer would find it.
const PROMPT: Duration = Duration::from_secs(20);

fn run(directory: &Path, options: &[&str], script: &str, logs: &Logs) -> Outcome {
    finish(secretfs().args(arguments(directory, options, script)), b"", logs)
}

/// No node: what does not look at secrets needs none.
fn plain_directory() -> (Area, Logs) {
    let area = Area::new();
    fs::write(area.directory("secrets").join("key"), "value").expect("a file");
    let logs = Logs::at(area.directory("logs"));
    (area, logs)
}

/// A node that serves `web/a` and `web/b`.
fn serving() -> (Site, Node) {
    let site = Site::start();
    site.serve("web-1", "web", &[("a", b"a1"), ("b", b"b1")]);
    let node = site.node("web-1");
    (site, node)
}

/// A script over the directory of `web`, which it finds in `SECRETS`.
fn supervise(site: &Site, node: &Node, options: &[&str], script: &str) -> Supervised {
    let directory = node.path("web");
    let mut command = supervisor();
    command.args(arguments(&directory, options, script)).env("SECRETS", directory);
    Supervised::start_by(&mut command, site.logs())
}

fn the_exit_code_is_the_programs() {
    let (area, logs) = plain_directory();
    let secrets = area.directory("secrets");
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)] {
        let outcome = run(&secrets, &[], script, &logs);
        assert_eq!(outcome.code, code, "{script}: {outcome:?}");
    }
    let program = |program: &str| {
        let mut command = secretfs();
        finish(command.arg("run").arg("--directory").arg(&secrets).args(["--", program]), b"", &logs)
    };
    let missing = program("/no/such/program");
    assert_eq!(missing.code, 127, "{missing:?}");
    assert!(missing.stderr.starts_with("secretfs: cannot run /no/such/program: "), "{missing:?}");
    assert_eq!(program(secrets.join("key").to_str().expect("a plain path")).code, 126);
}

fn what_makes_no_sense_is_refused() {
    let (area, logs) = plain_directory();
    let secrets = area.directory("secrets");
    for (options, word) in [
        (&["--on-change", "SIGNAL"][..], "SIGNAL"),
        (&["--on-change", "exec:"], "exec:"),
        (&["--debounce", "soon"], "soon"),
        (&["--restart-limit", "often"], "often"),
        (&["--service", "web"], "--service"),
    ] {
        let outcome = run(&secrets, options, "exit 0", &logs);
        assert_eq!(outcome.code, 2, "{options:?}: {outcome:?}");
        assert!(outcome.stderr.contains(word), "{outcome:?}");
    }
    let absent = run(Path::new("/no/such/directory"), &[], "exit 0", &logs);
    assert_eq!(absent.code, 3, "{absent:?}");
    assert!(absent.stderr.contains("/no/such/directory") && absent.stderr.lines().count() == 1, "{absent:?}");
    let service = finish(secretfs().args(["run", "--service", "no-such", "--", "true"]), b"", &logs);
    assert_eq!(service.code, 3, "{service:?}");
    assert!(service.stderr.contains("/run/secrets/no-such"), "{service:?}");
}

fn signals_reach_the_program() {
    let (area, logs) = plain_directory();
    let mut supervised = Supervised::start(&area.directory("secrets"), &[], LISTENING, &logs);
    supervised.wait_for("started", 1);
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
    ] {
        supervised.signal(signal);
        supervised.wait_for(&format!("got {name}"), 1);
    }
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait(), 3, "the program says how it ends");
    assert_eq!(supervised.count("got TERM"), 1);
}

fn an_interrupt_at_a_terminal_reaches_the_program_once() {
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
    let (area, logs) = plain_directory();
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    unlockpt(&terminal).expect("ours");
    let name = ptsname(&terminal, Vec::new()).expect("its name");
    let end = File::options().read(true).write(true).open(name.to_str().expect("a path")).expect("its end");

    let log = area.path().join("printed");
    let mut command = std::process::Command::new("setsid");
    command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_secretfs")]);
    command.args(arguments(&area.directory("secrets"), &[], LISTENING));
    let mut child = command
        .stdin(Stdio::from(end))
        .stdout(File::create(&log).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("setsid");
    let count = |words: &str| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.lines().filter(|line| line.starts_with(words)).count()
    };
    deadline::eventually("it starts", || count("started") == 1);
    let mut keyboard = File::from(terminal);
    keyboard.write_all(b"\x03").expect("Ctrl-C");
    deadline::eventually("it is interrupted", || count("got INT") > 0);
    // A terminal's signals come one by one, so one that was forwarded comes before this one.
    keyboard.write_all(b"\x1c").expect("Ctrl-\\");
    deadline::eventually("it is told to quit", || count("got QUIT") > 0);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    let status = deadline::poll("it ends", || child.try_wait().expect("a child of ours"));
    assert_eq!(status.code(), Some(3));
    assert_eq!((count("got INT"), count("got QUIT"), count("got TERM")), (1, 1, 1));
    drop(logs);
}

fn a_program_ends_with_its_supervisor() {
    let (area, logs) = plain_directory();
    let mut supervised = Supervised::start(&area.directory("secrets"), &[], LISTENING, &logs);
    supervised.wait_for("started", 1);
    let log = supervised.log();
    let pid = log.lines().find_map(|line| line.strip_prefix("started ")?.parse().ok());
    let pid = pid.and_then(Pid::from_raw).expect("a process id");
    supervised.signal(Signal::KILL);
    assert_eq!(supervised.wait(), 137);
    deadline::eventually("the program ends too", || test_kill_process(pid).is_err());
    assert_eq!(supervised.count("got TERM"), 1, "asked, not killed");
}

fn several_changes_are_one_signal_and_the_new_values_are_there() {
    let (site, node) = serving();
    let options = ["--on-change", "HUP", "--debounce", "2s"];
    let supervised = supervise(&site, &node, &options, READING);
    supervised.wait_for("started with a=a1 b=b1", 1);
    site.rotate("a", b"a2");
    site.rotate("b", b"b2");
    site.rotate("a", b"a3");
    supervised.wait_for("got HUP with a=a3 b=b2", 1);
    // A second signal for the same changes would have come before the one for this.
    let began = Instant::now();
    site.rotate("b", b"b3");
    supervised.wait_for("got HUP with a=a3 b=b3", 1);
    assert!(began.elapsed() < PROMPT, "seen after {:?} only", began.elapsed());
    assert_eq!(supervised.count("got HUP"), 2, "{}", supervised.log());
    // What it polls counts as no reader of an old version.
    deadline::eventually("no old version is held", || {
        let status = node.status();
        status["pinned_versions"] == 2 && status["mounts"][0]["open_files"] == 2
    });
}

fn what_is_taken_away_and_what_appears_are_changes() {
    let (site, node) = serving();
    let supervised = supervise(&site, &node, &["--on-change", "SIGHUP"], READING);
    supervised.wait_for("started with a=a1 b=b1", 1);
    site.operator.ok(&["service", "detach", "web", "b"]);
    supervised.wait_for("got HUP with a=a1", 1);
    site.create_secret("c", b"c1");
    site.attach("web", "c", &[]);
    // Whatever wakes it, it sees all that is new.
    site.rotate("a", b"a2");
    supervised.wait_for("got HUP with a=a2 c=c1", 1);
    // And it follows what is new.
    site.rotate("c", b"c2");
    supervised.wait_for("got HUP with a=a2 c=c2", 1);
    assert_eq!(supervised.count("got HUP"), 3, "{}", supervised.log());
}

fn a_change_that_is_taken_back_is_none() {
    let (site, node) = serving();
    let options = ["--on-change", "HUP", "--debounce", "3s"];
    let supervised = supervise(&site, &node, &options, READING);
    supervised.wait_for("started", 1);
    site.rotate("a", b"a2");
    site.operator.ok(&["secret", "rollback", "a"]);
    node.wait_for("web/a", b"a1");
    // Of another service: not even seen.
    site.serve("web-1", "other", &[("unrelated", b"value")]);
    node.wait_for("other/unrelated", b"value");
    site.rotate("b", b"b2");
    supervised.wait_for("got HUP with a=a1 b=b2", 1);
    site.rotate("b", b"b3");
    supervised.wait_for("got HUP with a=a1 b=b3", 1);
    assert_eq!(supervised.count("got HUP"), 2, "{}", supervised.log());
}

fn a_program_is_restarted_and_killed_if_it_does_not_end() {
    let (site, node) = serving();
    let stubborn = "trap '' TERM; echo started with $(cat $SECRETS/a); while :; do sleep 0.02; done";
    let options = ["--stop-timeout", "200ms"];
    let mut supervised = supervise(&site, &node, &options, stubborn);
    supervised.wait_for("started with a1", 1);
    site.rotate("a", b"a2");
    supervised.wait_for("started with a2", 1);
    assert!(supervised.log().contains("did not end and is killed"), "{}", supervised.log());
    // It ends by itself: that is the end.
    supervised.signal(Signal::KILL);
    assert_eq!(supervised.wait(), 137);
}

fn restarts_are_bounded() {
    let (site, node) = serving();
    let options = ["--restart-limit", "1/10s", "--on-change", "restart"];
    let mut supervised = supervise(&site, &node, &options, READING);
    supervised.wait_for("started with a=a1", 1);
    site.rotate("a", b"a2");
    supervised.wait_for("started with a=a2", 1);
    site.rotate("a", b"a3");
    supervised.wait_for_log("too many restarts (--restart-limit 1/10s): the program goes on");
    site.rotate("a", b"a4");
    // Put off, not forgotten.
    supervised.wait_for("started with a=a4", 1);
    assert_eq!(supervised.count("started"), 3, "{}", supervised.log());
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait(), 0);
}

fn a_program_that_is_told_to_end_is_not_started_again() {
    let (site, node) = serving();
    let slow = "trap 'echo asked' TERM; trap 'exit 4' USR1; echo started; while :; do sleep 0.02; done";
    let mut supervised = supervise(&site, &node, &["--stop-timeout", "1h"], slow);
    supervised.wait_for("started", 1);
    site.rotate("a", b"a2");
    supervised.wait_for("asked", 1);
    // While it is being restarted, somebody wants all of it to end.
    supervised.signal(Signal::TERM);
    supervised.wait_for("asked", 2);
    supervised.signal(Signal::USR1);
    assert_eq!(supervised.wait(), 4);
    assert_eq!(supervised.count("started"), 1);
}

fn a_command_runs_one_at_a_time_and_may_fail() {
    let (site, node) = serving();
    let signals = site.area().directory("signals");
    let go_on = signals.join("go-on");
    let command = format!(
        "exec:echo hook of $SECRETFS_PID; while [ ! -e {} ]; do sleep 0.02; done; echo hook ends; exit 5",
        go_on.display()
    );
    let options = ["--on-change", &command, "--debounce", "100ms"];
    let mut supervised = supervise(&site, &node, &options, LISTENING);
    supervised.wait_for("started", 1);
    site.rotate("a", b"a2");
    supervised.wait_for("hook of", 1);
    // While it runs, two more changes.
    for (place, value) in [(1, b"a3"), (2, b"a4")] {
        site.rotate("a", value);
        deadline::eventually("the supervisor has seen it", || {
            supervised.log().matches("still runs, and will once more").count() == place
        });
    }
    assert_eq!(supervised.count("hook of"), 1, "{}", supervised.log());
    fs::write(&go_on, "").expect("a signal");
    supervised.wait_for("hook ends", 2);
    site.rotate("b", b"b2");
    supervised.wait_for("hook ends", 3);
    supervised.wait_for_log("the command of --on-change failed");
    let pid = supervised.log().lines().find_map(|line| line.strip_prefix("started ").map(str::to_owned));
    assert_eq!(supervised.count(&format!("hook of {}", pid.expect("its id"))), 3);
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait(), 3, "the program has lived on");
}

fn dying_workers_and_a_restarted_daemon_are_no_change() {
    let (site, mut node) = serving();
    let options = ["--on-change", "HUP", "--debounce", "100ms"];
    let supervised = supervise(&site, &node, &options, READING);
    supervised.wait_for("started", 1);
    let followed = |node: &Node| {
        deadline::eventually("both files are polled", || node.status()["mounts"][0]["polled"] == 2);
    };
    followed(&node);
    for _ in 0..5 {
        node.kill_worker(Signal::KILL);
        assert_eq!(node.read("web/a").expect("a value"), b"a1");
    }
    // All of it is stopped, which takes the mount away, and started while the manager is away.
    site.manager.pause();
    node.stop();
    node.run();
    deadline::eventually("the mount is empty", || !node.path("web").exists());
    site.manager.resume();
    node.wait_for("web/a", b"a1");
    followed(&node);
    site.rotate("a", b"a2");
    supervised.wait_for("got HUP with a=a2 b=b1", 1);
    assert_eq!(supervised.count("got HUP"), 1, "{}", supervised.log());
}
