//! A daemon starts, shares a host with others and ends, and leaves the mount table as it was.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::mount::is_mounted;
use crate::harness::process::{finish, secretfs};
use crate::harness::requirement::trials;
use crate::harness::{Node, Site};

trials! {
    needs [Mount];
    one_process_serves_several_mounts_one_of_them_flat,
    a_second_daemon_at_the_same_mount_refuses_to_start,
    a_second_daemon_at_the_same_socket_refuses_to_start,
    sigterm_unmounts_also_with_files_open,
    sigint_unmounts_also_with_files_open,
    a_killed_daemon_can_be_started_again,
    a_manager_has_as_many_connections_as_the_system_lets_it,
    a_mount_point_that_is_not_there_is_refused_by_name,
    the_mount_runs_no_programs,
}

fn serving() -> (Site, Node) {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    (site, node)
}

fn one_process_serves_several_mounts_one_of_them_flat() {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    site.serve("web-1", "db", &[("password", b"hunter2")]);
    let mut node = site.join("web-1");
    let (flat, also_all) = (site.area().path().join("flat"), site.area().path().join("also-all"));
    node.add_mount(flat.clone(), Some("web"));
    node.add_mount(also_all.clone(), None);
    node.run_connected();
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    assert_eq!(fs::read(flat.join("key")).expect("at the root"), b"value");
    assert_eq!(fs::read(also_all.join("db/password")).expect("in its directory"), b"hunter2");
    let listed: Vec<_> =
        fs::read_dir(&flat).expect("a listing").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(listed, ["key"], "a flat mount holds one service and nothing of another");
    site.rotate("key", b"changed");
    node.wait_for("web/key", b"changed");
    assert_eq!(fs::read(flat.join("key")).expect("a value"), b"changed", "one cache serves all mounts");
    assert_eq!(node.status()["mounts"].as_array().map(Vec::len), Some(3));
    node.stop();
}

fn a_second_daemon_at_the_same_mount_refuses_to_start() {
    let (site, node) = serving();
    let mut second = site.join("web-2");
    let mount = node.mount().to_str().expect("a plain path");
    let mut command = secretfs();
    command.args(["node", "run", "--mount", mount]).env("SECRETFS_CONFIG", second.config());
    let outcome = finish(&mut command, b"", site.logs());
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains(mount), "it says where: {}", outcome.stderr);
    assert_eq!(node.read("web/key").expect("the first one serves on"), b"value");
    // At a mount of its own it starts.
    second.run_connected();
}

fn a_second_daemon_at_the_same_socket_refuses_to_start() {
    let (site, node) = serving();
    let elsewhere = site.area().directory("elsewhere");
    let mut command = secretfs();
    command.args(["node", "run", "--mount"]).arg(&elsewhere).env("SECRETFS_CONFIG", node.config());
    let outcome = finish(&mut command, b"", site.logs());
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("node.sock"), "it says where: {}", outcome.stderr);
    assert!(!is_mounted(&elsewhere));
    assert_eq!(node.status()["name"], "web-1", "the first one answers on");
}

fn sigterm_unmounts_also_with_files_open() {
    stops_cleanly_with_a_file_open(Signal::TERM);
}

fn sigint_unmounts_also_with_files_open() {
    stops_cleanly_with_a_file_open(Signal::INT);
}

fn stops_cleanly_with_a_file_open(signal: Signal) {
    let (_site, mut node) = serving();
    let mut open = File::open(node.path("web/key")).expect("an open file");
    let mut begin = [0; 2];
    open.read_exact(&mut begin).expect("its begin");
    node.stop_by(signal);
    // The daemon is gone: the handle may fail, and must not hang.
    let rest = crate::harness::deadline::within(
        crate::harness::deadline::PATIENCE,
        "a read after the end",
        move || {
            let mut rest = Vec::new();
            open.read_to_end(&mut rest).map(|_| rest)
        },
    );
    assert!(rest.map_or(true, |rest| rest == b"lue"), "neither the rest nor an error");
    assert_eq!(fs::read_dir(node.mount()).expect("the directory below").count(), 0);
    // And the next daemon starts where the last one was.
    node.run_connected();
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    node.stop();
}

fn a_killed_daemon_can_be_started_again() {
    let (_site, mut node) = serving();
    let mut process = node.take_process();
    process.signal(Signal::KILL);
    process.wait();
    // Its mount is dead and its socket is still there; neither keeps the next one from starting.
    node.run_connected();
    assert_eq!(node.read("web/key").expect("a value"), b"value");
}

fn a_mount_point_that_is_not_there_is_refused_by_name() {
    let site = Site::start();
    let node = site.join("web-1");
    let mut command = secretfs();
    command.args(["node", "run", "--mount", "/nowhere/at/all"]).env("SECRETFS_CONFIG", node.config());
    let outcome = finish(&mut command, b"", site.logs());
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("/nowhere/at/all"), "{}", outcome.stderr);
}

fn the_mount_runs_no_programs() {
    let site = Site::start();
    site.create_service("web", "web-1");
    site.create_secret("script", b"#!/bin/sh\necho ran\n");
    site.attach("web", "script", &["--mode", "0555"]);
    let node = site.node("web-1");
    let error = Command::new(node.path("web/script")).output().expect_err("mounted noexec");
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    let line = table
        .lines()
        .find(|line| line.contains(&format!(" {} ", node.mount().display())))
        .expect("the mount");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(line.split([' ', ',']).any(|word| word == option), "{option} is missing in {line}");
    }
}

fn a_manager_has_as_many_connections_as_the_system_lets_it() {
    let site = Site::start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", site.manager.process().pid()));
    let limits = limits.expect("the manager's limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("that of open files");
    let [soft, hard] = files.split_whitespace().skip(3).take(2).collect::<Vec<_>>()[..] else {
        panic!("{files}")
    };
    assert_eq!(soft, hard, "and not the 1024 that a shell or systemd starts with");
}
