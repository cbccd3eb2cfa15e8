//! Keys in the Transit engine of a HashiCorp Vault or an OpenBao. All that the manager needs there is
//! `update` on `encrypt/KEY` and `decrypt/KEY`; with more rights it makes, rotates and retires keys, and
//! without them it says what Vault's administrator does instead.

mod advice;
mod answer;
mod client;
mod renewal;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod transit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use secretfs_wire::KeyName;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Context, Key, KeyBackend, KeyDescription, KeyError, VersionDescription, Wrapped};
use crate::config::VaultConfig;

use advice::Engine;
use answer::{Answer, not_allowed};
use client::{Client, ClientSetupError, Request};
use renewal::Renewal;
use token::{TokenSetupError, Tokens};

/// Only keys with authentication bind a data key to its place.
const KEY_TYPE: &str = "aes256-gcm96";
const PROBE: &[u8] = b"secretfs probe v1";

/// Why the backend cannot be set up as it is configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultSetupError {
    #[error(transparent)]
    Client(#[from] ClientSetupError),
    #[error(transparent)]
    Token(#[from] TokenSetupError),
}

/// The key backend of one Vault.
pub(crate) struct VaultKeys {
    client: Arc<Client>,
    tokens: Arc<Tokens>,
    engine: Engine,
    timeout: Duration,
    /// Ends the renewal of the token when this is dropped.
    _renewal: DropGuard,
}

#[derive(Deserialize)]
struct KeyAnswer {
    data: KeyInformation,
}

/// What Vault tells of a key to those who may read it.
#[derive(Deserialize)]
struct KeyInformation {
    latest_version: u64,
    #[serde(default)]
    min_decryption_version: u64,
    /// When each version was made; for some types of keys something else.
    #[serde(default)]
    keys: BTreeMap<u64, Value>,
}

impl VaultKeys {
    /// Prepares the use of this Vault, which need not be there yet. Needs a runtime, for renewing the
    /// token.
    pub(crate) fn open(config: &VaultConfig) -> Result<Self, VaultSetupError> {
        let client = Arc::new(Client::new(config)?);
        let tokens = Arc::new(Tokens::new(&config.login)?);
        let renewal = Renewal::new(Arc::clone(&client), Arc::clone(&tokens), config.timeout);
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(renewal.run()));
        let engine = Engine { mount: config.mount.clone(), namespace: config.namespace.clone() };
        Ok(Self { client, tokens, engine, timeout: config.timeout, _renewal: end.drop_guard() })
    }

    /// Until when an operation that begins now may take.
    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Asks under the token, and once more under another one if Vault refuses it.
    async fn ask(&self, request: Request, deadline: Instant) -> Result<Answer, KeyError> {
        let token = self.tokens.current(&self.client, deadline).await?;
        let answer = self.client.ask(&request, Some(token.header()), deadline).await?;
        if answer.status != StatusCode::FORBIDDEN {
            return Ok(answer);
        }
        let by_policy = answer.is_refused_by_policy();
        match self.tokens.instead_of(&self.client, &token, by_policy, deadline).await? {
            Some(other) => self.client.ask(&request, Some(other.header()), deadline).await,
            None => Ok(answer),
        }
    }

    async fn wrap_until(
        &self,
        name: &KeyName,
        data_keys: &[(&Context, &Key)],
        deadline: Instant,
    ) -> Result<Vec<Wrapped>, KeyError> {
        let mut wrapped = Vec::with_capacity(data_keys.len());
        for batch in data_keys.chunks(transit::BATCH) {
            let request = Request::post(self.engine.path("encrypt", name), transit::encrypt(batch)?);
            let answer = self.ask(request, deadline).await?;
            let items = transit::items(&answer, batch.len())
                .ok_or_else(|| self.engine.refused("encrypt", name, &answer))?;
            for item in items {
                wrapped.push(transit::wrapped(item, name)?);
            }
        }
        Ok(wrapped)
    }

    async fn unwrap_until<'a>(
        &self,
        name: &KeyName,
        wrapped: &[(&'a Context, &'a Wrapped)],
        deadline: Instant,
    ) -> Result<Vec<Result<Key, KeyError>>, KeyError> {
        let mut answers: Vec<_> = wrapped.iter().map(|_| Err(KeyError::Refused)).collect();
        let question = |(place, (context, wrapped)): (usize, &(&'a Context, &'a Wrapped))| {
            Some((place, (*context, transit::ciphertext(wrapped)?), wrapped.version))
        };
        let questions: Vec<_> = wrapped.iter().enumerate().filter_map(question).collect();
        for batch in questions.chunks(transit::BATCH) {
            let asked: Vec<_> = batch.iter().map(|(_, question, _)| *question).collect();
            let request = Request::post(self.engine.path("decrypt", name), transit::decrypt(&asked)?);
            let answer = self.ask(request, deadline).await?;
            let items = transit::items(&answer, batch.len())
                .ok_or_else(|| self.engine.refused("decrypt", name, &answer))?;
            for ((place, _, version), item) in batch.iter().zip(items) {
                answers[*place] = transit::unwrapped(item, name, *version);
            }
        }
        Ok(answers)
    }

    /// Proves that the key can be used, by a data key that nobody needs; its newest version.
    async fn probe(&self, name: &KeyName, deadline: Instant) -> Result<u64, KeyError> {
        let (context, key) = (Context::new([PROBE]), Key::generate()?);
        let wrapped = self.wrap_until(name, &[(&context, &key)], deadline).await?;
        let wrapped = wrapped.first().ok_or(KeyError::Crypto)?;
        let unwrapped = self.unwrap_until(name, &[(&context, wrapped)], deadline).await?.pop();
        let unwrapped = unwrapped.ok_or(KeyError::Crypto)??;
        if unwrapped.expose_secret() == key.expose_secret() {
            Ok(wrapped.version)
        } else {
            Err(KeyError::Refused)
        }
    }

    /// Nothing when the token may not read the key.
    async fn read(&self, name: &KeyName, deadline: Instant) -> Result<Option<KeyInformation>, KeyError> {
        let answer = self.ask(Request::get(self.engine.path("keys", name)), deadline).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.json::<KeyAnswer>()?.data)),
            StatusCode::FORBIDDEN => Ok(None),
            StatusCode::NOT_FOUND => Err(KeyError::Missing(name.to_string())),
            _ => Err(self.engine.not_changed(name, &answer, "")),
        }
    }

    async fn describe_until(&self, name: &KeyName, deadline: Instant) -> Result<KeyDescription, KeyError> {
        Ok(match self.read(name, deadline).await? {
            Some(key) => key.into(),
            None => {
                let newest = self.probe(name, deadline).await?;
                let versions = vec![VersionDescription { version: newest, created: None }];
                KeyDescription { newest, versions }
            }
        })
    }
}

#[async_trait]
impl KeyBackend for VaultKeys {
    async fn ensure(&self, name: &KeyName) -> Result<(), KeyError> {
        let deadline = self.deadline();
        let error = match self.probe(name, deadline).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => error,
        };
        let body = transit::body(0, &json!({ "type": KEY_TYPE }))?;
        let answer = self.ask(Request::post(self.engine.path("keys", name), body), deadline).await?;
        match (answer.status, error) {
            // One that is there was left as it is, and then this fails as before.
            (status, _) if status.is_success() => self.probe(name, deadline).await.map(drop),
            (StatusCode::FORBIDDEN, KeyError::Missing(_)) => Err(not_allowed(format!(
                "there is no key {name}, and the manager's token may not make it; run {} in Vault",
                self.engine.command(name, "")
            ))),
            (_, error) => Err(error),
        }
    }

    async fn wrap(&self, name: &KeyName, data_keys: &[(&Context, &Key)]) -> Result<Vec<Wrapped>, KeyError> {
        self.wrap_until(name, data_keys, self.deadline()).await
    }

    async fn unwrap(
        &self,
        name: &KeyName,
        wrapped: &[(&Context, &Wrapped)],
    ) -> Result<Vec<Result<Key, KeyError>>, KeyError> {
        self.unwrap_until(name, wrapped, self.deadline()).await
    }

    async fn rotate(&self, name: &KeyName) -> Result<u64, KeyError> {
        let deadline = self.deadline();
        let path = format!("{}/rotate", self.engine.path("keys", name));
        let answer = self.ask(Request::post(path, Bytes::from_static(b"{}")).once(), deadline).await?;
        if !answer.status.is_success() {
            let instead = format!(
                "run {} in Vault, and then `secretfs key rewrap`",
                self.engine.command(name, "/rotate")
            );
            return Err(self.engine.not_changed(name, &answer, &instead));
        }
        Ok(self.describe_until(name, deadline).await?.newest)
    }

    async fn describe(&self, name: &KeyName) -> Result<KeyDescription, KeyError> {
        self.describe_until(name, self.deadline()).await
    }

    /// A key is never destroyed as a whole: its deletion is for Vault's administrator, who alone knows
    /// who else uses it.
    async fn retire(&self, name: &KeyName, below: u64) -> Result<(), KeyError> {
        let deadline = self.deadline();
        let key = match self.read(name, deadline).await {
            Err(KeyError::Missing(_)) => return Ok(()),
            key => key?,
        };
        let newest = match &key {
            Some(key) => key.latest_version,
            None => self.probe(name, deadline).await?,
        };
        if below > newest {
            tracing::info!(key = %name, "nothing is wrapped under this key any more; it is left in Vault");
            return Ok(());
        }
        let command = self.engine.command(name, &format!("/config min_decryption_version={below}"));
        let instead = format!("run {command} in Vault");
        // Who cannot see what Vault's administrator has retired might bring it back.
        let Some(key) = key else {
            return Err(not_allowed(format!("the manager's token may not read key {name}; {instead}")));
        };
        if key.min_decryption_version >= below {
            return Ok(());
        }
        let path = format!("{}/config", self.engine.path("keys", name));
        let body = transit::body(0, &json!({ "min_decryption_version": below }))?;
        let answer = self.ask(Request::post(path, body), deadline).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(self.engine.not_changed(name, &answer, &instead))
    }

    async fn health(&self) -> Result<(), KeyError> {
        self.client.health().await
    }
}

impl From<KeyInformation> for KeyDescription {
    fn from(key: KeyInformation) -> Self {
        let describe = |(version, created): (u64, Value)| VersionDescription {
            version,
            created: created.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok()),
        };
        let usable = key.keys.into_iter().filter(|(version, _)| *version >= key.min_decryption_version);
        Self { newest: key.latest_version, versions: usable.map(describe).collect() }
    }
}
