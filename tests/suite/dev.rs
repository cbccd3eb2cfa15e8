//! `secretfs dev`, exactly as who reads the README uses it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::harness::area::{Area, Logs};
use crate::harness::deadline;
use crate::harness::mount::{MountPoint, is_mounted};
use crate::harness::operator::Operator;
use crate::harness::process::{Daemon, secretfs};
use crate::harness::requirement::trials;

trials! {
    needs [Mount];
    what_dev_prints_works_and_nothing_is_left_of_it,
}

fn what_dev_prints_works_and_nothing_is_left_of_it() {
    let area = Area::new();
    let logs = Logs::at(area.directory("logs"));
    let directory = area.path().join("secrets");
    let mut dev = Dev::start(&directory, &logs);
    let guide = dev.guide();

    // The two `cat` lines, as they stand.
    let (made, files): (Vec<_>, Vec<_>) = guide
        .lines()
        .filter_map(|line| line.trim().strip_prefix("cat "))
        .map(PathBuf::from)
        .partition(|file| file.ends_with("demo/dsn"));
    assert!(files.iter().any(|file| file.ends_with("demo/db_password")), "{guide}");
    assert!(files.iter().any(|file| file.ends_with("demo/api_key")), "{guide}");
    for file in &files {
        let length = if file.ends_with("api_key") { 64 } else { 32 };
        assert_eq!(fs::read(file).expect("a value").len(), length, "{}", file.display());
    }

    // The `export` line, and the commands below it.
    let config = guide
        .lines()
        .find_map(|line| line.trim().strip_prefix("export SECRETFS_CONFIG="))
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("no configuration in {guide}"));
    let operator = Operator::new(&config, None, &logs);
    assert_eq!(operator.json(&["secret", "ls"]).as_array().map(Vec::len), Some(2));
    assert_eq!(operator.json(&["node", "status"])["connected"], true);
    let password = directory.join("demo/db_password");
    let before = fs::read(&password).expect("a value");
    operator.ok(&["secret", "rotate", "db_password", "--generate"]);
    deadline::eventually("the value changes", || fs::read(&password).is_ok_and(|value| value != before));

    let echo = guide.lines().find_map(|line| line.trim().strip_prefix("echo '")?.split_once("' | "));
    let (text, command) = echo.unwrap_or_else(|| panic!("no template in {guide}"));
    assert!(command.ends_with(" service template set demo dsn"), "{command}");
    operator.ok_with(&["service", "template", "set", "demo", "dsn"], format!("{text}\n").as_bytes());
    deadline::eventually("the template appears", || {
        let password = fs::read_to_string(&password).expect("a value");
        fs::read_to_string(&made[0]).is_ok_and(|dsn| dsn == format!("postgres://app:{password}@db/app\n"))
    });

    dev.process.signal(Signal::INT);
    assert_eq!(dev.process.wait(), 0, "{}", dev.process.log());
    assert!(!is_mounted(&directory));
    assert!(!directory.exists(), "it made the directory and it takes it away");
    let temporary = config.parent().expect("a directory");
    assert!(!temporary.exists(), "{} is left", temporary.display());
}

struct Dev {
    process: Daemon,
    _mount: MountGuard,
}

/// Unmounts after the process, should the test fail.
struct MountGuard(PathBuf);

impl Drop for MountGuard {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            drop(MountPoint::create(self.0.clone()));
        }
    }
}

impl Dev {
    fn start(directory: &Path, logs: &Logs) -> Self {
        let mut command = secretfs();
        command.args(["dev", "--mount"]).arg(directory);
        let process = Daemon::start("dev", &mut command, logs);
        Self { process, _mount: MountGuard(directory.to_owned()) }
    }

    /// What it prints when it is ready.
    fn guide(&mut self) -> String {
        deadline::poll("the guide is printed", || {
            assert_eq!(self.process.ended(), None, "{}", self.process.log());
            Some(self.process.log()).filter(|log| log.contains("Ctrl-C"))
        })
    }
}
