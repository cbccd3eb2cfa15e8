//! Which devices have been ours: a small file that outlives the holder, but not the machine.
//!
//! A container could mount something that calls itself a secretfs. Only what is on record, from the
//! time when we mounted it, is ever replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::{Plan, PlannedMount};
use crate::fuse::device::Device;
use crate::host::files;

/// The record, in memory and in its file.
#[derive(Debug)]
pub(crate) struct Record {
    file: PathBuf,
    content: Content,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// Device numbers mean nothing to the next start of the machine.
    boot: String,
    /// By the path that they were mounted at.
    devices: BTreeMap<PathBuf, BTreeSet<Device>>,
}

impl Record {
    /// Reads the record. One that is absent, damaged or of an earlier start of the machine is empty.
    pub(crate) fn load(file: &Path) -> Self {
        Self::load_at(file, boot())
    }

    fn load_at(file: &Path, boot: String) -> Self {
        let read = || serde_json::from_slice::<Content>(&fs::read(file)?).map_err(io::Error::from);
        let devices = match read() {
            Ok(content) if content.boot == boot => content.devices,
            Ok(_) => BTreeMap::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(
                    file = %file.display(), %error,
                    "the record of earlier mounts cannot be read; containers that have them need a restart"
                );
                BTreeMap::new()
            }
        };
        Self { file: file.to_owned(), content: Content { boot, devices } }
    }

    /// Notes a mount that has just been made.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn add(&mut self, path: &Path, device: Device) -> io::Result<()> {
        // The number is free again, or else it would not be this mount's now.
        for devices in self.content.devices.values_mut() {
            devices.remove(&device);
        }
        self.content.devices.entry(path.to_owned()).or_default().insert(device);
        self.write()
    }

    /// Forgets devices that nobody has mounted any more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn prune(&mut self, still_seen: &BTreeSet<Device>) -> io::Result<()> {
        for devices in self.content.devices.values_mut() {
            devices.retain(|device| still_seen.contains(device));
        }
        self.content.devices.retain(|_, devices| !devices.is_empty());
        self.write()
    }

    /// What there is to repair once `alive` are mounted: each path's other devices.
    pub(crate) fn plan(&self, alive: &BTreeMap<PathBuf, Device>) -> Plan {
        let mounts = alive.keys().map(|path| {
            let devices = self.content.devices.get(path).into_iter().flatten();
            let dead = devices.filter(|device| alive.values().all(|alive| alive != *device));
            PlannedMount { path: path.clone(), dead: dead.copied().collect() }
        });
        Plan { mounts: mounts.collect() }
    }

    fn write(&self) -> io::Result<()> {
        files::write_private(&self.file, &serde_json::to_vec(&self.content)?)
    }
}

/// Different after each start of the machine.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn device(number: &str) -> Device {
        number.parse().expect("a device")
    }

    fn dead(record: &Record, alive: &str) -> Vec<String> {
        let alive = BTreeMap::from([(PathBuf::from("/run/secrets"), device(alive))]);
        let plan = record.plan(&alive);
        plan.mounts.iter().flat_map(|mount| &mount.dead).map(ToString::to_string).collect()
    }

    #[test]
    fn it_outlives_the_process_and_only_root_reads_it() {
        let scratch = tempfile::tempdir().expect("a directory");
        let file = scratch.path().join("mounts.json");
        let mut record = Record::load(&file);
        record.add(Path::new("/run/secrets"), device("0:45")).expect("written");
        record.add(Path::new("/run/secrets"), device("0:46")).expect("written");
        record.add(Path::new("/elsewhere"), device("0:47")).expect("written");
        let mode = file.metadata().expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut record = Record::load(&file);
        assert_eq!(dead(&record, "0:46"), ["0:45"], "what is alive is not dead");
        record.add(Path::new("/elsewhere"), device("0:45")).expect("the number is another mount's now");
        assert!(dead(&Record::load(&file), "0:46").is_empty());
    }

    #[test]
    fn what_nobody_has_mounted_is_forgotten() {
        let scratch = tempfile::tempdir().expect("a directory");
        let file = scratch.path().join("mounts.json");
        let mut record = Record::load(&file);
        for number in ["0:45", "0:46", "0:47"] {
            record.add(Path::new("/run/secrets"), device(number)).expect("written");
        }
        record.prune(&BTreeSet::from([device("0:46"), device("0:47")])).expect("written");
        assert_eq!(dead(&Record::load(&file), "0:47"), ["0:46"]);
    }

    #[test]
    fn a_damaged_record_or_one_of_an_earlier_start_is_empty() {
        let scratch = tempfile::tempdir().expect("a directory");
        let file = scratch.path().join("mounts.json");
        Record::load(&file).add(Path::new("/run/secrets"), device("0:45")).expect("written");
        assert_eq!(dead(&Record::load(&file), "0:46"), ["0:45"]);
        assert!(dead(&Record::load_at(&file, "another start".to_owned()), "0:46").is_empty());
        let unknown = r#"{"boot":"","devices":{},"more":1}"#;
        for damaged in ["", "{", "[]", unknown, r#"{"boot":"","devices":{"/a":["x"]}}"#] {
            fs::write(&file, damaged).expect("a file");
            assert!(dead(&Record::load(&file), "0:46").is_empty(), "{damaged}");
        }
    }
}
