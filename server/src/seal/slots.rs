//! `root.sealed`: the root key in several slots, each wrapped in another way. It names no key and
//! holds none in clear; without one of its keys it is of no use.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secretfs_wire::{KeyBackendKind, KeyName};
use serde::{Deserialize, Serialize};

use super::shares::{Share, ShareSet, combine};
use super::unlock_key::UnlockKey;
use crate::keys::{Context, Key, KeyBackend, KeyError, RootKey, Wrapped};

const FORMAT: u32 = 1;
const SALT_BYTES: usize = 32;
const LABEL: &[u8] = b"secretfs root key v1";

/// The root key, sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealedRoot {
    format: u32,
    slots: Vec<Slot>,
}

/// The root key, wrapped in one way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Slot {
    /// Under an unlock key that operators have, whole or in shares.
    Operator {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shares: Option<ShareSet>,
        wrapped: UnderKey,
    },
    /// Under an unlock key in a file.
    KeyFile { wrapped: UnderKey },
    /// Under an unlock key that systemd hands to the service.
    SystemdCredential { wrapped: UnderKey },
    /// By a key of a backend outside this process.
    Backend { backend: KeyBackendKind, key: KeyName, version: u64, wrapped: Bytes },
}

impl Slot {
    /// What opens it, for people.
    pub(super) const fn means(&self) -> &'static str {
        match self {
            Self::Operator { .. } => "unlock key",
            Self::KeyFile { .. } => "key file",
            Self::SystemdCredential { .. } => "systemd credential",
            Self::Backend { .. } => "key backend",
        }
    }
}

/// What an unlock key unwraps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnderKey {
    salt: Bytes,
    root_key: Bytes,
}

/// Bytes that are written in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Bytes(Vec<u8>);

/// Why a sealed root key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("root.sealed is damaged")]
    Malformed(#[source] serde_json::Error),
    #[error("root.sealed is of another version of secretfs")]
    Format,
}

impl SealedRoot {
    /// One that nothing opens yet.
    pub(super) fn empty() -> Self {
        Self { format: FORMAT, slots: Vec::new() }
    }

    pub(crate) fn from_json(text: &[u8]) -> Result<Self, SealError> {
        let sealed: Self = serde_json::from_slice(text).map_err(SealError::Malformed)?;
        if sealed.format == FORMAT { Ok(sealed) } else { Err(SealError::Format) }
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, SealError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(SealError::Malformed)?;
        text.push(b'\n');
        Ok(text)
    }

    pub(super) fn add_operator(
        &mut self,
        root: &RootKey,
        key: &UnlockKey,
        shares: Option<ShareSet>,
    ) -> Result<(), KeyError> {
        let wrapped = UnderKey::wrap(root, key)?;
        self.slots.push(Slot::Operator { shares, wrapped });
        Ok(())
    }

    pub(super) fn add_key_file(&mut self, root: &RootKey, key: &UnlockKey) -> Result<(), KeyError> {
        let wrapped = UnderKey::wrap(root, key)?;
        self.slots.push(Slot::KeyFile { wrapped });
        Ok(())
    }

    pub(super) fn add_credential(&mut self, root: &RootKey, key: &UnlockKey) -> Result<(), KeyError> {
        let wrapped = UnderKey::wrap(root, key)?;
        self.slots.push(Slot::SystemdCredential { wrapped });
        Ok(())
    }

    /// Adds a slot that a key of another backend opens. Where the root key is wrapped says nothing of
    /// which environment's data keys are.
    pub(super) async fn add_backend(
        &mut self,
        root: &RootKey,
        kind: KeyBackendKind,
        name: &KeyName,
        backend: &dyn KeyBackend,
    ) -> Result<(), KeyError> {
        let context = backend_context(kind);
        let wrapped = backend.wrap(name, &[(&context, root.as_key())]).await?;
        let Wrapped { version, bytes } = wrapped.into_iter().next().ok_or(KeyError::Refused)?;
        self.slots.push(Slot::Backend { backend: kind, key: name.clone(), version, wrapped: Bytes(bytes) });
        Ok(())
    }

    /// Takes over another's slots that open without an operator.
    pub(super) fn keep_auto(&mut self, other: &Self) {
        self.slots.extend(other.auto().cloned());
    }

    /// The slots that may open without an operator, in their order.
    pub(super) fn auto(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| !matches!(slot, Slot::Operator { .. }))
    }

    /// The shares into which the operators' key is split.
    pub(super) fn share_set(&self) -> Option<ShareSet> {
        self.slots.iter().find_map(|slot| match slot {
            Slot::Operator { shares, .. } => *shares,
            _ => None,
        })
    }

    /// The root key, when this key opens any slot.
    pub(super) fn open(&self, key: &UnlockKey) -> Option<RootKey> {
        self.slots.iter().find_map(|slot| match slot {
            Slot::Operator { wrapped, .. }
            | Slot::KeyFile { wrapped }
            | Slot::SystemdCredential { wrapped } => wrapped.open(key).ok(),
            Slot::Backend { .. } => None,
        })
    }

    /// The root key, when these shares make a key that opens it.
    pub(super) fn open_by_shares(&self, set: &ShareSet, shares: &[Share]) -> Option<RootKey> {
        self.open(&combine(set, shares)?)
    }
}

impl UnderKey {
    fn wrap(root: &RootKey, key: &UnlockKey) -> Result<Self, KeyError> {
        let mut salt = vec![0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| KeyError::Crypto)?;
        let root_key = key.wrapping_key(&salt)?.seal(&context(), root.as_key().expose_secret())?;
        Ok(Self { salt: Bytes(salt), root_key: Bytes(root_key) })
    }

    pub(super) fn open(&self, key: &UnlockKey) -> Result<RootKey, KeyError> {
        let bytes = key.wrapping_key(&self.salt.0)?.open(&context(), &self.root_key.0)?;
        Key::from_bytes(&bytes).map(RootKey::from_key).ok_or(KeyError::Refused)
    }
}

/// Asks the backend that wrapped it for the root key.
pub(super) async fn open_by_backend(
    backend: &dyn KeyBackend,
    kind: KeyBackendKind,
    name: &KeyName,
    version: u64,
    wrapped: &Bytes,
) -> Result<RootKey, KeyError> {
    let context = backend_context(kind);
    let wrapped = Wrapped { version, bytes: wrapped.0.clone() };
    let opened = backend.unwrap(name, &[(&context, &wrapped)]).await?;
    opened.into_iter().next().ok_or(KeyError::Refused)?.map(RootKey::from_key)
}

fn context() -> Context {
    Context::new([LABEL])
}

fn backend_context(kind: KeyBackendKind) -> Context {
    Context::new([LABEL, kind.as_str().as_bytes()])
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        STANDARD.encode(bytes.0)
    }
}

impl TryFrom<String> for Bytes {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Split;
    use super::super::shares::split;
    use super::*;
    use crate::keys::LocalKeys;

    fn is(root: &RootKey, other: Option<RootKey>) -> bool {
        other.is_some_and(|other| other.as_key().expose_secret() == root.as_key().expose_secret())
    }

    fn again(sealed: &SealedRoot) -> SealedRoot {
        SealedRoot::from_json(&sealed.to_json().expect("JSON")).expect("read again")
    }

    #[test]
    fn each_slot_opens_by_its_own_key_and_no_other() {
        let root = RootKey::generate().expect("key");
        let keys: Vec<_> = (0..3).map(|_| UnlockKey::generate().expect("key")).collect();
        let mut sealed = SealedRoot::empty();
        sealed.add_operator(&root, &keys[0], None).expect("added");
        sealed.add_key_file(&root, &keys[1]).expect("added");
        sealed.add_credential(&root, &keys[2]).expect("added");
        let sealed = again(&sealed);
        assert!(keys.iter().all(|key| is(&root, sealed.open(key))));
        assert!(sealed.open(&UnlockKey::generate().expect("key")).is_none());
        assert_eq!(sealed.auto().count(), 2);
        let slot = |slot: &Slot| match slot {
            Slot::KeyFile { wrapped } | Slot::SystemdCredential { wrapped } => {
                keys.iter().map(|key| wrapped.open(key).is_ok()).collect::<Vec<_>>()
            }
            _ => panic!("an operator's"),
        };
        assert_eq!(sealed.auto().map(slot).collect::<Vec<_>>(), [[false, true, false], [false, false, true]]);
    }

    #[test]
    fn shares_open_their_slot_together() {
        let root = RootKey::generate().expect("key");
        let key = UnlockKey::generate().expect("key");
        let (set, shares) = split(&key, Split::new(3, 2).expect("a split")).expect("shares");
        let mut sealed = SealedRoot::empty();
        sealed.add_operator(&root, &key, Some(set)).expect("added");
        let sealed = again(&sealed);
        let set = sealed.share_set().expect("a set");
        assert!(shares.iter().all(|share| set.has(share)));
        assert!(is(&root, sealed.open_by_shares(&set, &shares[1..])));
        assert!(sealed.open_by_shares(&set, &shares[1..2]).is_none());
    }

    #[tokio::test]
    async fn a_backend_opens_what_it_wrapped() {
        let root = RootKey::generate().expect("key");
        let (backend, name) = (LocalKeys::in_memory(), "secretfs-root".parse().expect("a name"));
        backend.ensure(&name).await.expect("a key");
        let mut sealed = SealedRoot::empty();
        sealed.add_backend(&root, KeyBackendKind::Vault, &name, &backend).await.expect("added");
        backend.rotate(&name).await.expect("rotated");
        let sealed = again(&sealed);
        let Some(Slot::Backend { backend: kind, key, version, wrapped }) = sealed.auto().next() else {
            panic!("no slot of a backend in {sealed:?}");
        };
        assert_eq!((*kind, key, *version), (KeyBackendKind::Vault, &name, 1));
        let opened = open_by_backend(&backend, *kind, key, *version, wrapped).await;
        assert!(is(&root, opened.ok()));
        let moved = open_by_backend(&backend, KeyBackendKind::Pkcs11, key, *version, wrapped).await;
        assert!(matches!(moved, Err(KeyError::Refused)), "another backend's");
        let stranger = LocalKeys::in_memory();
        stranger.ensure(&name).await.expect("a key");
        assert!(open_by_backend(&stranger, *kind, key, *version, wrapped).await.is_err());
    }

    #[test]
    fn no_key_is_in_the_file_and_what_is_damaged_is_refused() {
        let root = RootKey::generate().expect("key");
        let key = UnlockKey::generate().expect("key");
        let mut sealed = SealedRoot::empty();
        sealed.add_operator(&root, &key, None).expect("added");
        let text = String::from_utf8(sealed.to_json().expect("JSON")).expect("text");
        for secret in [root.as_key().expose_secret(), key.expose_secret()] {
            assert!(!text.contains(&STANDARD.encode(secret)[..32]));
        }
        for (from, to) in [("\"format\": 1", "\"format\": 2"), ("operator", "opera"), ("salt", "pepper")] {
            SealedRoot::from_json(text.replace(from, to).as_bytes()).expect_err(to);
        }
        let mut other = again(&sealed);
        if let Some(Slot::Operator { wrapped, .. }) = other.slots.first_mut() {
            wrapped.root_key.0[20] ^= 1;
        }
        assert!(other.open(&key).is_none());
    }
}
