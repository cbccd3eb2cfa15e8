//! The mount outlives its daemon, in containers too: what it was built for.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::engine::Engine;
use crate::harness::process::{SECRETFS, finish};
use crate::harness::readers::{Readers, Seen};
use crate::harness::requirement::trials;
use crate::harness::{Node, Site, deadline};

trials! {
    needs [Mount, Containers];
    two_hundred_killed_workers_cost_nobody_a_read,
    twenty_upgrades_cost_nobody_a_read,
    a_program_that_cannot_serve_changes_nothing,
    a_running_container_reads_again_after_the_whole_daemon_was_killed,
}

const KILLS: usize = 200;
const UPGRADES: usize = 20;
const DEATHS: usize = 20;

fn serving() -> (Site, Node) {
    let site = Site::start();
    site.serve("web-1", "web", &[("key", b"value")]);
    let node = site.node("web-1");
    assert_eq!(node.read("web/key").expect("a value"), b"value");
    (site, node)
}

fn two_hundred_killed_workers_cost_nobody_a_read() {
    let (site, node) = serving();
    let readers = Readers::start(&node.path("web"), &site.area().directory("signals"));
    let volume = format!("{}:/run/secrets:ro", node.path("web").display());
    let mut kills = Vec::new();
    let mut random: u64 = 0x2545_F491_4F6C_DD1D;
    for kill in 0..KILLS {
        node.wait_for_standby();
        let active = node.holder().active;
        // At any moment of what it does: that is the point, and not a wait for anything.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(random % 3000));
        kills.push(Instant::now());
        node.signal(active, Signal::KILL);
        if kill == KILLS / 2 {
            let outcome = Engine::shared().run(&["--volume", &volume], &["/bin/cat", "/run/secrets/key"]);
            assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "value"), "{outcome:?}");
        }
        readers.wait_for_read();
    }
    let seen = readers.end();
    assert!(seen.failures.is_empty(), "{} failures: {:?}", seen.failures.len(), &seen.failures[..1]);
    assert!(seen.container_reads > KILLS, "the container read {} times", seen.container_reads);
    say_stalls(&seen, &kills);
    assert!(node.status()["predecessors"].as_u64() >= Some(KILLS as u64));
}

/// How long the host's reader waited for each kill. A figure, not a test: machines are shared.
#[allow(clippy::print_stdout, reason = "a figure that people ask for")]
fn say_stalls(seen: &Seen, kills: &[Instant]) {
    let mut stalls: Vec<Duration> = kills
        .iter()
        .filter_map(|kill| {
            let hit = seen.host.iter().find(|read| read.began + read.took >= *kill)?;
            Some((hit.began + hit.took).saturating_duration_since(hit.began.max(*kill)))
        })
        .collect();
    stalls.sort();
    let (median, most) = (stalls[stalls.len() / 2], stalls[stalls.len() - 1]);
    println!(
        "{} kills, {} reads on the host, {} in the container, 0 failed; stall median {median:.2?}, most {most:.2?}",
        kills.len(),
        seen.host.len(),
        seen.container_reads
    );
}

/// A program of another version, which `tests/run` builds.
fn next_version() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/next/secretfs");
    assert!(program.exists(), "{} is not there: `tests/run` builds it", program.display());
    program
}

fn twenty_upgrades_cost_nobody_a_read() {
    let (site, node) = serving();
    let programs = [next_version(), PathBuf::from(SECRETFS)];
    let versions = programs.clone().map(|program| {
        let outcome = finish(Command::new(program).arg("--version"), b"", site.logs());
        outcome.stdout.trim().trim_start_matches("secretfs ").to_owned()
    });
    assert_ne!(versions[0], versions[1]);
    let readers = Readers::start(&node.path("web"), &site.area().directory("signals"));
    for upgrade in 0..UPGRADES {
        let (program, version) = (&programs[upgrade % 2], &versions[upgrade % 2]);
        let outcome = node.upgrade(program);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(outcome.stdout.contains(version.as_str()), "{outcome:?}");
        deadline::eventually("the new version serves", || node.status()["version"] == version.as_str());
        readers.wait_for_read();
    }
    let seen = readers.end();
    assert!(seen.failures.is_empty(), "{} failures: {:?}", seen.failures.len(), &seen.failures[..1]);
}

fn a_program_that_cannot_serve_changes_nothing() {
    let (site, node) = serving();
    let before = node.holder();
    let text = site.area().path().join("text");
    std::fs::write(&text, "no program").expect("a file");
    let text = text.to_str().expect("a plain path");
    let refused =
        [("/bin/false", "its worker ended with code 1"), (text, "denied"), ("/no/such", "/no/such")];
    for (program, reason) in refused {
        let outcome = node.upgrade(program.as_ref());
        assert_ne!(outcome.code, 0, "{outcome:?}");
        assert!(outcome.stderr.contains(reason), "{outcome:?}");
    }
    assert_eq!(node.holder().active, before.active, "the old one goes on serving");
    assert_eq!(node.read("web/key").expect("a value"), b"value");
}

fn a_running_container_reads_again_after_the_whole_daemon_was_killed() {
    let (site, mut node) = serving();
    let volumes = [
        format!("{}:/run/secrets:ro", node.path("web").display()),
        format!("{}:/single:ro", node.path("web/key").display()),
        format!("{}:/all:ro", node.mount().display()),
    ];
    let options: Vec<&str> = volumes.iter().flat_map(|volume| ["--volume", volume.as_str()]).collect();
    let container = Engine::shared().start_container(&options, &["/bin/sleep", "1000"]);
    let read = || container.exec(&["/bin/cat", "/run/secrets/key", "/single", "/all/web/key"]);
    assert_eq!(read().stdout, "valuevaluevalue");
    let mut took = Vec::new();
    for _ in 0..DEATHS {
        node.wait_for_standby();
        let holder = node.holder();
        for pid in [holder.pid, holder.active, holder.standby] {
            node.signal(pid, Signal::KILL);
        }
        let mut process = node.take_process();
        process.wait();
        let began = Instant::now();
        node.run();
        node.wait_for("web/key", b"value");
        deadline::eventually("the container reads", || read().stdout == "valuevaluevalue");
        took.push(began.elapsed());
    }
    took.sort();
    say_recoveries(&took);
    drop(site);
}

#[allow(clippy::print_stdout, reason = "a figure that people ask for")]
fn say_recoveries(took: &[Duration]) {
    let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{} daemons killed whole; host and container read again after: median {median:.2?}, most {most:.2?}",
        took.len()
    );
}
