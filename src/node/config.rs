//! How a node is set up: the `[node]` section of the configuration file, under the flags.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::geteuid;
use secretfs_wire::ServiceName;
use serde::{Deserialize, Serialize};

use crate::cache::DEFAULT_CAPACITY;
use crate::fs::{DEFAULT_DEADLINE, DEFAULT_MAX_STALE};
use crate::fuse::{Audience, Inotify};
use crate::handover::ServeConfig;

/// What a configuration file and flags may say. Unknown keys are refused by name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawConfig {
    /// Where the node keeps its keys and certificate.
    pub(crate) state_dir: Option<PathBuf>,
    /// Where the daemon answers `node status`.
    pub(crate) socket: Option<PathBuf>,
    /// What is mounted where.
    #[serde(rename = "mount")]
    pub(crate) mounts: Vec<MountConfig>,
    /// How long a read may wait for the manager, such as `2s`.
    pub(crate) deadline: Option<String>,
    /// How long values are served while the manager is away, such as `12h`.
    pub(crate) max_stale: Option<String>,
    /// How many bytes of values are kept in memory.
    pub(crate) cache_bytes: Option<usize>,
    /// How many bytes of records of opens are kept until the manager has them.
    pub(crate) audit_bytes: Option<usize>,
    /// As whom the workers run, where the daemon is root.
    pub(crate) user: Option<String>,
}

/// One mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MountConfig {
    /// The mount point, an empty directory.
    pub(crate) path: PathBuf,
    /// The one service whose targets are at the mount's root; without it each service is a
    /// directory.
    pub(crate) service: Option<ServiceName>,
    /// What a change looks like to those who watch the files with inotify.
    #[serde(default = "default_inotify")]
    pub(crate) inotify: Inotify,
}

const fn default_inotify() -> Inotify {
    Inotify::Write
}

impl MountConfig {
    /// A mount with defaults for all else.
    pub(crate) const fn new(path: PathBuf, service: Option<ServiceName>) -> Self {
        Self { path, service, inotify: default_inotify() }
    }
}

/// A checked configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the node keeps its keys and certificate: `/var/lib/secretfs/node` by default.
    pub(crate) state_dir: PathBuf,
    /// Where the daemon answers `node status`: `/run/secretfs/node.sock` by default.
    pub(crate) socket: PathBuf,
    /// What is mounted where: all services at `/run/secrets` by default.
    pub(crate) mounts: Vec<MountConfig>,
    /// How values are served: by default with a deadline of 2 s, for 12 h while the manager is away,
    /// from 64 MiB of memory, with records of opens in 4 MiB.
    pub(crate) serve: ServeConfig,
    /// As whom the workers run: by default `secretfs` if the host has that user, else `nobody`.
    pub(crate) user: Option<String>,
    /// Who sees the mounts: everyone, as far as each file's owner and mode let them. Without root a
    /// mount is its user's alone, which needs no line in /etc/fuse.conf.
    pub(crate) audience: Audience,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidConfig {
    /// A text is not a span of time.
    #[error("node.{key} = {given:?} is not a span of time such as 2s or 12h")]
    Duration {
        /// The key.
        key: &'static str,
        /// What it was set to.
        given: String,
    },
    /// Two mounts share a mount point.
    #[error("two mounts are configured at {0}")]
    MountTwice(PathBuf),
}

impl RawConfig {
    /// These settings, and where they are silent, `lower`'s.
    pub(crate) fn or(self, lower: Self) -> Self {
        Self {
            state_dir: self.state_dir.or(lower.state_dir),
            socket: self.socket.or(lower.socket),
            mounts: if self.mounts.is_empty() { lower.mounts } else { self.mounts },
            deadline: self.deadline.or(lower.deadline),
            max_stale: self.max_stale.or(lower.max_stale),
            cache_bytes: self.cache_bytes.or(lower.cache_bytes),
            audit_bytes: self.audit_bytes.or(lower.audit_bytes),
            user: self.user.or(lower.user),
        }
    }

    /// Checks what is given and fills in the defaults.
    pub(crate) fn check(self) -> Result<Config, InvalidConfig> {
        let mut mounts = self.mounts;
        if mounts.is_empty() {
            mounts.push(MountConfig::new(PathBuf::from("/run/secrets"), None));
        }
        for (index, mount) in mounts.iter().enumerate() {
            if mounts[..index].iter().any(|other| other.path == mount.path) {
                return Err(InvalidConfig::MountTwice(mount.path.clone()));
            }
        }
        Ok(Config {
            state_dir: self.state_dir.unwrap_or_else(|| PathBuf::from("/var/lib/secretfs/node")),
            socket: self.socket.unwrap_or_else(|| PathBuf::from("/run/secretfs/node.sock")),
            mounts,
            serve: ServeConfig {
                deadline: duration("deadline", self.deadline, DEFAULT_DEADLINE)?,
                max_stale: duration("max_stale", self.max_stale, DEFAULT_MAX_STALE)?,
                cache_bytes: self.cache_bytes.unwrap_or(DEFAULT_CAPACITY),
                audit_bytes: self.audit_bytes.unwrap_or(crate::audit::DEFAULT_BYTES),
                unlocked: false,
                #[cfg(feature = "unaudited")]
                unaudited: false,
            },
            user: self.user,
            audience: if geteuid().is_root() { Audience::Everyone } else { Audience::OnlyMe },
        })
    }
}

fn duration(key: &'static str, given: Option<String>, default: Duration) -> Result<Duration, InvalidConfig> {
    match given {
        None => Ok(default),
        Some(given) => humantime::parse_duration(&given).map_err(|_| InvalidConfig::Duration { key, given }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let flags = RawConfig { deadline: Some("1s".into()), ..Default::default() };
        let file: RawConfig =
            toml::from_str("deadline = \"5s\"\nmax_stale = \"1h\"\n[[mount]]\npath = \"/a\"").unwrap();
        let config = flags.or(file).check().unwrap();
        assert_eq!(config.serve.deadline, Duration::from_secs(1));
        assert_eq!(config.serve.max_stale, Duration::from_secs(3600));
        assert_eq!(config.serve.cache_bytes, 64 << 20);
        assert_eq!(config.mounts[0].path, PathBuf::from("/a"));
        assert_eq!(config.mounts[0].inotify, Inotify::Write);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let twice = "[[mount]]\npath = \"/a\"\n[[mount]]\npath = \"/a\"";
        for (text, why) in [("deadline = \"soon\"", "node.deadline"), (twice, "two mounts")] {
            let raw: RawConfig = toml::from_str(text).unwrap();
            let error = raw.check().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
