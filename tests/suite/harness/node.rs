//! A node daemon as a real process, with its own state, socket and mounts.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::area::Logs;
use super::clock::shift_clock;
use super::deadline;
use super::mount::{MountPoint, is_mounted};
use super::operator::Operator;
use super::process::{Daemon, Outcome, finish, secretfs_on};

/// The processes of a daemon; 0 where there is none.
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) active: u32,
    pub(crate) standby: u32,
    pub(crate) notifier: u32,
    pub(crate) witness: u32,
    pub(crate) refusing: bool,
}

impl Holder {
    /// Asks without starting a process, which would take longer than a worker lives in some tests.
    fn ask(socket: &Path) -> io::Result<Value> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"\"Status\"\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(serde_json::from_slice::<Value>(&answer)?["Ok"].take())
    }

    fn read(status: &Value) -> Self {
        let pid =
            |name: &str| status[name].as_u64().map_or(0, |pid| u32::try_from(pid).expect("a process id"));
        Self {
            pid: pid("pid"),
            active: pid("active"),
            standby: pid("standby"),
            notifier: pid("notifier"),
            witness: pid("witness"),
            refusing: status["refusing"] == true,
        }
    }
}

/// A host of its own, as far as secretfs can tell. Dropped, it stops the daemon and unmounts.
pub(crate) struct Node {
    name: String,
    home: PathBuf,
    settings: String,
    mount_settings: String,
    host: Option<PathBuf>,
    logs: Logs,
    // Before the mount points, so that the daemon unmounts before the guards look.
    process: Option<Daemon>,
    mounts: Vec<(MountPoint, Option<String>)>,
}

impl Node {
    /// A host that has not joined yet. Its directories are below `home`, its mounts below `mounts`:
    /// all services at the first one.
    pub(crate) fn new(name: &str, home: &Path, mounts: &Path, logs: &Logs) -> Self {
        let home = home.join(name);
        fs::create_dir_all(&home).expect("a directory");
        let mount = MountPoint::create(mounts.join(name));
        let mut node = Self {
            name: name.to_owned(),
            home,
            settings: String::new(),
            mount_settings: String::new(),
            host: None,
            logs: logs.clone(),
            process: None,
            mounts: vec![(mount, None)],
        };
        node.write_config();
        node
    }

    /// Runs on a host of a network from now on.
    pub(crate) fn on(self, host: &Path) -> Self {
        Self { host: Some(host.to_owned()), ..self }
    }

    /// Adds lines to its section of the configuration.
    pub(crate) fn configure(&mut self, settings: &str) {
        self.settings.push_str(settings);
        self.settings.push('\n');
        self.write_config();
    }

    /// Adds lines to the section of each mount.
    pub(crate) fn configure_mounts(&mut self, settings: &str) {
        self.mount_settings.push_str(settings);
        self.mount_settings.push('\n');
        self.write_config();
    }

    /// Adds a mount, of one service or of all.
    pub(crate) fn add_mount(&mut self, path: PathBuf, service: Option<&str>) {
        self.mounts.push((MountPoint::create(path), service.map(str::to_owned)));
        self.write_config();
    }

    fn write_config(&mut self) {
        let Self { home, settings, mount_settings, .. } = self;
        let mut text = format!(
            "[node]\nstate_dir = {:?}\nsocket = {:?}\n{settings}",
            home.join("state"),
            home.join("node.sock")
        );
        for (mount, service) in &self.mounts {
            text.push_str(&format!("\n[[node.mount]]\npath = {:?}\n{mount_settings}", mount.path()));
            if let Some(service) = service {
                text.push_str(&format!("service = {service:?}\n"));
            }
        }
        fs::write(self.config(), text).expect("a configuration file");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.home.join("node.toml")
    }

    /// Tries to join, however it ends.
    pub(crate) fn join(&self, url: &str, token: &str) -> Outcome {
        self.join_at(None, url, token)
    }

    /// Tries to join without saying a name.
    pub(crate) fn join_unnamed(&self, url: &str, token: &str) -> Outcome {
        let mut command = secretfs_on(self.host.as_deref());
        command.args(["node", "join", url, "--token", "-"]).env("SECRETFS_CONFIG", self.config());
        finish(&mut command, token.as_bytes(), &self.logs)
    }

    /// Tries to join under another clock, however it ends.
    pub(crate) fn join_at(&self, clock: Option<&str>, url: &str, token: &str) -> Outcome {
        let mut command = secretfs_on(self.host.as_deref());
        command
            .args(["node", "join", url, "--token", "-", "--name", &self.name])
            .env("SECRETFS_CONFIG", self.config());
        if let Some(off) = clock {
            shift_clock(&mut command, off);
        }
        finish(&mut command, token.as_bytes(), &self.logs)
    }

    /// Starts the daemon and waits until it has mounted.
    pub(crate) fn run(&mut self) {
        let mut command = secretfs_on(self.host.as_deref());
        command.args(["node", "run"]).env("SECRETFS_CONFIG", self.config()).env("SECRETFS_LOG", "debug");
        self.run_as(&mut command);
    }

    /// Starts the daemon by a command of the test's own and waits until it has mounted.
    pub(crate) fn run_as(&mut self, command: &mut std::process::Command) {
        self.process = Some(Daemon::start(&self.name, command, &self.logs));
        // It mounts before it answers, and where the last one was killed, its mount is there still.
        deadline::eventually("the node answers", || {
            let process = self.process.as_mut().expect("the daemon just started");
            assert_eq!(process.ended(), None, "the node ended: {}", process.log());
            self.ask_status().code == 0
        });
        for (mount, _) in &self.mounts {
            assert!(is_mounted(mount.path()), "{} is not mounted", mount.path().display());
        }
    }

    /// Starts the daemon and waits until it has a manifest.
    pub(crate) fn run_connected(&mut self) {
        self.run();
        deadline::eventually("the node connects", || self.status()["connected"] == true);
    }

    /// Sends SIGTERM, waits and checks that nothing is left mounted.
    pub(crate) fn stop(&mut self) {
        self.stop_by(Signal::TERM);
    }

    /// Sends a signal that ends daemons, waits and checks that nothing is left mounted.
    pub(crate) fn stop_by(&mut self, signal: Signal) {
        let mut process = self.process.take().expect("a running node");
        process.signal(signal);
        assert_eq!(process.wait(), 0, "the node stops cleanly");
        for (mount, _) in &self.mounts {
            assert!(!is_mounted(mount.path()), "{} is still mounted", mount.path().display());
        }
    }

    /// Takes the process out of the node's hands.
    pub(crate) fn take_process(&mut self) -> Daemon {
        self.process.take().expect("a running node")
    }

    pub(crate) fn process(&self) -> &Daemon {
        self.process.as_ref().expect("a running node")
    }

    /// What `secretfs node status --json` prints.
    pub(crate) fn status(&self) -> Value {
        let outcome = self.ask_status();
        assert_eq!(outcome.code, 0, "secretfs node status: {}", outcome.stderr);
        serde_json::from_str(&outcome.stdout).expect("JSON")
    }

    /// Runs `secretfs node metrics`.
    pub(crate) fn metrics(&self) -> Outcome {
        Operator::new(&self.config(), None, &self.logs).run(&["node", "metrics"])
    }

    fn ask_status(&self) -> Outcome {
        Operator::new(&self.config(), None, &self.logs).run(&["node", "status", "--json"])
    }

    /// Runs `secretfs node upgrade`.
    pub(crate) fn upgrade(&self, program: &Path) -> Outcome {
        let program = program.to_str().expect("a plain path");
        Operator::new(&self.config(), None, &self.logs).run(&["node", "upgrade", "--program", program])
    }

    /// The daemon's processes.
    pub(crate) fn holder(&self) -> Holder {
        let socket = self.home.join("node-holder.sock");
        let answer = deadline::poll("the holder answers", || Holder::ask(&socket).ok());
        Holder::read(&answer)
    }

    /// Sends a signal to a process of the daemon, which may have ended.
    pub(crate) fn signal(&self, pid: u32, signal: Signal) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
        let _ = kill_process(pid, signal);
    }

    /// Ends the worker that serves, once another one is ready, and waits until that one serves.
    pub(crate) fn kill_worker(&self, signal: Signal) {
        self.wait_for_standby();
        let before = self.holder();
        self.signal(before.active, signal);
        deadline::eventually("another worker serves", || {
            let now = self.holder();
            now.active != 0 && now.active != before.active
        });
    }

    /// Waits until a worker serves and another is ready to.
    pub(crate) fn wait_for_standby(&self) {
        deadline::eventually("a standby is ready", || {
            let holder = self.holder();
            holder.active != 0 && holder.standby != 0
        });
    }

    /// The mount point of all services.
    pub(crate) fn mount(&self) -> &Path {
        self.mounts[0].0.path()
    }

    /// A path below the mount of all services, such as `web/db_password`.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.mount().join(below)
    }

    /// Reads a file below the mount, in a thread: a read that hangs fails the test.
    pub(crate) fn read(&self, below: &str) -> io::Result<Vec<u8>> {
        let path = self.path(below);
        deadline::within(deadline::PATIENCE, &format!("reading {below}"), move || fs::read(path))
    }

    /// Waits until a file has this value.
    pub(crate) fn wait_for(&self, below: &str, value: &[u8]) {
        deadline::eventually(&format!("{below} has its value"), || {
            self.read(below).is_ok_and(|read| read == value)
        });
    }

    /// Waits until a path is there.
    pub(crate) fn wait_for_path(&self, below: &str) {
        deadline::eventually(&format!("{below} is there"), || self.path(below).exists());
    }

    /// Waits until a path is no longer there.
    pub(crate) fn wait_gone(&self, below: &str) {
        deadline::eventually(&format!("{below} is gone"), || {
            self.path(below).symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        });
    }

    /// Where it keeps its keys and certificate.
    pub(crate) fn state(&self) -> PathBuf {
        self.home.join("state")
    }
}
