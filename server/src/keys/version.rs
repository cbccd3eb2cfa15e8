//! The data-key envelope: one secret version at rest.

use secretfs_wire::{EnvironmentName, KeyReference, SecretBytes, SecretName};

use super::{Context, Key, KeyError, Keyring, Wrapped};

const VALUE_LABEL: &[u8] = b"secretfs version v1";
const DATA_KEY_LABEL: &[u8] = b"secretfs data key v1";

/// Where a version belongs. It is associated data of the value and of its data key, so that a row
/// that somebody moves in the database opens nowhere but in its own place.
#[derive(Clone, Copy)]
pub(crate) struct VersionContext<'a> {
    pub(crate) environment: &'a EnvironmentName,
    pub(crate) secret: &'a SecretName,
    /// Counted from 1.
    pub(crate) number: u64,
}

impl VersionContext<'_> {
    /// What the version's data key is bound to.
    pub(crate) fn data_key(&self) -> Context {
        self.labelled(DATA_KEY_LABEL)
    }

    fn value(&self) -> Context {
        self.labelled(VALUE_LABEL)
    }

    fn labelled(&self, label: &[u8]) -> Context {
        Context::new([
            label,
            self.environment.as_str().as_bytes(),
            self.secret.as_str().as_bytes(),
            &self.number.to_be_bytes(),
        ])
    }
}

/// A data key as it is stored: with all that it takes to find the key that unwraps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrappedKey {
    /// The key that wraps it.
    pub(crate) key: KeyReference,
    pub(crate) wrapped: Wrapped,
}

/// One version as it is stored.
#[derive(Clone)]
pub(crate) struct SealedVersion {
    pub(crate) data_key: WrappedKey,
    pub(crate) ciphertext: Vec<u8>,
}

/// Seals a value under a fresh data key, and that under the newest version of this key.
pub(crate) async fn seal(
    keys: &Keyring,
    key: &KeyReference,
    context: VersionContext<'_>,
    value: &SecretBytes,
) -> Result<SealedVersion, KeyError> {
    let data_key = Key::generate()?;
    let ciphertext = data_key.seal(&context.value(), value.expose_secret())?;
    Ok(SealedVersion { data_key: keys.wrap(key, &context.data_key(), &data_key).await?, ciphertext })
}

/// Opens a value that was sealed for exactly this place.
pub(crate) async fn open(
    keys: &Keyring,
    context: VersionContext<'_>,
    sealed: &SealedVersion,
) -> Result<SecretBytes, KeyError> {
    let data_key = keys.unwrap(&context.data_key(), &sealed.data_key).await?;
    let mut value = data_key.open(&context.value(), &sealed.ciphertext)?;
    // The buffer itself moves on; what stays behind to be wiped is empty.
    SecretBytes::new(std::mem::take(&mut *value)).map_err(KeyError::Size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secretfs_wire::KeyBackendKind;

    const CANARY: &[u8] = b"canary-in-the-coal-mine";

    fn key(name: &str) -> KeyReference {
        KeyReference { backend: KeyBackendKind::Local, name: name.parse().expect("name") }
    }

    #[tokio::test]
    async fn a_row_opens_in_its_own_place_only() {
        let keys = Keyring::in_memory();
        let (ours, other_key) = (key("prod"), key("dev"));
        keys.ensure(&ours).await.expect("key");
        keys.ensure(&other_key).await.expect("key");
        let (prod, dev) = ("prod".parse().expect("name"), "dev".parse().expect("name"));
        let (db, api) = ("db".parse().expect("name"), "api".parse().expect("name"));
        let here = VersionContext { environment: &prod, secret: &db, number: 1 };
        let value = SecretBytes::new(CANARY.to_vec()).expect("value");
        let sealed = seal(&keys, &ours, here, &value).await.expect("sealed");
        assert_eq!(open(&keys, here, &sealed).await.expect("opened").expose_secret(), CANARY);
        assert!(!sealed.ciphertext.windows(CANARY.len()).any(|window| window == CANARY));

        let places = [
            VersionContext { environment: &dev, ..here },
            VersionContext { secret: &api, ..here },
            VersionContext { number: 2, ..here },
        ];
        for place in places {
            let swapped = open(&keys, place, &sealed).await.expect_err("a swapped row");
            assert!(matches!(swapped, KeyError::Refused), "{swapped:?}");

            // Nor does a data key that belongs there open a value that was moved there.
            let theirs = seal(&keys, &ours, place, &value).await.expect("sealed");
            let mixed = SealedVersion { ciphertext: sealed.ciphertext.clone(), ..theirs };
            let error = open(&keys, place, &mixed).await.expect_err("a swapped value");
            assert!(!format!("{error:?} {error}").contains("canary"));
        }
        let mut renamed = sealed;
        renamed.data_key.key = other_key;
        assert!(matches!(open(&keys, here, &renamed).await, Err(KeyError::Refused)));
    }
}
