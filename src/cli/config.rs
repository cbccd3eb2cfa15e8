//! The configuration file: one TOML format with a section for each role that a host may have.

use std::fs;
use std::path::{Path, PathBuf};

use secretfs_wire::EnvironmentName;
use serde::Deserialize;
use url::Url;

use super::error::Failure;
use crate::node;

/// A configuration file. Unknown keys are refused by name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConfigFile {
    /// How an operator reaches the manager.
    pub(super) operator: OperatorSection,
    /// How the node daemon is set up.
    pub(super) node: node::RawConfig,
    /// How the manager is set up.
    #[cfg(feature = "manager")]
    pub(super) manager: secretfs_server::RawConfig,
    #[cfg(not(feature = "manager"))]
    #[serde(rename = "manager")]
    _manager: toml::Table,
    /// Where relative paths begin.
    #[serde(skip)]
    directory: PathBuf,
}

/// How an operator reaches the manager. Paths are relative to the file's directory.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OperatorSection {
    /// The manager's URL.
    pub(super) manager: Option<Url>,
    /// The environment to work in.
    pub(super) environment: Option<EnvironmentName>,
    /// The manager's CA bundle, PEM.
    pub(super) ca: Option<PathBuf>,
    /// The operator's certificate and its private key, PEM.
    pub(super) certificate: Option<PathBuf>,
    /// The private key, PEM, where it is not in the same file.
    pub(super) key: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads `given`, or else the user's or the system's file if there is one.
    pub(super) fn load(given: Option<&Path>) -> Result<Self, Failure> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => match default_paths().into_iter().find(|path| path.exists()) {
                Some(path) => path,
                None => return Ok(Self::default()),
            },
        };
        let text = fs::read_to_string(&path).map_err(|error| {
            Failure::usage(format!("cannot read the configuration {}: {error}", path.display()))
        })?;
        let mut file: Self = toml::from_str(&text).map_err(|error| {
            let line =
                error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Failure::usage(format!("{}:{line}: {}", path.display(), error.message()))
        })?;
        file.directory = path.parent().map(Path::to_owned).unwrap_or_default();
        #[cfg(feature = "manager")]
        {
            file.manager = file.manager.relative_to(&file.directory);
        }
        Ok(file)
    }

    /// A path of this file, from where the file is.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }
}

/// Where an operator's configuration is kept.
pub(super) fn user_directory() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(base.join("secretfs"))
}

fn default_paths() -> Vec<PathBuf> {
    let system = PathBuf::from("/etc/secretfs");
    user_directory().into_iter().chain([system]).map(|directory| directory.join("config.toml")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<ConfigFile, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        ConfigFile::load(Some(file.path())).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_and_line() {
        for (text, key) in [
            ("[operator]\nmanger = \"x\"", "manger"),
            ("[node]\nmax_stall = \"1h\"", "max_stall"),
            ("[[node.mount]]\npath = \"/a\"\nservices = \"b\"", "services"),
            ("[operater]\n", "operater"),
        ] {
            let error = load(text).err().unwrap_or_else(|| panic!("{text} was accepted"));
            assert!(error.contains(key), "{error}");
        }
        assert!(load("[operator]\n\nmanger = \"x\"").err().unwrap().contains(":3: "));
    }

    #[test]
    fn paths_begin_where_the_file_is() {
        let file = ConfigFile { directory: PathBuf::from("/etc/secretfs"), ..ConfigFile::default() };
        assert_eq!(file.resolve(Path::new("ca.pem")), Path::new("/etc/secretfs/ca.pem"));
        assert_eq!(file.resolve(Path::new("/elsewhere/ca.pem")), Path::new("/elsewhere/ca.pem"));
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        assert!(ConfigFile::load(Some(Path::new("/nonexistent/config.toml"))).is_err());
    }
}
