//! Keys in the Transit engine of HashiCorp Vault or OpenBao. The keys never leave it; data keys go
//! there to be wrapped and unwrapped.
//!
//! `update` on `transit/encrypt/KEY` and `transit/decrypt/KEY` is all that it takes. Transit's `rewrap`
//! is not used, since it takes no associated data.

mod client;
#[cfg(test)]
mod tests;
mod token;
mod transit;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::Method;
use secretfs_wire::{KeyBackendKind, KeyName};

use super::{BackendFault, Context, Key, KeyBackend, KeyDescription, KeyError, VersionDescription, Wrapped};
use crate::config::VaultConfig;

use client::{Client, Fault};
use transit::{Batch, Decrypted, Encrypted, KeyInfo, ToDecrypt, ToEncrypt};

use client::VaultSetupError;

/// How many data keys go in one request. A request is small then, and Vault's limits are far.
const BATCH: usize = 250;

/// The Vault key backend.
pub(crate) struct VaultKeys {
    client: Arc<Client>,
    mount: String,
}

impl VaultKeys {
    /// Prepares calls to Vault. Connects with the first: a manager starts also while Vault is away.
    pub(crate) fn new(config: &VaultConfig) -> Result<Self, VaultSetupError> {
        Ok(Self { client: Client::new(config)?, mount: config.mount.clone() })
    }

    fn path(&self, rest: &[&str]) -> String {
        let segments = [self.mount.as_str()].into_iter().chain(rest.iter().copied());
        segments.collect::<Vec<_>>().join("/")
    }

    /// A fault of a call about one key, with what to do when it is not allowed.
    fn failed(&self, name: &KeyName, fault: Fault, remedy: &str) -> KeyError {
        match fault {
            Fault::Absent => KeyError::Missing(name.to_string()),
            Fault::Denied { path } => not_allowed(format!("Vault denies {path}; {remedy}")),
            fault => backend(fault.into_backend_fault()),
        }
    }

    /// What a policy needs for an operation that everything depends on.
    fn policy(&self, operation: &str, name: &KeyName) -> String {
        let path = self.path(&[operation, name.as_str()]);
        format!("its policy needs: path \"{path}\" {{ capabilities = [\"update\"] }}")
    }

    /// The newest version, for a manager that may only encrypt and decrypt.
    async fn probe(&self, name: &KeyName) -> Result<u64, KeyError> {
        let (context, throw_away) = (Context::new([&b"secretfs probe v1"[..]]), Key::generate()?);
        let wrapped = self.wrap(name, &[(&context, &throw_away)]).await?;
        wrapped.first().map(|wrapped| wrapped.version).ok_or_else(|| malformed("it wraps nothing"))
    }

    async fn wrap_some(
        &self,
        name: &KeyName,
        data_keys: &[(&Context, &Key)],
    ) -> Result<Vec<Wrapped>, KeyError> {
        let items = data_keys.iter().map(|(context, key)| ToEncrypt::new(context, key)).collect();
        let answer: Batch<Encrypted> = self
            .client
            .call(Method::POST, &self.path(&["encrypt", name.as_str()]), Some(&ToEncrypt::batch(items)))
            .await
            .map_err(|fault| self.failed(name, fault, &self.policy("encrypt", name)))?;
        let wrapped = |item: Encrypted| {
            if let Some(error) = item.error {
                return Err(not_allowed(format!("Vault does not encrypt under key {name}: {error}")));
            }
            let version = item.ciphertext.as_deref().and_then(transit::version);
            match (version, item.ciphertext) {
                (Some(version), Some(text)) => Ok(Wrapped { version, bytes: text.into_bytes() }),
                _ => Err(malformed("it answers without a ciphertext")),
            }
        };
        exactly(data_keys.len(), answer.into_items())?.into_iter().map(wrapped).collect()
    }

    async fn unwrap_some(
        &self,
        name: &KeyName,
        wrapped: &[(&Context, &Wrapped)],
    ) -> Result<Vec<Result<Key, KeyError>>, KeyError> {
        // One that is no ciphertext of this version is not worth a question, and would fail the others.
        let texts: Vec<_> = wrapped.iter().map(|(_, wrapped)| transit::text(wrapped)).collect();
        let asked =
            wrapped.iter().zip(&texts).filter_map(|((context, _), text)| text.map(|text| (context, text)));
        let items: Vec<_> = asked.map(|(context, text)| ToDecrypt::new(context, text)).collect();
        let count = items.len();
        let answers: Vec<Decrypted> = if items.is_empty() {
            Vec::new()
        } else {
            let answer: Batch<Decrypted> = self
                .client
                .call(Method::POST, &self.path(&["decrypt", name.as_str()]), Some(&ToDecrypt::batch(items)))
                .await
                .map_err(|fault| self.failed(name, fault, &self.policy("decrypt", name)))?;
            answer.into_items()
        };
        let mut answers = exactly(count, answers)?.into_iter();
        let opened = |((_, wrapped), text): (&(&Context, &Wrapped), Option<&str>)| match text {
            None => Err(KeyError::Refused),
            Some(_) => match answers.next() {
                Some(item) => item.into_key(name, wrapped.version),
                None => Err(malformed("it answers too little")),
            },
        };
        Ok(wrapped.iter().zip(texts).map(opened).collect())
    }
}

#[async_trait]
impl KeyBackend for VaultKeys {
    async fn ensure(&self, name: &KeyName) -> Result<(), KeyError> {
        let body = BTreeMap::from([("type", "aes256-gcm96")]);
        match self.client.call_unanswered(&self.path(&["keys", name.as_str()]), &body).await {
            // Whoever may not make keys may still use one that is there.
            Ok(()) | Err(Fault::Denied { .. }) => {}
            Err(fault) => return Err(self.failed(name, fault, "")),
        }
        match self.probe(name).await {
            Err(KeyError::Missing(_)) => Err(not_allowed(format!(
                "there is no key {name} in Vault, and the manager may not make one; make it with \
                 `vault write -f {}`",
                self.path(&["keys", name.as_str()])
            ))),
            other => other.map(|_| ()),
        }
    }

    async fn wrap(&self, name: &KeyName, data_keys: &[(&Context, &Key)]) -> Result<Vec<Wrapped>, KeyError> {
        let mut wrapped = Vec::with_capacity(data_keys.len());
        for some in data_keys.chunks(BATCH) {
            wrapped.extend(self.wrap_some(name, some).await?);
        }
        Ok(wrapped)
    }

    async fn unwrap(
        &self,
        name: &KeyName,
        wrapped: &[(&Context, &Wrapped)],
    ) -> Result<Vec<Result<Key, KeyError>>, KeyError> {
        let mut unwrapped = Vec::with_capacity(wrapped.len());
        for some in wrapped.chunks(BATCH) {
            unwrapped.extend(self.unwrap_some(name, some).await?);
        }
        Ok(unwrapped)
    }

    async fn rotate(&self, name: &KeyName) -> Result<u64, KeyError> {
        let path = self.path(&["keys", name.as_str(), "rotate"]);
        let remedy =
            format!("rotate it in Vault with `vault write -f {path}`, and then run `secretfs key rewrap`");
        self.client
            .call_unanswered(&path, &BTreeMap::<&str, &str>::new())
            .await
            .map_err(|fault| self.failed(name, fault, &remedy))?;
        self.describe(name).await.map(|described| described.newest)
    }

    async fn describe(&self, name: &KeyName) -> Result<KeyDescription, KeyError> {
        let path = self.path(&["keys", name.as_str()]);
        match self.client.call::<KeyInfo>(Method::GET, &path, None::<&()>).await {
            Ok(info) => Ok(info.describe()),
            Err(Fault::Denied { .. }) => {
                let newest = self.probe(name).await?;
                let versions = vec![VersionDescription { version: newest, created: None::<Timestamp> }];
                Ok(KeyDescription { newest, versions })
            }
            Err(fault) => Err(self.failed(name, fault, "")),
        }
    }

    /// Transit keeps at least a key's newest version: the whole key is deleted in Vault, by whoever may.
    async fn retire(&self, name: &KeyName, below: u64) -> Result<(), KeyError> {
        let below = below.min(self.describe(name).await?.newest);
        if below <= 1 {
            return Ok(());
        }
        let path = self.path(&["keys", name.as_str(), "config"]);
        let remedy = format!("retire them in Vault with `vault write {path} min_decryption_version={below}`");
        let body = BTreeMap::from([("min_decryption_version", below)]);
        self.client.call_unanswered(&path, &body).await.map_err(|fault| self.failed(name, fault, &remedy))
    }

    async fn health(&self) -> Result<(), KeyError> {
        self.client.health().await.map_err(|fault| backend(fault.into_backend_fault()))
    }
}

fn backend(fault: BackendFault) -> KeyError {
    KeyError::Backend { backend: KeyBackendKind::Vault, fault }
}

fn not_allowed(text: String) -> KeyError {
    backend(BackendFault::NotAllowed(text))
}

fn malformed(what: &str) -> KeyError {
    backend(BackendFault::Malformed(format!("this is not Vault's Transit: {what}")))
}

/// As many answers as there were questions, or none is anybody's.
fn exactly<T>(count: usize, items: Vec<T>) -> Result<Vec<T>, KeyError> {
    if items.len() == count { Ok(items) } else { Err(malformed("it answers more or less than was asked")) }
}
