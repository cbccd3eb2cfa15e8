//! `[manager.vault]`: where the Transit engine of a HashiCorp Vault or OpenBao is, and how the manager
//! logs in there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use url::{Host, Url};

use super::InvalidConfig;

const DEFAULT_TOKEN_VARIABLE: &str = "VAULT_TOKEN";
const DEFAULT_TIMEOUT: &str = "5s";
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);
/// Below it the manager's own deadlines and those of its nodes have their say.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The settings of `[manager.vault]` as the file gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawVaultConfig {
    /// Its URL: `https`, or `http` to this host.
    pub url: Option<String>,
    /// The authority that its certificate is of, PEM. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// Its namespace. Default: the root namespace.
    pub namespace: Option<String>,
    /// Where the Transit engine is mounted. Default: `transit`.
    pub mount: Option<String>,
    /// How long one operation may take, its retries included. Default: `5s`.
    pub timeout: Option<String>,
    /// The environment variable that has the token. Default: `VAULT_TOKEN`, if there is no other
    /// way to log in.
    pub token_env: Option<String>,
    /// A file that has the token, and is read again when Vault refuses the one it had.
    pub token_file: Option<PathBuf>,
    /// Logging in as an AppRole.
    pub approle: Option<RawAppRoleConfig>,
}

/// The settings of `[manager.vault.approle]` as the file gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAppRoleConfig {
    /// Where the AppRole method is mounted, below `auth/`. Default: `approle`.
    pub mount: Option<String>,
    /// The role's id.
    pub role_id: Option<String>,
    /// A file that has a secret id, and is read at each login.
    pub secret_id_file: Option<PathBuf>,
}

/// Checked settings of `[manager.vault]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultConfig {
    /// Its URL, which has no path.
    pub url: Url,
    /// The authority that its certificate is of; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// Its namespace, without slashes around it.
    pub namespace: Option<String>,
    /// Where the Transit engine is mounted, without slashes around it.
    pub mount: String,
    /// How long one operation may take, its retries included.
    pub timeout: Duration,
    /// Where the token comes from.
    pub login: VaultLogin,
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultLogin {
    /// The environment variable of this name.
    Variable(String),
    /// This file.
    File(PathBuf),
    /// A login as an AppRole.
    AppRole {
        /// Where the method is mounted, below `auth/`.
        mount: String,
        /// The role's id.
        role_id: String,
        /// The file that has a secret id.
        secret_id_file: PathBuf,
    },
}

impl RawVaultConfig {
    /// The same with relative paths taken from `directory`.
    #[must_use]
    pub fn relative_to(self, directory: &Path) -> Self {
        let resolve = |path: Option<PathBuf>| path.map(|path| directory.join(path));
        Self {
            ca: resolve(self.ca),
            token_file: resolve(self.token_file),
            approle: self.approle.map(|approle| RawAppRoleConfig {
                secret_id_file: resolve(approle.secret_id_file),
                ..approle
            }),
            ..self
        }
    }

    pub(super) fn check(self) -> Result<VaultConfig, InvalidConfig> {
        let timeout = super::parsed("vault.timeout", self.timeout.unwrap_or_else(|| DEFAULT_TIMEOUT.into()))?;
        if !(SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&timeout) {
            return Err(InvalidConfig::OutOfRange { setting: "vault.timeout", range: "100ms to 60s" });
        }
        Ok(VaultConfig {
            url: url(self.url)?,
            ca: self.ca,
            namespace: self.namespace.map(|given| mount_path("vault.namespace", &given)).transpose()?,
            mount: mount_path("vault.mount", self.mount.as_deref().unwrap_or("transit"))?,
            timeout,
            login: login(self.token_env, self.token_file, self.approle)?,
        })
    }
}

fn login(
    variable: Option<String>,
    file: Option<PathBuf>,
    approle: Option<RawAppRoleConfig>,
) -> Result<VaultLogin, InvalidConfig> {
    match (variable, file, approle) {
        (None, None, None) => Ok(VaultLogin::Variable(DEFAULT_TOKEN_VARIABLE.to_owned())),
        (Some(name), None, None) if name.is_empty() || name.contains(['=', '\0']) => {
            Err(refused("vault.token_env", "must be the name of an environment variable"))
        }
        (Some(name), None, None) => Ok(VaultLogin::Variable(name)),
        (None, Some(file), None) => Ok(VaultLogin::File(file)),
        (None, None, Some(approle)) => {
            let given = approle.role_id.filter(|id| !id.is_empty());
            let role_id = given.ok_or_else(|| refused("vault.approle.role_id", "is missing"))?;
            let given = approle.secret_id_file;
            let secret_id_file =
                given.ok_or_else(|| refused("vault.approle.secret_id_file", "is missing"))?;
            let mount = approle.mount.as_deref().unwrap_or("approle");
            Ok(VaultLogin::AppRole {
                mount: mount_path("vault.approle.mount", mount)?,
                role_id,
                secret_id_file,
            })
        }
        _ => Err(refused("vault", "takes one of token_env, token_file and approle")),
    }
}

fn refused(setting: &'static str, problem: &'static str) -> InvalidConfig {
    InvalidConfig::Vault { setting, problem }
}

/// A token is never sent in clear over a network.
fn url(given: Option<String>) -> Result<Url, InvalidConfig> {
    let given = given.ok_or_else(|| refused("vault.url", "is missing"))?;
    let url = Url::parse(&given)
        .ok()
        .filter(|url| {
            url.has_host() && url.path() == "/" && url.query().is_none() && url.fragment().is_none()
        })
        .filter(|url| url.username().is_empty() && url.password().is_none())
        .ok_or_else(|| refused("vault.url", "must be of the form https://HOST:PORT"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_this_host(&url) => Ok(url),
        "http" => Err(refused("vault.url", "must be https, since http is for Vault on this host only")),
        _ => Err(refused("vault.url", "must be of the form https://HOST:PORT")),
    }
}

fn is_this_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// A path of Vault's, which becomes a part of URLs and of what operators are told to run.
fn mount_path(setting: &'static str, given: &str) -> Result<String, InvalidConfig> {
    let path = given.trim_matches('/');
    let is_plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !matches!(part, "." | "..") && part.chars().all(allowed)
    };
    if !path.split('/').all(is_plain) {
        return Err(refused(setting, "must be a path of letters, digits, '-', '_' and '.'"));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, RawConfig};
    use super::*;

    fn check(vault: &str) -> Result<Config, InvalidConfig> {
        RawConfig::from_toml(&format!("[vault]\n{vault}")).and_then(RawConfig::check)
    }

    fn vault(text: &str) -> VaultConfig {
        check(text).expect(text).vault.expect("a section")
    }

    #[test]
    fn a_url_is_enough() {
        let config = vault("url = 'https://vault.example:8200'");
        assert_eq!(config.url.as_str(), "https://vault.example:8200/");
        assert_eq!((config.mount.as_str(), config.namespace), ("transit", None));
        assert_eq!(config.timeout, Duration::from_secs(5));
        assert_eq!(config.login, VaultLogin::Variable("VAULT_TOKEN".to_owned()));
        assert!(RawConfig::default().check().expect("without Vault").vault.is_none());
    }

    #[test]
    fn cleartext_is_for_this_host_only() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            vault(&format!("url = 'http://{host}:8200'"));
        }
        for host in ["vault.example", "10.0.0.1", "[::2]", "localhost.example"] {
            let error = check(&format!("url = 'http://{host}:8200'")).expect_err(host).to_string();
            assert!(error.contains("vault.url must be https"), "{error}");
        }
    }

    #[test]
    fn paths_are_taken_from_where_the_file_is() {
        let raw = RawConfig::from_toml(
            "[vault]\nurl = 'https://v'\nca = 'ca.pem'\n\
             approle = { role_id = 'r', secret_id_file = '/run/id' }",
        );
        let raw = raw.expect("settings").relative_to(Path::new("/etc/secretfs"));
        let config = raw.check().expect("checked").vault.expect("a section");
        assert_eq!(config.ca.as_deref(), Some(Path::new("/etc/secretfs/ca.pem")));
        let VaultLogin::AppRole { mount, secret_id_file, .. } = config.login else { panic!("an AppRole") };
        assert_eq!((mount.as_str(), secret_id_file), ("approle", PathBuf::from("/run/id")));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let url = "url = 'https://vault.example'\n";
        for (toml, problem) in [
            ("", "vault.url is missing"),
            ("url = 'ftp://vault'", "vault.url must be of the form"),
            ("url = 'https://vault/v1'", "vault.url must be of the form"),
            ("url = 'https://me:canary@vault'", "vault.url must be of the form"),
            (&format!("{url}mount = 'a/../b'"), "vault.mount must be a path"),
            (&format!("{url}namespace = ''"), "vault.namespace must be a path"),
            (&format!("{url}timeout = '2h'"), "vault.timeout must be 100ms"),
            (&format!("{url}timeout = 'soon'"), "vault.timeout"),
            (&format!("{url}token_env = ''"), "vault.token_env"),
            (&format!("{url}token_env = 'A'\ntoken_file = 'b'"), "takes one of"),
            (&format!("{url}approle = {{ role_id = 'r' }}"), "vault.approle.secret_id_file is missing"),
            (&format!("{url}approle = {{ secret_id_file = 'r' }}"), "vault.approle.role_id is missing"),
            (&format!("{url}token = 'canary'"), "cannot be read"),
        ] {
            let error = check(toml).expect_err(toml).to_string();
            assert!(error.contains(problem), "{toml}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
