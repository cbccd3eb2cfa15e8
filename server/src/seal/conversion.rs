//! The data directories of the first managers hold the root key as a text, `root.key`. It becomes a
//! seal that opens by itself as before, and by what operators hold.

use std::io;

use super::auto::AutoSources;
use super::key_file;
use super::slots::{SealError, SealedRoot};
use super::unlock_key::UnlockKey;
use crate::data_dir::DataDir;
use crate::error::Cause;
use crate::keys::{Key, KeyError, RootKey};

/// Why there is no seal to open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadSealError {
    #[error("there is no root.sealed; put it back from a backup")]
    Missing,
    #[error("root.key holds no root key")]
    Malformed,
    #[error("there is a root.key, and a root.sealed that it does not open; move the wrong one away")]
    Both,
    #[error("root.key is not the root key of this manager")]
    WrongRoot(#[source] Cause),
    #[error("cannot read or write the seal")]
    File(#[from] io::Error),
    #[error("cannot seal root.key")]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The seal of a directory. A root key that is there in clear is sealed first, if it passes the `check`.
pub(crate) fn read(
    directory: &DataDir,
    sources: &AutoSources,
    check: impl FnOnce(&RootKey) -> Result<(), Cause>,
) -> Result<SealedRoot, ReadSealError> {
    convert(directory, sources, check)?;
    let sealed = directory.read_sealed_root()?.ok_or(ReadSealError::Missing)?;
    Ok(SealedRoot::from_json(&sealed)?)
}

/// Seals the root key of a directory that has it in clear. Whoever is stopped in the middle has both,
/// and goes on the next time: the key in clear goes last.
fn convert(
    directory: &DataDir,
    sources: &AutoSources,
    check: impl FnOnce(&RootKey) -> Result<(), Cause>,
) -> Result<(), ReadSealError> {
    let Some(text) = directory.read_root_key()? else { return Ok(()) };
    // The root key was the recovery key: what operators hold stays good.
    let held = UnlockKey::from_text(&text).ok_or(ReadSealError::Malformed)?;
    if let Some(sealed) = directory.read_sealed_root()? {
        SealedRoot::from_json(&sealed)?.open(&held).ok_or(ReadSealError::Both)?;
    } else {
        let root = Key::from_bytes(held.expose_secret()).map(RootKey::from_key);
        let root = root.ok_or(ReadSealError::Malformed)?;
        check(&root).map_err(ReadSealError::WrongRoot)?;
        let key = UnlockKey::generate()?;
        let mut sealed = SealedRoot::empty();
        sealed.add_operator(&root, &held, None)?;
        sealed.add_key_file(&root, &key)?;
        let path = &sources.key_file;
        // A conversion that was stopped before may have left one.
        let still = key_file::replaced(path)?;
        key_file::write(path, &key, &still)?;
        directory.write_sealed_root(&sealed.to_json()?)?;
    }
    directory.remove_root_key()?;
    tracing::info!(
        key_file = %sources.key_file.display(),
        "root.key is sealed: the recovery key is the unlock key now, and the key file unlocks without it"
    );
    Ok(())
}

/// The root key as the first managers had it.
#[cfg(test)]
pub(crate) fn in_clear(sealed: &[u8], unlock_key: &str) -> zeroize::Zeroizing<String> {
    let key = UnlockKey::from_text(unlock_key).expect("an unlock key");
    let root = SealedRoot::from_json(sealed).expect("a seal").open(&key).expect("opened");
    super::text::write("sfr1.", root.as_key().expose_secret())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::text;
    use super::*;

    fn sources(directory: &Path) -> AutoSources {
        AutoSources { key_file: directory.join("unlock.key"), credential: None, backends: BTreeMap::new() }
    }

    /// A directory as the first managers left it, and its root key.
    fn old(parent: &Path) -> (DataDir, String) {
        let path = parent.join("manager");
        let directory = DataDir::create(&path).expect("a data directory");
        let text = text::write("sfr1.", &[7; 32]).to_string();
        std::fs::write(path.join("root.key"), &text).expect("written");
        (directory, text)
    }

    fn convert(directory: &DataDir, sources: &AutoSources) -> Result<(), ReadSealError> {
        super::convert(directory, sources, |_| Ok(()))
    }

    async fn opens(directory: &DataDir, sources: &AutoSources, recovery_key: &str) {
        let sealed = directory.read_sealed_root().expect("read").expect("there");
        let sealed = SealedRoot::from_json(&sealed).expect("a seal");
        let held = UnlockKey::from_text(recovery_key).expect("a key");
        for root in [sealed.open(&held), sources.open(&sealed, true).await.map(|(root, _)| root)] {
            assert_eq!(root.expect("opened").as_key().expose_secret(), [7; 32]);
        }
        assert!(directory.read_root_key().expect("read").is_none(), "in clear no more");
    }

    #[tokio::test]
    async fn the_recovery_key_and_a_key_file_open_what_was_root_key() {
        let parent = tempfile::tempdir().expect("a directory");
        let (directory, text) = old(parent.path());
        let sources = sources(parent.path());
        convert(&directory, &sources).expect("converted");
        opens(&directory, &sources, &text).await;
        convert(&directory, &sources).expect("nothing to do");
    }

    #[tokio::test]
    async fn it_goes_on_wherever_it_was_stopped() {
        let parent = tempfile::tempdir().expect("a directory");
        let (directory, text) = old(parent.path());
        let sources = sources(parent.path());
        let in_clear = parent.path().join("manager/root.key");
        let sealed = parent.path().join("manager/root.sealed");
        convert(&directory, &sources).expect("converted");
        // Before the key in clear was removed.
        std::fs::write(&in_clear, &text).expect("written");
        convert(&directory, &sources).expect("removed");
        opens(&directory, &sources, &text).await;
        // Before the seal was there.
        std::fs::write(&in_clear, &text).expect("written");
        std::fs::remove_file(&sealed).expect("removed");
        convert(&directory, &sources).expect("converted");
        opens(&directory, &sources, &text).await;
    }

    #[test]
    fn what_is_no_key_file_is_not_replaced() {
        let parent = tempfile::tempdir().expect("a directory");
        let (directory, _) = old(parent.path());
        let sources = sources(parent.path());
        std::fs::write(&sources.key_file, "somebody's").expect("written");
        assert!(matches!(convert(&directory, &sources), Err(ReadSealError::File(_))));
        assert_eq!(std::fs::read(&sources.key_file).expect("read"), b"somebody's");
        assert!(directory.read_root_key().expect("read").is_some(), "nothing is lost");
    }

    #[test]
    fn the_root_key_of_another_manager_stays_where_it_is() {
        let parent = tempfile::tempdir().expect("a directory");
        let (directory, _) = old(parent.path());
        let sources = sources(parent.path());
        let refused = super::convert(&directory, &sources, |_| Err("another".into()));
        assert!(matches!(refused, Err(ReadSealError::WrongRoot(_))));
        assert!(parent.path().join("manager/root.key").exists());
        assert!(!key_file::exists(&sources.key_file));
    }

    #[test]
    fn a_root_key_beside_another_ones_seal_is_left_alone() {
        let parent = tempfile::tempdir().expect("a directory");
        let (directory, _) = old(parent.path());
        let sources = sources(parent.path());
        convert(&directory, &sources).expect("converted");
        let in_clear = parent.path().join("manager/root.key");
        let other = text::write("sfr1.", &[8; 32]);
        std::fs::write(&in_clear, &other).expect("written");
        assert!(matches!(convert(&directory, &sources), Err(ReadSealError::Both)));
        assert!(in_clear.exists());
        std::fs::write(&in_clear, "canary").expect("written");
        let error = convert(&directory, &sources).expect_err("no key");
        assert!(!error.to_string().contains("canary"));
    }
}
