use secretfs_wire::api::{CreateEnvironment, Environment};
use secretfs_wire::{EnvironmentName, KeyBackendKind, KeyName, KeyReference};

use super::{App, now};
use crate::error::Error;

impl App {
    pub(crate) async fn environments(&self) -> Result<Vec<Environment>, Error> {
        Ok(self.store.environments().await?)
    }

    /// The key comes first: an environment without its key is of no use, but a key without its
    /// environment does no harm, and is taken up when the environment is created after all.
    pub(crate) async fn create_environment(&self, asked: CreateEnvironment) -> Result<Environment, Error> {
        let key = KeyReference {
            backend: asked.key_backend.unwrap_or(KeyBackendKind::Local),
            name: asked.key_name.unwrap_or_else(|| KeyName::from(asked.name.clone())),
        };
        self.keys.ensure(&key).await?;
        let environment = Environment { name: asked.name, key, created: now() };
        self.store.create_environment(&environment).await?;
        Ok(environment)
    }

    /// Its key stays: backups may still need it.
    pub(crate) async fn remove_environment(&self, name: &EnvironmentName) -> Result<(), Error> {
        Ok(self.store.remove_environment(name).await?)
    }
}
