//! What the manager is told from outside: raw settings in layers, then one checked [`Config`].

mod limits;
mod pkcs11;
mod vault;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use url::Url;

pub use limits::{LimitsConfig, RawLimitsConfig, RequestRate};
pub use pkcs11::{PinSource, Pkcs11Config, RawPkcs11Config, TokenChoice};
pub use vault::{RawAppRoleConfig, RawVaultConfig, VaultConfig, VaultLogin};

const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Settings as one source gives them; what is absent is left to the next source.
///
/// The precedence is flags over environment variables over the file over the defaults:
/// `flags.or(environment).or(file).check()`. Durations are written as `30s`, `24h` or `1h 30m`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// Where the manager keeps its keys and its store. Default: `/var/lib/secretfs/manager`.
    pub data_dir: Option<PathBuf>,
    /// The file whose key unlocks the manager, where that was chosen. Default: `unlock.key` in the
    /// `data_dir`.
    pub unlock_key_file: Option<PathBuf>,
    /// The systemd credential whose key unlocks the manager, where that was chosen. Default:
    /// `secretfs-unlock-key`.
    pub unlock_credential: Option<String>,
    /// Where it listens. Default: `0.0.0.0:7443`.
    pub listen: Option<SocketAddr>,
    /// DNS names and IP addresses that its certificate holds for; `localhost`, `127.0.0.1` and `::1`
    /// are always among them. Default: the host's name.
    pub names: Option<Vec<String>>,
    /// Its URL as new nodes are told it. Default: `https://<first name>:<port>`.
    pub url: Option<String>,
    /// How long a node's certificate holds. Default: `24h`; at least `1s`.
    pub node_certificate_lifetime: Option<String>,
    /// How long an operator's certificate holds. Default: `7d`; at least `1s`.
    pub operator_certificate_lifetime: Option<String>,
    /// How long open requests may still take at shutdown. Default: `10s`.
    pub shutdown_deadline: Option<String>,
    /// How long a TLS handshake, and a request's head, may take. Default: `10s`.
    pub handshake_timeout: Option<String>,
    /// How long a request may take, the change stream excepted. Default: `30s`.
    pub request_timeout: Option<String>,
    /// After how much silence the change stream says that the manager lives. Default: `5s`.
    pub heartbeat_interval: Option<String>,
    /// How long a node's session key is kept. Default: `1h`.
    pub session_lifetime: Option<String>,
    /// How long a data key is kept that a key backend outside the manager has unwrapped; such a backend is
    /// asked once in this time for each. Default: `5m`; `0s` keeps none.
    pub data_key_lifetime: Option<String>,
    /// How long audit records may be without a signed checkpoint. Default: `1s`.
    pub audit_checkpoint_interval: Option<String>,
    /// How long a key signs the audit log before it is replaced. Default: `90d`.
    pub audit_key_lifetime: Option<String>,
    /// How many connections are open at once; more wait to be accepted. Default: 10000.
    pub max_connections: Option<usize>,
    /// How many requests one HTTP/2 connection may have open at once. Default: 256.
    pub max_streams: Option<u32>,
    /// How much one caller may ask for, and how often it may fail. It comes from one source as a whole.
    pub limits: Option<RawLimitsConfig>,
    /// A directory of the organisation's own policies. Default: none.
    pub policies: Option<PathBuf>,
    /// The Vault or OpenBao that keys may be kept in. Default: none. It comes from one source as a
    /// whole.
    pub vault: Option<RawVaultConfig>,
    /// An HSM that holds keys. Default: none.
    pub pkcs11: Option<RawPkcs11Config>,
}

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the manager keeps its keys and its store.
    pub data_dir: PathBuf,
    /// The file whose key unlocks the manager, where that was chosen.
    pub unlock_key_file: PathBuf,
    /// The systemd credential whose key unlocks the manager, where that was chosen.
    pub unlock_credential: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// DNS names and IP addresses that its certificate holds for.
    pub names: Vec<String>,
    /// Its URL as new nodes are told it.
    pub url: Url,
    /// How long a node's certificate holds.
    pub node_certificate_lifetime: Duration,
    /// How long an operator's certificate holds.
    pub operator_certificate_lifetime: Duration,
    /// How long open requests may still take at shutdown.
    pub shutdown_deadline: Duration,
    /// How long a TLS handshake, and a request's head, may take.
    pub handshake_timeout: Duration,
    /// How long a request may take, the change stream excepted.
    pub request_timeout: Duration,
    /// After how much silence the change stream says that the manager lives.
    pub heartbeat_interval: Duration,
    /// How long a node's session key is kept.
    pub session_lifetime: Duration,
    /// How long a data key is kept that a key backend outside the manager has unwrapped.
    pub data_key_lifetime: Duration,
    /// How long audit records may be without a signed checkpoint.
    pub audit_checkpoint_interval: Duration,
    /// How long a key signs the audit log before it is replaced.
    pub audit_key_lifetime: Duration,
    /// How many connections are open at once.
    pub max_connections: usize,
    /// How many requests one HTTP/2 connection may have open at once.
    pub max_streams: u32,
    /// How much one caller may ask for, and how often it may fail.
    pub limits: LimitsConfig,
    /// A directory of the organisation's own policies.
    pub policies: Option<PathBuf>,
    /// The Vault or OpenBao that keys may be kept in.
    pub vault: Option<VaultConfig>,
    /// An HSM that holds keys.
    pub pkcs11: Option<Pkcs11Config>,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// The file is not TOML, or has a setting that is not known.
    #[error("the configuration file cannot be read")]
    Toml(#[source] toml::de::Error),
    /// A duration is not of the form `1h 30m`.
    #[error("{setting} {given:?} is not a duration such as 30s or 24h")]
    Duration {
        /// The setting's name.
        setting: &'static str,
        /// What was given.
        given: String,
        /// What is wrong with it.
        #[source]
        source: humantime::DurationError,
    },
    /// A number or a duration is too small or too large.
    #[error("{setting} must be {range}")]
    OutOfRange {
        /// The setting's name.
        setting: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// A name is neither a DNS name nor an IP address.
    #[error("names: {0:?} is neither a DNS name nor an IP address")]
    Name(String),
    /// The name of a systemd credential is none.
    #[error("unlock_credential {0:?} is not the name of a systemd credential")]
    Credential(String),
    /// A setting of the Vault section.
    #[error("{setting} {problem}")]
    Vault {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong with it. What was given may be a secret in the wrong place.
        problem: &'static str,
    },
    /// The URL is none, or not one of HTTPS.
    #[error("url {0:?} is not of the form https://HOST:PORT")]
    Url(String),
    /// The HSM's section cannot be used.
    #[error("pkcs11: {0}")]
    Pkcs11(&'static str),
}

impl RawConfig {
    /// Reads the settings of a file.
    ///
    /// # Errors
    /// When it is not TOML, or has a setting that is not known.
    pub fn from_toml(text: &str) -> Result<Self, InvalidConfig> {
        toml::from_str(text).map_err(InvalidConfig::Toml)
    }

    /// The same with the relative paths of policies and of sections taken from `directory`, which is where the file is.
    #[must_use]
    pub fn relative_to(self, directory: &Path) -> Self {
        Self {
            policies: self.policies.map(|policies| directory.join(policies)),
            vault: self.vault.map(|vault| vault.relative_to(directory)),
            pkcs11: self.pkcs11.map(|pkcs11| pkcs11.relative_to(directory)),
            ..self
        }
    }

    /// These settings, and where one is absent that of a `lower` layer.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(lower.data_dir),
            unlock_key_file: self.unlock_key_file.or(lower.unlock_key_file),
            unlock_credential: self.unlock_credential.or(lower.unlock_credential),
            listen: self.listen.or(lower.listen),
            names: self.names.or(lower.names),
            url: self.url.or(lower.url),
            node_certificate_lifetime: self.node_certificate_lifetime.or(lower.node_certificate_lifetime),
            operator_certificate_lifetime: self
                .operator_certificate_lifetime
                .or(lower.operator_certificate_lifetime),
            shutdown_deadline: self.shutdown_deadline.or(lower.shutdown_deadline),
            handshake_timeout: self.handshake_timeout.or(lower.handshake_timeout),
            request_timeout: self.request_timeout.or(lower.request_timeout),
            heartbeat_interval: self.heartbeat_interval.or(lower.heartbeat_interval),
            session_lifetime: self.session_lifetime.or(lower.session_lifetime),
            data_key_lifetime: self.data_key_lifetime.or(lower.data_key_lifetime),
            audit_checkpoint_interval: self.audit_checkpoint_interval.or(lower.audit_checkpoint_interval),
            audit_key_lifetime: self.audit_key_lifetime.or(lower.audit_key_lifetime),
            max_connections: self.max_connections.or(lower.max_connections),
            max_streams: self.max_streams.or(lower.max_streams),
            limits: self.limits.or(lower.limits),
            policies: self.policies.or(lower.policies),
            vault: self.vault.or(lower.vault),
            pkcs11: self.pkcs11.or(lower.pkcs11),
        }
    }

    /// Checks each setting, and fills in the default where there is none.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(self) -> Result<Config, InvalidConfig> {
        let listen = self.listen.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7443)));
        let names = names(self.names)?;
        let data_dir = self.data_dir.unwrap_or_else(|| PathBuf::from("/var/lib/secretfs/manager"));
        let max_connections = within("max_connections", self.max_connections.unwrap_or(10_000), 1_000_000)?;
        Ok(Config {
            unlock_key_file: self.unlock_key_file.unwrap_or_else(|| data_dir.join("unlock.key")),
            unlock_credential: credential(self.unlock_credential)?,
            data_dir,
            url: url(self.url, &names, listen.port())?,
            listen,
            names,
            node_certificate_lifetime: duration(
                "node_certificate_lifetime",
                self.node_certificate_lifetime,
                "24h",
            )?,
            operator_certificate_lifetime: duration(
                "operator_certificate_lifetime",
                self.operator_certificate_lifetime,
                "7d",
            )?,
            shutdown_deadline: duration("shutdown_deadline", self.shutdown_deadline, "10s")?,
            handshake_timeout: duration("handshake_timeout", self.handshake_timeout, "10s")?,
            request_timeout: duration("request_timeout", self.request_timeout, "30s")?,
            heartbeat_interval: duration("heartbeat_interval", self.heartbeat_interval, "5s")?,
            session_lifetime: duration("session_lifetime", self.session_lifetime, "1h")?,
            data_key_lifetime: data_key_lifetime(self.data_key_lifetime)?,
            audit_checkpoint_interval: duration(
                "audit_checkpoint_interval",
                self.audit_checkpoint_interval,
                "1s",
            )?,
            audit_key_lifetime: duration("audit_key_lifetime", self.audit_key_lifetime, "90d")?,
            max_connections,
            max_streams: within("max_streams", self.max_streams.unwrap_or(256), 100_000)?,
            limits: self.limits.unwrap_or_default().check(max_connections)?,
            policies: self.policies,
            vault: self.vault.map(RawVaultConfig::check).transpose()?,
            pkcs11: self.pkcs11.map(RawPkcs11Config::check).transpose()?,
        })
    }
}

/// The one duration that may be nothing, and that is never long.
fn data_key_lifetime(given: Option<String>) -> Result<Duration, InvalidConfig> {
    let lifetime = parsed("data_key_lifetime", given.unwrap_or_else(|| "5m".to_owned()))?;
    if lifetime > DAY {
        return Err(InvalidConfig::OutOfRange { setting: "data_key_lifetime", range: "0s to 24h" });
    }
    Ok(lifetime)
}

fn parsed(setting: &'static str, given: String) -> Result<Duration, InvalidConfig> {
    humantime::parse_duration(&given).map_err(|source| InvalidConfig::Duration { setting, given, source })
}

fn duration(
    setting: &'static str,
    given: Option<String>,
    default: &'static str,
) -> Result<Duration, InvalidConfig> {
    let duration = parsed(setting, given.unwrap_or_else(|| default.to_owned()))?;
    // A certificate's times are whole seconds; the other limits are never useful below some
    // milliseconds, and tests need short ones.
    let least = if setting.ends_with("_certificate_lifetime") { Duration::from_secs(1) } else { MILLISECOND };
    if duration < least || duration > YEAR {
        let range = if least == MILLISECOND { "1ms to 365d" } else { "1s to 365d" };
        return Err(InvalidConfig::OutOfRange { setting, range });
    }
    Ok(duration)
}

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = DAY.saturating_mul(365);

fn within<N: PartialOrd + From<u8>>(setting: &'static str, given: N, most: N) -> Result<N, InvalidConfig> {
    if given < N::from(1) || given > most {
        return Err(InvalidConfig::OutOfRange { setting, range: "at least 1 and within reason" });
    }
    Ok(given)
}

/// A file name in the directory of the service's credentials, and no way out of it.
fn credential(given: Option<String>) -> Result<String, InvalidConfig> {
    let name = given.unwrap_or_else(|| "secretfs-unlock-key".to_owned());
    match name.is_empty() || name.starts_with('.') || name.contains('/') {
        true => Err(InvalidConfig::Credential(name)),
        false => Ok(name),
    }
}

/// What is configured comes first, since the default URL takes the first name.
fn names(given: Option<Vec<String>>) -> Result<Vec<String>, InvalidConfig> {
    let mut names = given.unwrap_or_else(|| host_name().into_iter().collect());
    for name in &names {
        rustls_pki_types::ServerName::try_from(name.as_str())
            .map_err(|_| InvalidConfig::Name(name.clone()))?;
    }
    for always in LOOPBACK_NAMES {
        if !names.iter().any(|name| name == always) {
            names.push(always.to_owned());
        }
    }
    Ok(names)
}

/// The kernel's name of this host, when it is one that a certificate can hold.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    rustls_pki_types::ServerName::try_from(name).ok().map(|_| name.to_owned())
}

fn url(given: Option<String>, names: &[String], port: u16) -> Result<Url, InvalidConfig> {
    let given = given.unwrap_or_else(|| match names.first().map(|name| (name, name.parse::<IpAddr>())) {
        Some((_, Ok(IpAddr::V6(address)))) => format!("https://[{address}]:{port}"),
        Some((name, _)) => format!("https://{name}:{port}"),
        None => format!("https://[{}]:{port}", Ipv6Addr::LOCALHOST),
    });
    Url::parse(&given)
        .ok()
        .filter(|url| url.scheme() == "https" && url.has_host())
        .ok_or(InvalidConfig::Url(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let layer = |listen: Option<&str>, url: Option<&str>, heartbeat: Option<&str>| RawConfig {
            listen: listen.map(|text| text.parse().expect("an address")),
            url: url.map(str::to_owned),
            heartbeat_interval: heartbeat.map(str::to_owned),
            ..RawConfig::default()
        };
        let flags = layer(Some("127.0.0.1:1"), None, None);
        let environment = layer(Some("127.0.0.1:2"), Some("https://two:2"), None);
        let file = layer(Some("127.0.0.1:3"), Some("https://three:3"), Some("3s"));
        let config = flags.or(environment).or(file).check().expect("a configuration");
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.url.as_str(), "https://two:2/");
        assert_eq!(config.heartbeat_interval, Duration::from_secs(3));
        assert_eq!(config.request_timeout, Duration::from_secs(30), "the default");
    }

    #[test]
    fn the_certificate_always_holds_for_this_host() {
        let names = Some(vec!["manager.example".to_owned()]);
        let config = RawConfig { names, ..RawConfig::default() }.check().expect("a configuration");
        assert_eq!(config.names, ["manager.example", "localhost", "127.0.0.1", "::1"]);
        assert_eq!(config.url.as_str(), "https://manager.example:7443/");
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (toml, problem) in [
            ("listens = '0.0.0.0:1'", "cannot be read"),
            ("request_timeout = 'soon'", "request_timeout"),
            ("node_certificate_lifetime = '10ms'", "node_certificate_lifetime must be 1s"),
            ("operator_certificate_lifetime = '400d'", "operator_certificate_lifetime must be 1s to 365d"),
            ("data_key_lifetime = '25h'", "data_key_lifetime must be 0s"),
            ("max_connections = 0", "max_connections"),
            ("names = ['a b']", "names"),
            ("url = 'http://plain:80'", "url"),
            ("unlock_credential = '../key'", "unlock_credential"),
        ] {
            let error = RawConfig::from_toml(toml).and_then(RawConfig::check).expect_err(toml).to_string();
            assert!(error.contains(problem), "{toml}: {error}");
        }
    }
}
