//! The section `[manager.pkcs11]`: an HSM that holds keys.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::InvalidConfig;

/// How an HSM is reached, as the file's section gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPkcs11Config {
    /// The HSM vendor's PKCS #11 library, an absolute path.
    pub module: Option<PathBuf>,
    /// The token's label; this or `slot`.
    pub token: Option<String>,
    /// The number of the slot that the token is in; this or `token`.
    pub slot: Option<u64>,
    /// A file with the user's PIN; this or `pin_env`.
    pub pin_file: Option<PathBuf>,
    /// The environment variable that has the user's PIN; this or `pin_file`.
    pub pin_env: Option<String>,
}

/// How an HSM is reached, checked.
#[derive(Debug, Clone)]
pub struct Pkcs11Config {
    /// The HSM vendor's PKCS #11 library.
    pub module: PathBuf,
    /// Which of its tokens.
    pub token: TokenChoice,
    /// Where the user's PIN is.
    pub pin: PinSource,
}

/// Which token of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenChoice {
    /// The one that has this label.
    Label(String),
    /// The one in this slot.
    Slot(u64),
}

/// Where a PIN is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// A file that holds it.
    File(PathBuf),
    /// An environment variable that holds it.
    Variable(String),
}

impl RawPkcs11Config {
    /// The same with a relative path of the PIN's file taken from `directory`.
    #[must_use]
    pub fn relative_to(self, directory: &Path) -> Self {
        Self { pin_file: self.pin_file.map(|file| directory.join(file)), ..self }
    }

    pub(super) fn check(self) -> Result<Pkcs11Config, InvalidConfig> {
        let module = self.module.ok_or_else(|| invalid("module is missing, the HSM's PKCS #11 library"))?;
        // A bare name would be looked for wherever LD_LIBRARY_PATH says.
        if !module.is_absolute() {
            return Err(invalid("module is an absolute path"));
        }
        let token = match (self.token, self.slot) {
            (Some(label), None) if (1..=32).contains(&label.len()) => TokenChoice::Label(label),
            (Some(_), None) => return Err(invalid("token is a label of 1 to 32 bytes")),
            (None, Some(slot)) => TokenChoice::Slot(slot),
            _ => return Err(invalid("give either token, a label, or slot, a number")),
        };
        let pin = match (self.pin_file, self.pin_env) {
            (Some(file), None) => PinSource::File(file),
            (None, Some(variable)) if !variable.is_empty() => PinSource::Variable(variable),
            _ => return Err(invalid("give either pin_file or pin_env")),
        };
        Ok(Pkcs11Config { module, token, pin })
    }
}

fn invalid(problem: &'static str) -> InvalidConfig {
    InvalidConfig::Pkcs11(problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn check(section: &str) -> Result<Option<Pkcs11Config>, InvalidConfig> {
        RawConfig::from_toml(section)?.check().map(|config| config.pkcs11)
    }

    #[test]
    fn a_section_says_which_token_and_where_the_pin_is() {
        let config = check("[pkcs11]\nmodule = '/m.so'\ntoken = 'prod'\npin_file = '/pin'");
        let config = config.expect("a configuration").expect("the section");
        assert_eq!(config.token, TokenChoice::Label("prod".to_owned()));
        assert_eq!(config.pin, PinSource::File("/pin".into()));
        let config = check("[pkcs11]\nmodule = '/m.so'\nslot = 7\npin_env = 'PIN'");
        let config = config.expect("a configuration").expect("the section");
        assert_eq!(config.token, TokenChoice::Slot(7));
        assert_eq!(config.pin, PinSource::Variable("PIN".to_owned()));
        assert!(check("").expect("a configuration").is_none());
        let raw = RawConfig::from_toml("[pkcs11]\nmodule = '/m.so'\nslot = 7\npin_file = 'pin'");
        let raw = raw.expect("settings").relative_to(Path::new("/etc/secretfs"));
        let config = raw.check().expect("a configuration").pkcs11.expect("the section");
        assert_eq!(config.pin, PinSource::File("/etc/secretfs/pin".into()));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (section, problem) in [
            ("token = 'a'\npin_file = '/p'", "module"),
            ("module = 'm.so'\ntoken = 'a'\npin_file = '/p'", "module"),
            ("module = '/m.so'\npin_file = '/p'", "token"),
            ("module = '/m.so'\ntoken = 'a'\nslot = 1\npin_file = '/p'", "token"),
            ("module = '/m.so'\ntoken = ''\npin_file = '/p'", "token"),
            ("module = '/m.so'\ntoken = 'a'", "pin_file"),
            ("module = '/m.so'\ntoken = 'a'\npin_file = '/p'\npin_env = 'P'", "pin_file"),
            ("module = '/m.so'\ntoken = 'a'\npin = '1234'", "cannot be read"),
        ] {
            let error = check(&format!("[pkcs11]\n{section}")).expect_err(section).to_string();
            assert!(error.contains(problem), "{section}: {error}");
            assert!(!error.contains("1234"), "{error}");
        }
    }
}
