//! Keys: which there are, new versions of them, and moving data keys from one to another.
//!
//! Each stored data key names the key that unwraps it. So to rotate, to rewrap and to migrate are the
//! same two steps: what wraps new data keys is changed first, and then the old ones are moved, some at
//! a time and each by itself. Between any two steps everything can be read, and whoever is stopped in
//! the middle goes on from there.

use std::collections::BTreeSet;

use secretfs_wire::api::{
    Environment, EnvironmentKeys, KeyVersion, MigrateKey, REWRAP_MAX_DATA_KEYS, RefusedVersion, RetiredKey,
    RewrapStep, Rewrapped, RotatedKey,
};
use secretfs_wire::{EnvironmentName, KeyName, KeyReference, SecretBytes};

use super::App;
use crate::error::Error;
use crate::keys::{Context, Key, KeyDescription, KeyError, VersionContext};
use crate::store::{KeyRecord, KeyUse, OutdatedKey, Rewrap};

/// Below this are all versions of a key.
const ALL: u64 = i64::MAX as u64;

impl App {
    /// The keys of all environments, by environment.
    pub(crate) async fn keys(&self) -> Result<Vec<EnvironmentKeys>, Error> {
        let (records, uses) = (self.store.keys().await?, self.store.key_uses().await?);
        let mut listed = Vec::new();
        for environment in self.store.environments().await? {
            listed.push(self.environment_keys(environment, &records, &uses).await);
        }
        Ok(listed)
    }

    async fn environment_keys(
        &self,
        environment: Environment,
        records: &[KeyRecord],
        uses: &[KeyUse],
    ) -> EnvironmentKeys {
        let Environment { name, key, .. } = environment;
        let (mut newest, mut problem, mut versions) = (None, None, Vec::new());
        for record in records.iter().filter(|record| record.environment == name) {
            let used = |version| {
                let of_it = uses.iter().find(|used| used.key == record.key && used.version == version);
                of_it.map_or(0, |used| used.data_keys)
            };
            let mut known = BTreeSet::new();
            match self.keys.describe(&record.key).await {
                Ok(described) => {
                    if record.key == key {
                        newest = Some(described.newest);
                    }
                    for version in described.versions.iter().filter(|version| version.version >= record.floor)
                    {
                        known.insert(version.version);
                        versions.push(KeyVersion {
                            key: record.key.clone(),
                            version: version.version,
                            created: version.created,
                            data_keys: used(version.version),
                        });
                    }
                }
                Err(error) => problem = Some(error.to_string()),
            }
            // What a backend does not tell of is known by what is wrapped under it.
            let others = uses.iter().filter(|used| used.key == record.key && !known.contains(&used.version));
            versions.extend(others.map(|used| KeyVersion {
                key: record.key.clone(),
                version: used.version,
                created: None,
                data_keys: used.data_keys,
            }));
        }
        versions.sort_by(|a, b| {
            let place = |version: &KeyVersion| (version.key != key, version.key.clone());
            place(a).cmp(&place(b)).then(b.version.cmp(&a.version))
        });
        EnvironmentKeys { environment: name, key, newest, versions, problem }
    }

    /// Takes in a key of 32 bytes that was made elsewhere, for an environment to be created with it.
    pub(crate) async fn import_key(&self, name: &KeyName, bytes: SecretBytes) -> Result<(), Error> {
        let key = Key::from_bytes(bytes.expose_secret())
            .ok_or_else(|| Error::Invalid("a key has 32 bytes, as they are and not as text".to_owned()))?;
        Ok(self.keys.import(name, key)?)
    }

    /// Adds a version to an environment's key; what is wrapped stays under the older ones.
    pub(crate) async fn rotate_key(&self, environment: &EnvironmentName) -> Result<RotatedKey, Error> {
        let key = self.store.environment(environment).await?.key;
        let version = self.keys.rotate(&key).await?;
        tracing::info!(%environment, %key, version, "a key is rotated");
        Ok(RotatedKey { key, version })
    }

    /// Makes another key the environment's, after it has proved that it wraps and unwraps.
    pub(crate) async fn migrate_key(
        &self,
        environment: &EnvironmentName,
        asked: MigrateKey,
    ) -> Result<Environment, Error> {
        let before = self.store.environment(environment).await?;
        let name = asked.key_name.unwrap_or_else(|| before.key.name.clone());
        let key = KeyReference { backend: asked.to, name };
        self.keys.ensure(&key).await?;
        self.store.set_key(environment, &key).await?;
        if key != before.key {
            tracing::info!(%environment, from = %before.key, to = %key, "an environment has another key");
        }
        Ok(Environment { key, ..before })
    }

    /// Moves some data keys to the newest version of their environment's key.
    pub(crate) async fn rewrap_keys(
        &self,
        environment: &EnvironmentName,
        step: RewrapStep,
    ) -> Result<Rewrapped, Error> {
        if !(1..=REWRAP_MAX_DATA_KEYS).contains(&step.limit) {
            return Err(Error::Invalid(format!("limit must be 1 to {REWRAP_MAX_DATA_KEYS}")));
        }
        let key = self.store.environment(environment).await?.key;
        let version = self.keys.describe(&key).await?.newest;
        let outdated = self.store.outdated_keys(environment, &key, version, step.after, step.limit).await?;
        let has_more = outdated.len() == step.limit as usize;
        let next = outdated.last().map(|last| last.id).filter(|_| has_more);
        let (moves, refused) = self.rewrapped(environment, &key, outdated).await?;
        let moved = self.store.rewrap(&moves).await?;
        let remaining = self.store.count_outdated_keys(environment, &key, version).await?;
        Ok(Rewrapped { key, version, moved, remaining, refused, next })
    }

    async fn rewrapped(
        &self,
        environment: &EnvironmentName,
        key: &KeyReference,
        outdated: Vec<OutdatedKey>,
    ) -> Result<(Vec<Rewrap>, Vec<RefusedVersion>), Error> {
        let contexts: Vec<Context> = outdated
            .iter()
            .map(|of| VersionContext { environment, secret: &of.secret, number: of.number }.data_key())
            .collect();
        let questions: Vec<_> =
            contexts.iter().zip(&outdated).map(|(context, of)| (context, &of.data_key)).collect();
        let (mut opened, mut refused) = (Vec::new(), Vec::new());
        let answers = self.keys.unwrap_all(&questions).await?;
        for ((of, context), answer) in outdated.iter().zip(&contexts).zip(answers) {
            match answer {
                Ok(data_key) => opened.push((of, context, data_key)),
                Err(error @ (KeyError::Refused | KeyError::Missing(_))) => {
                    self.report_damage(environment, &of.secret, of.number, &error).await?;
                    refused.push(RefusedVersion { secret: of.secret.clone(), version: of.number });
                }
                Err(error) => return Err(error.into()),
            }
        }
        let questions: Vec<_> = opened.iter().map(|(_, context, data_key)| (*context, data_key)).collect();
        let wrapped = self.keys.wrap_all(key, &questions).await?;
        let moves = opened.iter().zip(wrapped);
        let moves = moves
            .map(|((of, ..), to)| Rewrap { id: of.id, from: of.data_key.wrapped.bytes.clone(), to })
            .collect();
        Ok((moves, refused))
    }

    /// Retires all versions of an environment's keys that nothing is wrapped under: of its own key those
    /// that are older than the newest, and of those that it had before all. What was changed is returned.
    pub(crate) async fn retire_keys(&self, environment: &EnvironmentName) -> Result<Vec<RetiredKey>, Error> {
        let current = self.store.environment(environment).await?.key;
        let (records, uses) = (self.store.keys().await?, self.store.key_uses().await?);
        let mut retired = Vec::new();
        for KeyRecord { key, floor, .. } in
            records.into_iter().filter(|record| record.environment == *environment)
        {
            let oldest_used = uses.iter().filter(|used| used.key == key).map(|used| used.version).min();
            let is_gone = key != current && oldest_used.is_none();
            let described = match self.keys.describe(&key).await {
                // What is left of a former key is the affair of whoever owns its backend.
                Err(error) if is_gone && !error.is_transient() => None,
                described => Some(described?),
            };
            let newest = described.as_ref().map_or(ALL, |described| described.newest);
            let below = match oldest_used {
                None if is_gone => ALL,
                used if key == current => newest.min(used.unwrap_or(ALL)),
                used => used.unwrap_or(ALL),
            };
            // Retired before, and destroyed as well: a backend may not have answered then.
            let is_left =
                |described: &KeyDescription| described.versions.iter().any(|version| version.version < below);
            if below <= floor && !is_gone && !described.as_ref().is_some_and(is_left) {
                continue;
            }
            // First nothing new can be wrapped under it, then it is destroyed: a request that is
            // under way with an old version fails instead of storing what nobody can open.
            self.store.retire_key(&key, below).await?;
            match self.keys.retire(&key, below).await {
                Err(error) if is_gone && !error.is_transient() => {
                    tracing::warn!(%key, %error, "a former key is not destroyed, but forgotten");
                }
                done => done?,
            }
            if is_gone {
                self.store.forget_key(&key).await?;
            }
            tracing::info!(%environment, %key, below, "versions of a key are retired");
            retired.push(RetiredKey { key, below: (!is_gone).then_some(below) });
        }
        Ok(retired)
    }
}
