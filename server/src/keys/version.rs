//! The data-key envelope: one secret version at rest.

use secretfs_wire::{EnvironmentName, KeyName, SecretBytes, SecretName};

use super::{Context, Key, KeyBackend, KeyError};

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
    fn labelled(&self, label: &[u8]) -> Context {
        Context::new([
            label,
            self.environment.as_str().as_bytes(),
            self.secret.as_str().as_bytes(),
            &self.number.to_be_bytes(),
        ])
    }
}

/// One version as it is stored.
#[derive(Clone)]
pub(crate) struct SealedVersion {
    /// The key that wraps the data key.
    pub(crate) key_name: KeyName,
    /// That key's version, from 1.
    pub(crate) key_version: u64,
    pub(crate) wrapped_key: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
}

/// Seals a value under a fresh data key.
pub(crate) async fn seal(
    keys: &dyn KeyBackend,
    key_name: &KeyName,
    context: VersionContext<'_>,
    value: &SecretBytes,
) -> Result<SealedVersion, KeyError> {
    let data_key = Key::generate()?;
    let ciphertext = data_key.seal(&context.labelled(VALUE_LABEL), value.expose_secret())?;
    let wrapped = keys.wrap(key_name, &context.labelled(DATA_KEY_LABEL), &data_key).await?;
    Ok(SealedVersion {
        key_name: key_name.clone(),
        key_version: wrapped.key_version,
        wrapped_key: wrapped.bytes,
        ciphertext,
    })
}

/// Opens a value that was sealed for exactly this place.
pub(crate) async fn open(
    keys: &dyn KeyBackend,
    context: VersionContext<'_>,
    sealed: &SealedVersion,
) -> Result<SecretBytes, KeyError> {
    let data_key_context = context.labelled(DATA_KEY_LABEL);
    let data_key =
        keys.unwrap(&sealed.key_name, sealed.key_version, &data_key_context, &sealed.wrapped_key).await?;
    let mut value = data_key.open(&context.labelled(VALUE_LABEL), &sealed.ciphertext)?;
    // The buffer itself moves on; what stays behind to be wiped is empty.
    SecretBytes::new(std::mem::take(&mut *value)).map_err(KeyError::Size)
}

#[cfg(test)]
mod tests {
    use super::super::{LocalKeys, RootKey};
    use super::*;

    const CANARY: &[u8] = b"canary-in-the-coal-mine";

    #[tokio::test]
    async fn a_row_opens_in_its_own_place_only() {
        let keys = LocalKeys::in_memory(RootKey::generate().expect("root key"));
        let (key, other_key): (KeyName, KeyName) =
            ("prod".parse().expect("name"), "dev".parse().expect("name"));
        keys.ensure(&key).await.expect("key");
        keys.ensure(&other_key).await.expect("key");
        let (prod, dev) = ("prod".parse().expect("name"), "dev".parse().expect("name"));
        let (db, api) = ("db".parse().expect("name"), "api".parse().expect("name"));
        let here = VersionContext { environment: &prod, secret: &db, number: 1 };
        let value = SecretBytes::new(CANARY.to_vec()).expect("value");
        let sealed = seal(&keys, &key, here, &value).await.expect("sealed");
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
            let theirs = seal(&keys, &key, place, &value).await.expect("sealed");
            let mixed = SealedVersion { ciphertext: sealed.ciphertext.clone(), ..theirs };
            let error = open(&keys, place, &mixed).await.expect_err("a swapped value");
            assert!(!format!("{error:?} {error}").contains("canary"));
        }
        let renamed = SealedVersion { key_name: other_key, ..sealed };
        assert!(matches!(open(&keys, here, &renamed).await, Err(KeyError::Refused)));
    }
}
