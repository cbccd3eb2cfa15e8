//! Docker Engine, started by hand once a run, with all its state in a directory that goes with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::area::{Area, Logs};
use super::deadline;
use super::process::{Daemon, Outcome, finish};

const IMAGE: &str = "secretfs-test";

static SHARED: Mutex<Option<Arc<Engine>>> = Mutex::new(None);

pub(crate) struct Engine {
    host: String,
    logs: Logs,
    _daemon: Daemon,
    // The last one: the daemon's files are in it.
    _area: Area,
}

impl Engine {
    /// The engine that all tests share, started by the first one that asks.
    pub(crate) fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().expect("the engine starts");
        shared.get_or_insert_with(|| Arc::new(Self::start())).clone()
    }

    /// Ends the shared engine, after the last test.
    pub(crate) fn stop_shared() {
        drop(SHARED.lock().ok().and_then(|mut shared| shared.take()));
    }

    fn start() -> Self {
        let area = Area::new();
        let logs = Logs::at(area.directory("logs"));
        let host = format!("unix://{}", area.path().join("docker.sock").display());
        let mut command = Command::new("dockerd");
        command
            .args(["--host", &host])
            .arg("--data-root")
            .arg(area.path().join("data"))
            .arg("--exec-root")
            .arg(area.path().join("exec"))
            .arg("--pidfile")
            .arg(area.path().join("pid"))
            // No network and no storage driver that the machine might not let us have.
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]);
        let daemon = Daemon::start("dockerd", &mut command, &logs);
        let engine = Self { host, logs, _daemon: daemon, _area: area };
        deadline::eventually("dockerd answers", || engine.docker(&["version"]).code == 0);
        engine.import_image();
        engine
    }

    /// An image of nothing but a static busybox.
    fn import_image(&self) {
        let root = self._area.directory("image");
        let bin = self._area.directory("image/bin");
        self._area.directory("image/run/secrets");
        fs::copy(busybox(), bin.join("busybox")).expect("a static busybox");
        for applet in ["sh", "cat", "ls", "sleep", "stat", "usleep"] {
            symlink("busybox", bin.join(applet)).expect("a link");
        }
        let archive = self._area.path().join("image.tar");
        let tar = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status();
        assert!(tar.is_ok_and(|status| status.success()), "tar packs the image");
        let imported = self.docker(&["import", archive.to_str().expect("a plain path"), IMAGE]);
        assert_eq!(imported.code, 0, "docker import: {}", imported.stderr);
    }

    /// Runs a container to its end.
    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Outcome {
        let begin = ["run", "--rm", "--network", "none"];
        self.docker(&[&begin, options, &[IMAGE], command].concat())
    }

    /// Starts a container that is removed when it is dropped.
    pub(crate) fn start_container(self: Arc<Self>, options: &[&str], command: &[&str]) -> Container {
        let begin = ["run", "--detach", "--network", "none"];
        let started = self.docker(&[&begin, options, &[IMAGE], command].concat());
        assert_eq!(started.code, 0, "docker run: {}", started.stderr);
        Container { id: started.stdout.trim().to_owned(), engine: self }
    }

    fn docker(&self, arguments: &[&str]) -> Outcome {
        finish(Command::new("docker").args(["--host", &self.host]).args(arguments), b"", &self.logs)
    }
}

/// A running container.
pub(crate) struct Container {
    id: String,
    engine: Arc<Engine>,
}

impl Container {
    /// Its id, 64 hexadecimal digits.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Runs one more command in it.
    pub(crate) fn exec(&self, command: &[&str]) -> Outcome {
        self.engine.docker(&[&["exec", &self.id], command].concat())
    }

    /// The same, as another user.
    pub(crate) fn exec_as(&self, user: u32, command: &[&str]) -> Outcome {
        self.engine.docker(&[&["exec", "--user", &user.to_string(), &self.id], command].concat())
    }

    /// What its first process has printed.
    pub(crate) fn printed(&self) -> String {
        self.engine.docker(&["logs", &self.id]).stdout
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.engine.docker(&["rm", "--force", &self.id]);
    }
}

fn busybox() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("busybox"))
        .find(|program| program.exists())
        .expect("busybox is installed")
}
