use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secretfs_wire::{KeyBackendKind, KeyName, KeyReference};

use super::data_keys::DataKeys;
use super::{Context, Key, KeyBackend, KeyDescription, KeyError, LocalKeys, RemoteKeys, WrappedKey};

/// How often data keys are looked at whose time may have come: so much longer than their lifetime
/// they may be kept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// All key backends of a manager. What is wrapped says by which of them, so an environment's data
/// keys may be wrapped by several while they are moved from one to another.
pub(crate) struct Keyring {
    local: LocalKeys,
    /// Those outside this process.
    remote: RemoteKeys,
    data_keys: DataKeys,
}

impl Keyring {
    /// `data_key_lifetime` is how long a data key that a remote backend unwrapped is kept.
    pub(crate) fn new(local: LocalKeys, remote: RemoteKeys, data_key_lifetime: Duration) -> Self {
        Self { local, remote, data_keys: DataKeys::new(data_key_lifetime) }
    }

    /// Makes a key unless there is one, and proves that it wraps and unwraps.
    pub(crate) async fn ensure(&self, key: &KeyReference) -> Result<(), KeyError> {
        let backend = self.backend(key.backend)?;
        backend.ensure(&key.name).await?;
        let (context, probe) = (Context::new([&b"secretfs probe v1"[..]]), Key::generate()?);
        let wrapped = self.wrap(key, &context, &probe).await?;
        let unwrapped = self.ask(&context, &wrapped).await?;
        if unwrapped.expose_secret() == probe.expose_secret() { Ok(()) } else { Err(KeyError::Refused) }
    }

    /// Takes in a key that was made elsewhere. It is never an existing key's new version.
    pub(crate) fn import(&self, name: &KeyName, key: Key) -> Result<(), KeyError> {
        self.local.import(name, key)
    }

    /// Wraps a data key under the key's newest version.
    pub(crate) async fn wrap(
        &self,
        key: &KeyReference,
        context: &Context,
        data_key: &Key,
    ) -> Result<WrappedKey, KeyError> {
        self.wrap_all(key, &[(context, data_key)]).await?.pop().ok_or(KeyError::Crypto)
    }

    /// Wraps data keys under the key's newest version, in their order.
    pub(crate) async fn wrap_all(
        &self,
        key: &KeyReference,
        data_keys: &[(&Context, &Key)],
    ) -> Result<Vec<WrappedKey>, KeyError> {
        let wrapped = self.backend(key.backend)?.wrap(&key.name, data_keys).await?;
        Ok(wrapped.into_iter().map(|wrapped| WrappedKey { key: key.clone(), wrapped }).collect())
    }

    /// Unwraps a data key. One that a remote backend unwraps is kept for a short time.
    pub(crate) async fn unwrap(&self, context: &Context, wrapped: &WrappedKey) -> Result<Arc<Key>, KeyError> {
        let asking = self.ask(context, wrapped);
        match wrapped.key.backend {
            KeyBackendKind::Local => asking.await.map(Arc::new),
            KeyBackendKind::Vault | KeyBackendKind::Pkcs11 => {
                self.data_keys.get(context, wrapped, asking).await
            }
        }
    }

    /// Unwraps data keys, each by itself, in their order; none of them is kept. Fails as a whole when
    /// a backend cannot be asked.
    pub(crate) async fn unwrap_all(
        &self,
        wrapped: &[(&Context, &WrappedKey)],
    ) -> Result<Vec<Result<Key, KeyError>>, KeyError> {
        let mut by_key: BTreeMap<&KeyReference, Vec<usize>> = BTreeMap::new();
        for (place, (_, wrapped)) in wrapped.iter().enumerate() {
            by_key.entry(&wrapped.key).or_default().push(place);
        }
        let mut unwrapped: Vec<_> = wrapped.iter().map(|_| None).collect();
        for (key, places) in by_key {
            let some: Vec<_> =
                places.iter().map(|place| (wrapped[*place].0, &wrapped[*place].1.wrapped)).collect();
            let answers = self.backend(key.backend)?.unwrap(&key.name, &some).await?;
            for (place, answer) in places.into_iter().zip(answers) {
                unwrapped[place] = Some(answer);
            }
        }
        Ok(unwrapped.into_iter().map(|answer| answer.unwrap_or(Err(KeyError::Crypto))).collect())
    }

    pub(crate) async fn rotate(&self, key: &KeyReference) -> Result<u64, KeyError> {
        self.backend(key.backend)?.rotate(&key.name).await
    }

    pub(crate) async fn describe(&self, key: &KeyReference) -> Result<KeyDescription, KeyError> {
        self.backend(key.backend)?.describe(&key.name).await
    }

    pub(crate) async fn retire(&self, key: &KeyReference, below: u64) -> Result<(), KeyError> {
        self.backend(key.backend)?.retire(&key.name, below).await
    }

    /// Whether the keys on this machine can be used. A remote backend that does not answer is no
    /// reason to take the manager out of service: it serves what it has, and the others.
    pub(crate) async fn health(&self) -> Result<(), KeyError> {
        self.local.health().await
    }

    /// Wipes data keys when their time has come. Runs as long as the manager.
    pub(crate) async fn sweep(&self) {
        if self.data_keys.lifetime().is_zero() {
            return;
        }
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.data_keys.sweep(Instant::now());
        }
    }

    async fn ask(&self, context: &Context, wrapped: &WrappedKey) -> Result<Key, KeyError> {
        let backend = self.backend(wrapped.key.backend)?;
        let mut answers = backend.unwrap(&wrapped.key.name, &[(context, &wrapped.wrapped)]).await?;
        answers.pop().ok_or(KeyError::Crypto)?
    }

    fn backend(&self, kind: KeyBackendKind) -> Result<&dyn KeyBackend, KeyError> {
        match kind {
            KeyBackendKind::Local => Ok(&self.local),
            remote => self.remote.get(&remote).map(AsRef::as_ref).ok_or(KeyError::NotConfigured(remote)),
        }
    }
}

impl Keyring {
    /// Local keys that are gone when this is dropped.
    pub(crate) fn in_memory() -> Self {
        Self::new(LocalKeys::in_memory(), RemoteKeys::new(), Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(backend: KeyBackendKind) -> KeyReference {
        KeyReference { backend, name: "prod".parse().expect("a name") }
    }

    #[tokio::test]
    async fn each_data_key_is_unwrapped_by_the_backend_that_it_names() {
        let vault: Arc<dyn KeyBackend> = Arc::new(LocalKeys::in_memory());
        let remote = [(KeyBackendKind::Vault, vault)].into();
        let keys = Keyring::new(LocalKeys::in_memory(), remote, Duration::ZERO);
        let mut all = Vec::new();
        for number in 0..9_u8 {
            // Alternately, so that no backend's answers are one after the other.
            let key = key([KeyBackendKind::Local, KeyBackendKind::Vault][usize::from(number) % 2]);
            keys.ensure(&key).await.expect("a key");
            let (context, data_key) = (Context::new([&[number][..]]), Key::generate().expect("a key"));
            let wrapped = keys.wrap(&key, &context, &data_key).await.expect("wrapped");
            all.push((context, data_key, wrapped));
        }
        let questions: Vec<_> = all.iter().map(|(context, _, wrapped)| (context, wrapped)).collect();
        let answers = keys.unwrap_all(&questions).await.expect("answers");
        for ((_, data_key, _), answer) in all.iter().zip(answers) {
            assert_eq!(answer.expect("unwrapped").expose_secret(), data_key.expose_secret());
        }
        let absent = keys.ensure(&key(KeyBackendKind::Pkcs11)).await;
        assert!(matches!(absent, Err(KeyError::NotConfigured(KeyBackendKind::Pkcs11))), "{absent:?}");
    }
}
