//! What is said to the Transit engine, and what it answers.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secretfs_wire::KeyName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::{Context, Key, KeyDescription, KeyError, VersionDescription, Wrapped};

#[derive(Serialize)]
pub(super) struct Questions<T> {
    batch_input: Vec<T>,
}

/// A data key to be wrapped.
#[derive(Serialize)]
pub(super) struct ToEncrypt {
    plaintext: Zeroizing<String>,
    associated_data: String,
}

impl ToEncrypt {
    pub(super) fn new(context: &Context, key: &Key) -> Self {
        Self {
            plaintext: Zeroizing::new(STANDARD.encode(key.expose_secret())),
            associated_data: STANDARD.encode(context.as_bytes()),
        }
    }

    pub(super) fn batch(batch_input: Vec<Self>) -> Questions<Self> {
        Questions { batch_input }
    }
}

/// A data key to be unwrapped.
#[derive(Serialize)]
pub(super) struct ToDecrypt<'a> {
    ciphertext: &'a str,
    associated_data: String,
}

impl<'a> ToDecrypt<'a> {
    pub(super) fn new(context: &Context, ciphertext: &'a str) -> Self {
        Self { ciphertext, associated_data: STANDARD.encode(context.as_bytes()) }
    }

    pub(super) fn batch(batch_input: Vec<Self>) -> Questions<Self> {
        Questions { batch_input }
    }
}

/// The answers to a batch. They come with status 400 when one of them is an error.
#[derive(Deserialize)]
pub(super) struct Batch<T> {
    data: BatchData<T>,
}

#[derive(Deserialize)]
struct BatchData<T> {
    batch_results: Vec<T>,
}

impl<T> Batch<T> {
    pub(super) fn into_items(self) -> Vec<T> {
        self.data.batch_results
    }
}

#[derive(Deserialize)]
pub(super) struct Encrypted {
    #[serde(default)]
    pub(super) ciphertext: Option<String>,
    #[serde(default)]
    pub(super) error: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Decrypted {
    #[serde(default)]
    plaintext: Option<Zeroizing<String>>,
    #[serde(default)]
    error: Option<String>,
}

impl Decrypted {
    pub(super) fn into_key(self, name: &KeyName, version: u64) -> Result<Key, KeyError> {
        if let Some(error) = self.error.filter(|error| !error.is_empty()) {
            // As builtin/logical/transit of Vault and OpenBao say it. All else is about the ciphertext.
            return Err(match error.contains("too old") {
                true => KeyError::Missing(format!("{name}:{version}")),
                false => KeyError::Refused,
            });
        }
        let text = self.plaintext.ok_or(KeyError::Refused)?;
        let bytes = Zeroizing::new(STANDARD.decode(text.as_bytes()).map_err(|_| KeyError::Refused)?);
        Key::from_bytes(&bytes).ok_or(KeyError::Refused)
    }
}

/// What Transit tells of a key.
#[derive(Deserialize)]
pub(super) struct KeyInfo {
    data: KeyInfoData,
}

#[derive(Deserialize)]
struct KeyInfoData {
    latest_version: u64,
    #[serde(default)]
    min_decryption_version: u64,
    /// When each version was made, in seconds; of some key types it tells more.
    #[serde(default)]
    keys: BTreeMap<u64, serde_json::Value>,
}

impl KeyInfo {
    pub(super) fn describe(self) -> KeyDescription {
        let KeyInfoData { latest_version, min_decryption_version, keys } = self.data;
        let usable = keys.range(min_decryption_version.max(1)..);
        let describe = |(version, made): (&u64, &serde_json::Value)| VersionDescription {
            version: *version,
            created: made.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok()),
        };
        KeyDescription { newest: latest_version, versions: usable.map(describe).collect() }
    }
}

/// The version that a ciphertext names: 3 of `vault:v3:...`.
pub(super) fn version(ciphertext: &str) -> Option<u64> {
    let (version, _) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    version.parse().ok().filter(|version| *version > 0)
}

/// The ciphertext that was stored, when it names the version under which it was stored.
pub(super) fn text(wrapped: &Wrapped) -> Option<&str> {
    let text = std::str::from_utf8(&wrapped.bytes).ok()?;
    (version(text)? == wrapped.version).then_some(text)
}
