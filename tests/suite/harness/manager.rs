//! A manager as a real process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use super::area::Logs;
use super::clock::shift_clock;
use super::deadline;
use super::operator::Operator;
use super::process::{Daemon, Outcome, finish, secretfs_on};
use super::tls::{Connection, Reply};

/// Tests restart managers, and have nothing to unlock them by.
const KEY_FILE: [&str; 2] = ["--auto-unlock", "key-file"];

/// A manager with a data directory and an address that it keeps over restarts.
pub(crate) struct Manager {
    config: PathBuf,
    data: PathBuf,
    address: SocketAddr,
    host: Option<PathBuf>,
    clock: Option<String>,
    environment: Vec<(String, PathBuf)>,
    credentials: Option<PathBuf>,
    printed: Value,
    process: Option<Daemon>,
    operator: Operator,
    logs: Logs,
}

impl Manager {
    /// Initialises a manager below `home` and starts it. `settings` are lines for its section of the
    /// configuration.
    pub(crate) fn start(home: &Path, settings: &str, logs: &Logs) -> Self {
        Self::start_on(None, free_address(), home, settings, logs)
    }

    /// The same with more in its environment.
    pub(crate) fn start_with_environment(
        home: &Path,
        settings: &str,
        environment: &[(&str, &Path)],
        logs: &Logs,
    ) -> Self {
        let mut manager = Self::init(&KEY_FILE, None, free_address(), home, settings, environment, logs);
        manager.run();
        manager
    }

    /// The same on a host of a network.
    pub(crate) fn start_on(
        host: Option<&Path>,
        address: SocketAddr,
        home: &Path,
        settings: &str,
        logs: &Logs,
    ) -> Self {
        let mut manager = Self::init(&KEY_FILE, host, address, home, settings, &[], logs);
        manager.run();
        manager
    }

    /// Initialises a manager, with `seal` for how it is sealed and with more in its environment, and does
    /// not start it.
    pub(crate) fn init(
        seal: &[&str],
        host: Option<&Path>,
        address: SocketAddr,
        home: &Path,
        settings: &str,
        environment: &[(&str, &Path)],
        logs: &Logs,
    ) -> Self {
        let environment: Vec<_> =
            environment.iter().map(|(name, path)| ((*name).to_owned(), path.to_path_buf())).collect();
        let config = home.join("manager.toml");
        let data = home.join("manager");
        let text = format!(
            "[manager]\ndata_dir = {data:?}\nlisten = \"{address}\"\nurl = \"https://{address}\"\n{settings}\n"
        );
        fs::write(&config, text).expect("a configuration file");
        let mut init = secretfs_on(host);
        init.args(["manager", "init", "--json"])
            .args(seal)
            .arg("--operator-dir")
            .arg(home.join("operator"))
            .env("SECRETFS_CONFIG", &config)
            .envs(environment.iter().cloned());
        let outcome = finish(&mut init, b"", logs);
        assert_eq!(outcome.code, 0, "secretfs manager init: {}", outcome.stderr);
        let printed: Value = serde_json::from_str(&outcome.stdout).expect("what `init --json` prints");
        let text =
            |key: &str| printed[key].as_str().unwrap_or_else(|| panic!("no {key} in {printed}")).to_owned();
        let operator = Operator::new(Path::new(&text("config")), None, logs).on(host);
        Self {
            config,
            data,
            address,
            host: host.map(Path::to_owned),
            clock: None,
            environment,
            credentials: None,
            printed,
            process: None,
            operator,
            logs: logs.clone(),
        }
    }

    /// What `init --json` printed.
    pub(crate) fn printed(&self) -> &Value {
        &self.printed
    }

    /// The unlock key that `init` printed, or as many shares as are needed, one a line.
    pub(crate) fn unlock_lines(&self) -> String {
        match self.printed["unlock_key"].as_str() {
            Some(key) => format!("{key}\n"),
            None => {
                let needed = self.printed["threshold"].as_u64().expect("a threshold");
                self.shares()
                    .iter()
                    .take(usize::try_from(needed).expect("a few"))
                    .fold(String::new(), |lines, share| lines + share + "\n")
            }
        }
    }

    /// The shares that `init` printed.
    pub(crate) fn shares(&self) -> Vec<String> {
        let shares = self.printed["unlock_shares"].as_array().expect("shares");
        shares.iter().map(|share| share.as_str().expect("a text").to_owned()).collect()
    }

    /// Where systemd would put its credentials, from its next start on.
    pub(crate) fn set_credentials(&mut self, directory: &Path) {
        self.credentials = Some(directory.to_owned());
    }

    /// Runs `secretfs manager` with these arguments to its end.
    pub(crate) fn command(&self, arguments: &[&str], stdin: &[u8]) -> Outcome {
        let mut command = secretfs_on(self.host.as_deref());
        command.arg("manager").args(arguments).env("SECRETFS_CONFIG", &self.config);
        command.envs(self.environment.iter().cloned());
        finish(&mut command, stdin, &self.logs)
    }

    /// Restarts it with a clock that is so far off the others', such as `+7m`.
    pub(crate) fn run_with_clock(&mut self, off: &str) {
        self.stop();
        self.clock = Some(off.to_owned());
        self.run();
    }

    /// Starts it (again) and waits until it serves.
    pub(crate) fn run(&mut self) {
        self.launch();
        self.wait_until_it_serves();
    }

    /// Starts it (again) and waits until it says that it is sealed.
    pub(crate) fn run_sealed(&mut self) {
        self.launch();
        deadline::eventually("the manager is sealed", || {
            self.health().is_some_and(|(status, health)| status == 503 && health["state"] == "sealed")
        });
    }

    /// Waits until it serves operators, on a connection that they trust.
    pub(crate) fn wait_until_it_serves(&mut self) {
        let process = self.process.as_mut().expect("a running manager");
        let (operator, clock) = (&self.operator, self.clock.as_deref());
        deadline::eventually("the manager serves", || {
            assert_eq!(process.ended(), None, "the manager ended: {}", process.log());
            operator.run_at(clock, &["env", "ls"]).code == 0
        });
    }

    /// What it answers to a load balancer, which verifies nothing. `None` when nobody answers.
    pub(crate) fn health(&self) -> Option<(u16, Value)> {
        let reply = self.ask_unverified("GET", "/v1/sys/health")?;
        Some((reply.status, serde_json::from_str(&reply.body).ok()?))
    }

    /// What it answers to somebody who verifies nothing and shows no certificate.
    pub(crate) fn ask_unverified(&self, method: &str, path: &str) -> Option<Reply> {
        Connection::open_unverified(self.address).ok()?.request(method, path, "").ok()
    }

    /// Starts it (again), for those who know what to wait for.
    pub(crate) fn launch(&mut self) {
        let mut command = secretfs_on(self.host.as_deref());
        command.args(["manager", "run"]).env("SECRETFS_CONFIG", &self.config).env("SECRETFS_LOG", "debug");
        command.envs(self.environment.iter().cloned());
        if let Some(off) = &self.clock {
            shift_clock(&mut command, off);
        }
        if let Some(directory) = &self.credentials {
            command.env("CREDENTIALS_DIRECTORY", directory);
        }
        self.process = Some(Daemon::start("manager", &mut command, &self.logs));
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(&mut self) {
        let mut process = self.process.take().expect("a running manager");
        process.signal(Signal::TERM);
        assert_eq!(process.wait(), 0, "the manager stops cleanly");
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("a running manager");
        process.signal(Signal::KILL);
        process.wait();
    }

    /// Lets it hang: its connections stay open, and nobody answers.
    pub(crate) fn pause(&self) {
        self.process().signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.process().signal(Signal::CONT);
    }

    pub(crate) fn process(&self) -> &Daemon {
        self.process.as_ref().expect("a running manager")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The first operator, in no environment yet.
    pub(crate) fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Where it keeps its keys and its store.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }
}

/// An address on this machine that nobody listens at, below the range from which the kernel takes
/// ports for connections, so that a manager finds it free again after a restart.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 100).expect("below 100") * 100;
    deadline::poll("a free port", || {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpListener::bind(address).is_ok().then_some(address)
    })
}
