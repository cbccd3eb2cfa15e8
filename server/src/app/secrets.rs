use secretfs_wire::api::{Rollback, Rotated, Secret, SecretDetails};
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
        let details = self.store.secret(environment, name).await?;
        let usage = self.usage_of(environment, &details).await?;
        Ok(SecretDetails { usage, ..details })
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
    ///
    /// The value that is current is not looked at: an answer that depended on it, or took another time,
    /// would tell whoever may rotate whether they have guessed it.
    pub(crate) async fn rotate_secret(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
        value: NewValue,
    ) -> Result<Rotated, Error> {
        let history = self.store.secret(environment, name).await?.history;
        let newest = history.first().map_or(0, |version| version.version);
        let version = self.seal(environment, name, newest + 1, value).await?;
        let secret = self.store.add_version(environment, name, version).await?;
        self.changes.announce(environment);
        Ok(Rotated { secret, has_changed: true })
    }

    pub(crate) async fn roll_back_secret(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
        asked: Rollback,
    ) -> Result<Rotated, Error> {
        let (secret, has_changed) = self.store.make_current(environment, name, asked.to, now()).await?;
        if has_changed {
            self.changes.announce(environment);
        }
        Ok(Rotated { secret, has_changed })
    }

    pub(crate) async fn remove_secret(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
    ) -> Result<(), Error> {
        // No stream is told: what is removed was attached nowhere.
        self.store.remove_secret(environment, name).await?;
        self.usage.forget_secret(environment, name);
        Ok(())
    }

    async fn seal(
        &self,
        environment: &EnvironmentName,
        secret: &SecretName,
        number: u64,
        value: NewValue,
    ) -> Result<NewVersion, Error> {
        let key = self.store.environment(environment).await?.key;
        let value = match value {
            NewValue::Given(value) => value,
            NewValue::Generated(length) => generate(length)?,
        };
        let context = VersionContext { environment, secret, number };
        let sealed = keys::seal(&self.keys, &key, context, &value).await?;
        let size = value.len() as u64;
        Ok(NewVersion { id: VersionId::random(), number, size, created: now(), sealed })
    }
}
