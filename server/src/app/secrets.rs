use secretfs_wire::api::{Rollback, Secret, SecretDetails};
use secretfs_wire::{EnvironmentName, Labels, SecretBytes, SecretName, VersionId};

use super::generate::{Length, generate};
use super::{App, now};
use crate::error::Error;
use crate::keys::{self, VersionContext};
use crate::store::{NewSecret, NewVersion};

/// Where a new version's value comes from.
pub(crate) enum NewValue {
    Given(SecretBytes),
    Generated(Length),
}

impl App {
    pub(crate) async fn secrets(&self, environment: &EnvironmentName) -> Result<Vec<Secret>, Error> {
        Ok(self.store.secrets(environment).await?)
    }

    pub(crate) async fn secret(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
    ) -> Result<SecretDetails, Error> {
        Ok(self.store.secret(environment, name).await?)
    }

    pub(crate) async fn create_secret(
        &self,
        environment: &EnvironmentName,
        name: SecretName,
        labels: Labels,
        value: NewValue,
    ) -> Result<Secret, Error> {
        let version = self.seal(environment, &name, 1, value).await?;
        let secret = self.store.create_secret(environment, NewSecret { name, labels, version }).await?;
        self.changes.announce(environment);
        Ok(secret)
    }

    /// The number is part of what the value is sealed for, so it is read before and checked when the
    /// version is added. Of two rotations at once, one is refused.
    pub(crate) async fn rotate_secret(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
        value: NewValue,
    ) -> Result<Secret, Error> {
        let history = self.store.secret(environment, name).await?.history;
        let newest = history.first().map_or(0, |version| version.version);
        let version = self.seal(environment, name, newest + 1, value).await?;
        let secret = self.store.add_version(environment, name, version).await?;
        self.changes.announce(environment);
        Ok(secret)
    }

    pub(crate) async fn roll_back_secret(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
        asked: Rollback,
    ) -> Result<Secret, Error> {
        let secret = self.store.make_current(environment, name, asked.to, now()).await?;
        self.changes.announce(environment);
        Ok(secret)
    }

    pub(crate) async fn remove_secret(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
    ) -> Result<(), Error> {
        // No stream is told: what is removed was attached nowhere.
        Ok(self.store.remove_secret(environment, name).await?)
    }

    async fn seal(
        &self,
        environment: &EnvironmentName,
        secret: &SecretName,
        number: u64,
        value: NewValue,
    ) -> Result<NewVersion, Error> {
        let key_name = self.store.environment(environment).await?.key_name;
        let value = match value {
            NewValue::Given(value) => value,
            NewValue::Generated(length) => generate(length)?,
        };
        let context = VersionContext { environment, secret, number };
        let sealed = keys::seal(self.keys.as_ref(), &key_name, context, &value).await?;
        let size = value.len() as u64;
        Ok(NewVersion { id: VersionId::random(), number, size, created: now(), sealed })
    }
}
