//! The canary hunt: after all that can happen to a secret, its bytes are nowhere but in memory.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use rustix::process::Signal;

use crate::harness::image::LoopImage;
use crate::harness::process::SECRETFS;
use crate::harness::requirement::trials;
use crate::harness::{Area, Site, deadline};

trials! {
    needs [Mount, LoopImage];
    a_secret_reaches_no_disk_no_log_no_core_no_argument_and_no_swap,
    the_hunter_finds_what_is_planted,
}

/// A value that occurs nowhere by chance, and how to recognise pieces of it.
struct Canary {
    value: Vec<u8>,
    traces: Vec<(String, Vec<u8>)>,
}

impl Canary {
    fn new() -> Self {
        let mut bytes = [0; 24];
        rand::fill(&mut bytes).expect("randomness");
        let value = hex(&bytes).into_bytes();
        let mut traces = vec![
            ("its begin".to_owned(), value[..16].to_vec()),
            ("its end".to_owned(), value[value.len() - 16..].to_vec()),
            ("its begin in hexadecimal".to_owned(), hex(&value[..16]).into_bytes()),
            ("its begin in HEXADECIMAL".to_owned(), hex(&value[..16]).to_uppercase().into_bytes()),
        ];
        // In base64 a value looks different at each of three offsets; whole groups of three do not.
        for offset in 0..3 {
            let piece = &value[offset..offset + 24];
            traces.push((format!("base64 at offset {offset}"), STANDARD.encode(piece).into_bytes()));
            traces.push((format!("URL-safe base64 at offset {offset}"), URL_SAFE.encode(piece).into_bytes()));
        }
        Self { value, traces }
    }

    /// What of it is in these bytes.
    fn traces_in(&self, bytes: &[u8]) -> Vec<&str> {
        let found = |trace: &[u8]| {
            let first = trace[0];
            let last_start = bytes.len().saturating_sub(trace.len());
            (0..=last_start).any(|at| bytes.get(at) == Some(&first) && bytes[at..].starts_with(trace))
        };
        self.traces.iter().filter(|(_, trace)| found(trace)).map(|(name, _)| name.as_str()).collect()
    }

    /// What of it is in this file, read raw.
    fn traces_in_file(&self, path: &Path) -> Vec<&str> {
        const BLOCK: usize = 1 << 20;
        // Blocks overlap by more than a trace's length, so that none hides at a border.
        const OVERLAP: usize = 128;
        let mut file = File::open(path).expect("a file to search");
        let (mut bytes, mut found) = (Vec::new(), Vec::new());
        loop {
            let kept = bytes.len();
            let read = file.by_ref().take(BLOCK as u64).read_to_end(&mut bytes).expect("a block");
            // Most of a new image has never been written.
            if bytes.iter().any(|byte| *byte != 0) {
                found.extend(self.traces_in(&bytes));
            }
            if read == 0 {
                return found;
            }
            bytes.drain(..(kept + read).saturating_sub(OVERLAP));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn a_secret_reaches_no_disk_no_log_no_core_no_argument_and_no_swap() {
    let area = Area::new();
    let cores = area.directory("cores");
    let mut image = LoopImage::mount();
    let disk = image.path().to_owned();
    let mut site = Site::start_in(area, &disk, "node_certificate_lifetime = \"6s\"");
    let (first, second) = (Canary::new(), Canary::new());

    // All that can happen to a secret.
    site.serve("web-1", "web", &[("key", &first.value)]);
    site.operator.ok(&["secret", "create", "generated", "--generate"]);
    let template =
        b"k={{ secrets.key }}\nj={{ secrets.key | trim | tojson }}\nb={{ secrets.key | b64encode }}\n";
    site.operator.ok_with(&["service", "template", "set", "web", "conf"], template);
    let mut node = site.host_in(&disk, "web-1");
    site.admit(&node);
    node.run_as(&mut dumping(&cores, &node.config()));
    node.wait_for("web/key", &first.value);
    let made_from = |value: &[u8]| {
        let text = String::from_utf8(value.to_vec()).expect("text");
        format!("k={text}\nj=\"{text}\"\nb={}\n", STANDARD.encode(value)).into_bytes()
    };
    node.wait_for("web/conf", &made_from(&first.value));
    site.rotate("key", &second.value);
    node.wait_for("web/key", &second.value);
    node.wait_for("web/conf", &made_from(&second.value));
    site.operator.ok(&["secret", "rollback", "key"]);
    node.wait_for("web/key", &first.value);
    site.rotate("key", &[&second.value[..], &vec![b'.'; 500_000], &second.value].concat());
    deadline::eventually("the large value is read", || {
        node.read("web/key").is_ok_and(|value| value.len() > 500_000)
    });
    let certificate = node.status()["certificate_expires"].clone();
    deadline::eventually("a renewal", || node.status()["certificate_expires"] != certificate);
    site.manager.stop();
    site.manager.run();
    deadline::eventually("the node reconnects", || node.status()["connected"] == true);
    node.stop();
    node.run_as(&mut dumping(&cores, &node.config()));
    deadline::eventually("the value is read", || {
        node.read("web/key").is_ok_and(|value| value.len() > 500_000)
    });

    node.wait_for_standby();
    let holder = node.holder();
    let manager = site.manager.process().pid();
    for pid in [holder.pid, holder.active, holder.standby, manager] {
        no_argument_no_swap_no_dump(pid, &[&first, &second]);
    }
    // The holder has no value.
    for pid in [holder.active, holder.standby, manager] {
        assert!(kilobytes(pid, "VmLck:") > 0, "the memory of {pid} is not locked");
    }
    // Who has it in memory dies where the kernel would write a core if it were let.
    for signal in [Signal::ABORT, Signal::SEGV] {
        node.wait_for_standby();
        let active = node.holder().active;
        deadline::eventually("another worker serves", || {
            // Rust's own handler takes a first SIGSEGV that no fault caused.
            node.signal(active, signal);
            ![0, active].contains(&node.holder().active)
        });
        deadline::eventually("the value is read", || node.read("web/key").is_ok());
    }
    // And the holder, with its workers.
    for signal in [Signal::ABORT, Signal::SEGV] {
        let mut process = node.take_process();
        deadline::eventually("the node dies", || {
            // Rust's own handler takes a first SIGSEGV that no fault caused.
            process.signal(signal);
            process.ended().is_some()
        });
        assert_eq!(process.wait(), 128 + signal.as_raw(), "it died of the signal");
        node.run_as(&mut dumping(&cores, &node.config()));
        deadline::eventually("the value is read", || node.read("web/key").is_ok());
    }
    node.stop();
    site.manager.stop();
    assert_eq!(fs::read_dir(&cores).expect("a directory").count(), 0, "the node left a core");
    a_core_would_have_been_written(&cores);

    let image = image.unmount().to_owned();
    for canary in [&first, &second] {
        assert_eq!(canary.traces_in_file(&image), [""; 0], "on the disk of manager and node");
        for log in files(site.logs().path()) {
            assert_eq!(canary.traces_in_file(&log), [""; 0], "in {}", log.display());
        }
    }
}

/// The node daemon under a limit that lets cores be written, in a directory for them.
fn dumping(cores: &Path, config: &Path) -> Command {
    let mut command = Command::new("prlimit");
    command
        .args(["--core=unlimited", "--", SECRETFS, "node", "run"])
        .current_dir(cores)
        .env("SECRETFS_CONFIG", config)
        .env("SECRETFS_LOG", "debug");
    command
}

fn no_argument_no_swap_no_dump(pid: u32, canaries: &[&Canary]) {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    for file in ["cmdline", "environ"] {
        let text = fs::read(proc.join(file)).expect(file);
        for canary in canaries {
            assert_eq!(canary.traces_in(&text), [""; 0], "in {file}");
        }
    }
    assert_eq!(kilobytes(pid, "VmSwap:"), 0);
    let limits = fs::read_to_string(proc.join("limits")).expect("limits");
    let core: Vec<_> = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))
        .expect("a limit")
        .split_whitespace()
        .take(2)
        .collect();
    assert_eq!(core, ["0", "0"], "soft and hard");
}

/// A line of the status of a process, in kilobytes.
fn kilobytes(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The same death of a program that does not protect itself leaves a core on this machine; unless
/// its cores go to a program, which the limit of 0 does not keep from being asked, but a process
/// that is not dumpable does.
fn a_core_would_have_been_written(cores: &Path) {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a pattern");
    if pattern.starts_with('|') || pattern.starts_with('/') {
        return;
    }
    let mut victim = Command::new("prlimit");
    victim.args(["--core=unlimited", "--", "sh", "-c", "kill -ABRT $$"]).current_dir(cores);
    let status = victim.status().expect("prlimit starts");
    assert!(status.core_dumped(), "{status:?}");
    assert_eq!(fs::read_dir(cores).expect("a directory").count(), 1);
}

fn the_hunter_finds_what_is_planted() {
    let mut image = LoopImage::mount();
    type Encode = fn(&[u8]) -> Vec<u8>;
    let plants: [(&str, Encode); 4] = [
        ("raw", <[u8]>::to_vec),
        ("hexadecimal", |value| hex(value).into_bytes()),
        ("base64", |value| STANDARD.encode(value).into_bytes()),
        ("base64 in the middle of something", |value| STANDARD.encode([b"x", value].concat()).into_bytes()),
    ];
    let canaries = plants.map(|(name, encode)| {
        let canary = Canary::new();
        let path = image.path().join(name);
        let padding = vec![b' '; 50_000];
        fs::write(&path, [padding, encode(&canary.value)].concat()).expect("a planted file");
        File::open(&path).and_then(|file| file.sync_all()).expect("written down");
        (name, canary)
    });
    // Files that are gone are still on the disk.
    for (name, _) in &canaries {
        fs::remove_file(image.path().join(name)).expect("removed");
    }
    let innocent = Canary::new();
    let image = image.unmount();
    for (name, canary) in &canaries {
        assert_ne!(canary.traces_in_file(image), [""; 0], "{name}");
    }
    assert_eq!(innocent.traces_in_file(image), [""; 0], "what was not planted");
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()).collect()
}
