//! Keys in an HSM, through PKCS #11: AES-256 keys that are made in a token and cannot be taken out of
//! it wrap data keys with CKM_AES_GCM.
//!
//! `module` is the HSM vendor's library and who may be in it, `token` the login and its sessions,
//! `objects` how keys are kept, `cipher` what they do. All of these block; this module is where async
//! code waits for them.

mod cipher;
mod fault;
mod module;
mod objects;
mod pin;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cryptoki::object::ObjectHandle;
use secretfs_wire::KeyName;
use tokio::time::timeout;

use super::{Context, Key, KeyBackend, KeyDescription, KeyError, VersionDescription, Wrapped};
use crate::config::Pkcs11Config;
use crate::error::Cause;
use fault::{Failure, unavailable};
use module::Module;
use pin::{Pin, PinError};
use token::{Access, Token};

/// How long a caller waits for the HSM, for each part of a batch.
const DEADLINE: Duration = Duration::from_secs(5);

/// How many data keys are wrapped or unwrapped in one go. An HSM in a network takes milliseconds for
/// each.
const PART: usize = 64;

/// The key backend for HSMs. It connects when it is first used, and again when it was cut off.
pub(crate) struct Pkcs11Keys {
    token: Arc<Token>,
    /// Held by the thread that looks which version is the newest and makes the next one.
    making: Arc<Mutex<()>>,
}

/// Why the settings of an HSM cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Pkcs11Error {
    #[error("cannot load the module {}", .0.display())]
    Module(PathBuf, #[source] Cause),
    #[error("there is no PIN")]
    Pin(#[source] PinError),
}

impl Pkcs11Keys {
    /// Loads the module and reads the PIN. The HSM need not be there yet.
    pub(crate) fn open(settings: &Pkcs11Config) -> Result<Self, Pkcs11Error> {
        let pin = Pin::read(&settings.pin).map_err(Pkcs11Error::Pin)?;
        let module = Module::load(&settings.module)
            .map_err(|error| Pkcs11Error::Module(settings.module.clone(), error.into()))?;
        let token = Arc::new(Token::new(module, settings.token.clone(), pin));
        Ok(Self { token, making: Arc::default() })
    }

    /// Does this in a session. A caller that gives up leaves the work to end by itself.
    async fn call<T: Send + 'static>(
        &self,
        work: impl Fn(&Access<'_>) -> Result<T, Failure> + Send + Sync + 'static,
    ) -> Result<T, KeyError> {
        let work = Arc::new(work);
        let call = async {
            match self.attempt(&work).await? {
                Err(failure) if failure.is_gone() => {
                    if !self.token.module.initialize_again().await {
                        return Err(failure.into_key_error());
                    }
                    self.attempt(&work).await?.map_err(Failure::into_key_error)
                }
                other => other.map_err(Failure::into_key_error),
            }
        };
        let late = || unavailable(format!("the HSM has not answered within {} s", DEADLINE.as_secs()));
        timeout(DEADLINE, call).await.map_err(|_| late())?
    }

    async fn attempt<T: Send + 'static>(
        &self,
        work: &Arc<impl Fn(&Access<'_>) -> Result<T, Failure> + Send + Sync + 'static>,
    ) -> Result<Result<T, Failure>, KeyError> {
        let (token, work) = (Arc::clone(&self.token), Arc::clone(work));
        let attempt = move || {
            let done = token.with_session(|access| work(access));
            if done.as_ref().is_err_and(Failure::is_gone) {
                token.forget();
            }
            done
        };
        self.token.module.enter(attempt).await
    }

    /// Makes the version that `next` says, given the newest there is.
    async fn make<T: Send + 'static>(
        &self,
        name: &KeyName,
        next: impl Fn(Option<u64>) -> Result<(Option<u64>, T), KeyError> + Send + Sync + 'static,
    ) -> Result<T, KeyError> {
        let (name, making) = (name.clone(), Arc::clone(&self.making));
        self.call(move |access| {
            let _making = making.lock().unwrap_or_else(PoisonError::into_inner);
            let versions = objects::versions(access, &name)?;
            let (version, answer) = next(versions.keys().next_back().copied())?;
            if let Some(version) = version {
                objects::generate(access, &name, version)?;
            }
            Ok(answer)
        })
        .await
    }
}

/// Wraps data keys under the newest version.
fn wrap_part(access: &Access<'_>, name: &KeyName, part: &[(Vec<u8>, Key)]) -> Result<Vec<Wrapped>, Failure> {
    let versions = objects::versions(access, name)?;
    let newest = versions.last_key_value().and_then(|(version, objects)| Some((*version, *objects.first()?)));
    let (version, object) = newest.ok_or_else(|| KeyError::Missing(name.to_string()))?;
    let wrap = |(aad, key): &(Vec<u8>, Key)| {
        Ok(Wrapped { version, bytes: cipher::wrap(access.session, object, aad, key)? })
    };
    part.iter().map(wrap).collect()
}

/// Unwraps data keys, each under its version.
fn unwrap_part(
    access: &Access<'_>,
    name: &KeyName,
    part: &[(Vec<u8>, Wrapped)],
) -> Result<Vec<Result<Key, KeyError>>, Failure> {
    let mut found: BTreeMap<u64, Vec<ObjectHandle>> = BTreeMap::new();
    let mut answers = Vec::with_capacity(part.len());
    for (aad, Wrapped { version, bytes }) in part {
        if !found.contains_key(version) {
            found.insert(*version, objects::version(access, name, *version)?);
        }
        answers.push(match found.get(version).map(Vec::as_slice) {
            None | Some([]) => Err(KeyError::Missing(format!("{name}:{version}"))),
            Some(objects) => cipher::unwrap(access.session, objects, aad, bytes)?,
        });
    }
    Ok(answers)
}

#[async_trait]
impl KeyBackend for Pkcs11Keys {
    async fn ensure(&self, name: &KeyName) -> Result<(), KeyError> {
        self.make(name, |newest| Ok((newest.is_none().then_some(1), ()))).await
    }

    async fn wrap(&self, name: &KeyName, data_keys: &[(&Context, &Key)]) -> Result<Vec<Wrapped>, KeyError> {
        let mut answers = Vec::with_capacity(data_keys.len());
        for part in data_keys.chunks(PART) {
            let copy = |(context, key): &(&Context, &Key)| {
                Some((context.as_bytes().to_vec(), Key::from_bytes(key.expose_secret())?))
            };
            let part: Vec<_> = part.iter().map(copy).collect::<Option<_>>().ok_or(KeyError::Crypto)?;
            let name = name.clone();
            answers.extend(self.call(move |access| wrap_part(access, &name, &part)).await?);
        }
        Ok(answers)
    }

    async fn unwrap(
        &self,
        name: &KeyName,
        wrapped: &[(&Context, &Wrapped)],
    ) -> Result<Vec<Result<Key, KeyError>>, KeyError> {
        let mut answers = Vec::with_capacity(wrapped.len());
        for part in wrapped.chunks(PART) {
            let copy =
                |(context, wrapped): &(&Context, &Wrapped)| (context.as_bytes().to_vec(), (*wrapped).clone());
            let part: Vec<_> = part.iter().map(copy).collect();
            let name = name.clone();
            answers.extend(self.call(move |access| unwrap_part(access, &name, &part)).await?);
        }
        Ok(answers)
    }

    async fn rotate(&self, name: &KeyName) -> Result<u64, KeyError> {
        let missing = name.to_string();
        self.make(name, move |newest| {
            let newest = newest.ok_or_else(|| KeyError::Missing(missing.clone()))?;
            let next = newest.checked_add(1).ok_or(KeyError::Crypto)?;
            Ok((Some(next), next))
        })
        .await
    }

    async fn describe(&self, name: &KeyName) -> Result<KeyDescription, KeyError> {
        let name = name.clone();
        self.call(move |access| {
            // When each was made no attribute of a key tells that all tokens keep.
            let described = |version| VersionDescription { version, created: None };
            let versions: Vec<_> = objects::versions(access, &name)?.into_keys().map(described).collect();
            let newest = versions.last().ok_or_else(|| KeyError::Missing(name.to_string()))?.version;
            Ok(KeyDescription { newest, versions })
        })
        .await
    }

    async fn retire(&self, name: &KeyName, below: u64) -> Result<(), KeyError> {
        let name = name.clone();
        self.call(move |access| objects::retire(access, &name, below)).await
    }

    async fn health(&self) -> Result<(), KeyError> {
        self.call(|access| access.check()).await
    }
}

impl fmt::Debug for Pkcs11Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pkcs11Keys")
    }
}

#[cfg(test)]
mod tests;
