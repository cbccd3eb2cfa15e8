//! Sealing a root key as an operator planned it, and putting the seal where it is kept.

use std::io;
use std::path::PathBuf;

use secretfs_wire::KeyReference;

use super::auto::AutoSources;
use super::key_file;
use super::plan::{AutoUnlock, SealPlan, UnlockMeans};
use super::shares::{self, Share};
use super::slots::{SealError, SealedRoot, Slot};
use super::unlock_key::UnlockKey;
use crate::data_dir::DataDir;
use crate::keys::{KeyError, RootKey};

/// A seal that is not kept anywhere yet.
pub(crate) struct Made {
    sealed: SealedRoot,
    means: UnlockMeans,
    /// What the key file will hold.
    key_file: Option<UnlockKey>,
}

/// Why a seal was not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("cannot write the key file {}", .path.display())]
    KeyFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write root.sealed")]
    Write(#[source] io::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Seals a root key. Where the plan does not say what opens it without an operator, that stays as it
/// was `before`.
pub(crate) async fn make(
    root: &RootKey,
    plan: &SealPlan,
    before: Option<&SealedRoot>,
    sources: &AutoSources,
) -> Result<Made, KeyError> {
    let mut sealed = SealedRoot::empty();
    let operators = UnlockKey::generate()?;
    let mut means = UnlockMeans { key: None, shares: Vec::new(), threshold: 1, credential: None };
    let set = match plan.split {
        None => {
            means.key = Some(operators.expose_text());
            None
        }
        Some(split) => {
            let (set, shares) = shares::split(&operators, split)?;
            means.shares = shares.iter().map(Share::expose_text).collect();
            means.threshold = set.threshold;
            Some(set)
        }
    };
    sealed.add_operator(root, &operators, set)?;
    let mut key_file = None;
    match (&plan.auto, before) {
        (None, Some(before)) => sealed.keep_auto(before),
        (None, None) => {}
        (Some(chosen), _) => {
            if chosen.contains(&AutoUnlock::KeyFile) {
                let key = UnlockKey::generate()?;
                sealed.add_key_file(root, &key)?;
                key_file = Some(key);
            }
            if chosen.contains(&AutoUnlock::SystemdCredential) {
                let key = UnlockKey::generate()?;
                sealed.add_credential(root, &key)?;
                means.credential = Some(key.expose_text());
            }
            for auto in chosen {
                let AutoUnlock::Backend(KeyReference { backend: kind, name }) = auto else { continue };
                let backend = sources.backends.get(kind).ok_or(KeyError::NotConfigured(*kind))?;
                backend.ensure(name).await?;
                sealed.add_backend(root, *kind, name, backend.as_ref()).await?;
            }
        }
    }
    Ok(Made { sealed, means, key_file })
}

impl Made {
    /// Keeps the first seal of a manager.
    pub(crate) fn keep(self, directory: &DataDir, sources: &AutoSources) -> Result<UnlockMeans, KeepError> {
        if let Some(key) = &self.key_file {
            let path = &sources.key_file;
            let written = match key_file::exists(path) {
                true => Err(io::ErrorKind::AlreadyExists.into()),
                false => key_file::write(path, key, &[]),
            };
            written.map_err(|source| KeepError::KeyFile { path: path.clone(), source })?;
        }
        directory.write_sealed_root(&self.sealed.to_json()?).map_err(KeepError::Write)?;
        Ok(self.means)
    }

    /// What will unlock the manager.
    pub(super) fn means(&self) -> &UnlockMeans {
        &self.means
    }

    /// Keeps it in place of another. Whoever is stopped in the middle has the one or the other, and a
    /// key file that opens it.
    pub(super) fn replace(
        self,
        before: &SealedRoot,
        directory: &DataDir,
        sources: &AutoSources,
    ) -> Result<(), KeepError> {
        let path = &sources.key_file;
        let failed = |source| KeepError::KeyFile { path: path.clone(), source };
        let had_file = has_key_file(before);
        if let Some(key) = &self.key_file {
            if !had_file && key_file::exists(path) {
                return Err(failed(io::ErrorKind::AlreadyExists.into()));
            }
            let still = key_file::replaced(path).map_err(failed)?;
            key_file::write(path, key, &still).map_err(failed)?;
        }
        directory.replace_sealed_root(&self.sealed.to_json()?).map_err(KeepError::Write)?;
        let tidied = match &self.key_file {
            Some(key) => key_file::write(path, key, &[]),
            None if had_file && !has_key_file(&self.sealed) => key_file::remove(path),
            None => Ok(()),
        };
        // The new seal holds already; what is left opens it no more.
        if let Err(error) = tidied {
            tracing::warn!(%error, key_file = %path.display(), "an old unlock key is left in the key file");
        }
        Ok(())
    }
}

fn has_key_file(sealed: &SealedRoot) -> bool {
    sealed.auto().any(|slot| matches!(slot, Slot::KeyFile { .. }))
}
