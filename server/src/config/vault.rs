use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use url::{Host, Url};

use super::{InvalidConfig, duration};

/// How the Transit engine of HashiCorp Vault or OpenBao is reached, as the file gives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawVaultConfig {
    /// Its URL: `https://vault.example:8200`. `http` is for this machine only.
    pub url: String,
    /// The CA that its certificate is checked by, PEM. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// The namespace that everything is in. Default: the root namespace.
    pub namespace: Option<String>,
    /// Where the Transit engine is mounted. Default: `transit`.
    pub mount: Option<String>,
    /// How long one operation may take, all attempts together. Default: `5s`.
    pub timeout: Option<String>,
    /// The environment variable with the token. Default, when there is no other login: `VAULT_TOKEN`.
    pub token_env: Option<String>,
    /// The file with the token, which is read again when the token is no longer good.
    pub token_file: Option<PathBuf>,
    /// The AppRole to log in with.
    pub approle: Option<RawAppRoleConfig>,
}

/// An AppRole, as the file gives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAppRoleConfig {
    /// Where the AppRole method is mounted. Default: `approle`.
    pub mount: Option<String>,
    /// The role's id.
    pub role_id: String,
    /// The file with a secret id of the role, which is read at each login.
    pub secret_id_file: PathBuf,
}

/// How the Transit engine is reached.
#[derive(Debug, Clone)]
pub struct VaultConfig {
    pub(crate) url: Url,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) namespace: Option<String>,
    pub(crate) mount: String,
    pub(crate) timeout: Duration,
    pub(crate) login: VaultLogin,
}

/// Where the token comes from.
#[derive(Debug, Clone)]
pub(crate) enum VaultLogin {
    Environment(String),
    File(PathBuf),
    AppRole { mount: String, role_id: String, secret_id_file: PathBuf },
}

impl RawVaultConfig {
    pub(super) fn check(self) -> Result<VaultConfig, InvalidConfig> {
        let url = Url::parse(&self.url).ok().filter(|url| url.scheme() == "https" || is_local(url));
        let url = url.filter(Url::has_host).ok_or(InvalidConfig::VaultUrl(self.url))?;
        let login = match (self.token_env, self.token_file, self.approle) {
            (variable, None, None) => {
                VaultLogin::Environment(variable.unwrap_or_else(|| "VAULT_TOKEN".to_owned()))
            }
            (None, Some(file), None) => VaultLogin::File(file),
            (None, None, Some(RawAppRoleConfig { mount, role_id, secret_id_file })) => VaultLogin::AppRole {
                mount: path("vault.approle.mount", mount, "approle")?,
                role_id,
                secret_id_file,
            },
            _ => return Err(InvalidConfig::VaultLogin),
        };
        Ok(VaultConfig {
            url,
            ca: self.ca,
            namespace: self.namespace,
            mount: path("vault.mount", self.mount, "transit")?,
            timeout: duration("vault.timeout", self.timeout, "5s")?,
            login,
        })
    }
}

/// Whether cleartext to it stays on this machine.
fn is_local(url: &Url) -> bool {
    url.scheme() == "http"
        && match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        }
}

/// A mount path, whose segments go into a URL.
fn path(setting: &'static str, given: Option<String>, default: &str) -> Result<String, InvalidConfig> {
    let given = given.unwrap_or_else(|| default.to_owned());
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let trimmed = given.trim_matches('/');
    if trimmed.split('/').all(is_segment) {
        return Ok(trimmed.to_owned());
    }
    Err(InvalidConfig::Path { setting, given })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn check(text: &str) -> Result<VaultConfig, InvalidConfig> {
        let config = RawConfig::from_toml(&format!("[vault]\n{text}")).and_then(RawConfig::check)?;
        Ok(config.vault.expect("a section"))
    }

    #[test]
    fn a_token_comes_from_one_place() {
        let config = check("url = 'https://vault.example:8200'\nmount = '/team/transit/'").expect("good");
        assert!(matches!(&config.login, VaultLogin::Environment(name) if name == "VAULT_TOKEN"));
        assert_eq!((config.mount.as_str(), config.timeout), ("team/transit", Duration::from_secs(5)));
        let app_role = "[vault.approle]\nrole_id = 'r'\nsecret_id_file = '/s'";
        let config = check(&format!("url = 'https://v:1'\n{app_role}")).expect("good");
        assert!(matches!(&config.login, VaultLogin::AppRole { mount, .. } if mount == "approle"));
        assert!(matches!(
            check(&format!("url = 'https://v:1'\ntoken_file = '/t'\n{app_role}")),
            Err(InvalidConfig::VaultLogin)
        ));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (text, problem) in [
            ("url = 'http://vault.example:8200'", "vault.url"),
            ("url = 'vault.example'", "vault.url"),
            ("url = 'https://v:1'\nmount = 'a/../b'", "vault.mount"),
            ("url = 'https://v:1'\nmount = 'a?b'", "vault.mount"),
            ("url = 'https://v:1'\ntoken = 'no'", "cannot be read"),
        ] {
            let error = check(text).expect_err(text).to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        check("url = 'http://127.0.0.1:8200'").expect("on this machine");
    }
}
