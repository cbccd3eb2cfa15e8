//! From flags, environment and configuration file to an operator's connection.

use std::fs;
use std::path::{Path, PathBuf};

use secretfs_wire::EnvironmentName;
use url::Url;
use zeroize::Zeroizing;

use super::Global;
use super::config::ConfigFile;
use super::error::Failure;
use crate::client::{Credentials, EnvironmentClient, OperatorClient};

/// An operator's connection, and the environment to work in if one was named.
pub(super) struct Operator {
    /// The connection.
    pub(super) client: OperatorClient,
    environment: Option<EnvironmentName>,
}

impl Operator {
    /// Reads the operator's credentials. Connects with the first call.
    pub(super) fn new(global: &Global, file: &ConfigFile) -> Result<Self, Failure> {
        let section = &file.operator;
        let manager = global.manager.clone().or_else(|| section.manager.clone()).ok_or_else(|| {
            Failure::usage("no manager is configured").hint("add --manager URL, or set SECRETFS_CONFIG to the file that `secretfs manager init` or `secretfs dev` named")
        })?;
        let credentials = Credentials {
            ca: read(file, section.ca.as_deref(), "ca")?,
            certificate: read(file, section.certificate.as_deref(), "certificate")?,
            key: Zeroizing::new(read(file, section.key.as_deref(), "key")?),
        };
        let client = OperatorClient::new(manager, &credentials)?;
        let environment = global.environment.clone().or_else(|| section.environment.clone());
        Ok(Self { client, environment })
    }

    /// The environment that was named, if one was.
    pub(super) fn environment_name(&self) -> Option<&EnvironmentName> {
        self.environment.as_ref()
    }

    /// The calls inside the environment that was named.
    pub(super) fn environment(&self) -> Result<EnvironmentClient<'_>, Failure> {
        match &self.environment {
            Some(name) => Ok(self.client.environment(name)),
            None => Err(Failure::usage("no environment is named")
                .hint("add -e ENV, set SECRETFS_ENV, or write `environment` into the configuration")),
        }
    }
}

fn read(file: &ConfigFile, path: Option<&Path>, key: &str) -> Result<String, Failure> {
    let path: PathBuf = path.map(|path| file.resolve(path)).ok_or_else(|| {
        Failure::usage(format!("operator.{key} is not configured"))
            .hint("set SECRETFS_CONFIG to the file that `secretfs manager init` or `secretfs dev` named")
    })?;
    fs::read_to_string(&path)
        .map_err(|error| Failure::failed(format!("cannot read operator.{key} {}: {error}", path.display())))
}

/// A URL for messages: without the slash that the `url` crate adds.
pub(super) fn show(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}
