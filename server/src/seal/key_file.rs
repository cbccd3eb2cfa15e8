//! The key file: unlock keys, one a line, that open the seal without an operator. It has more than one
//! only while one is replaced: a crash in the middle leaves both, and whichever fits is used.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::unlock_key::UnlockKey;
use crate::data_dir;

/// Far more than two keys.
const MOST_BYTES: u64 = 4096;
const OTHERS: u32 = 0o077;

/// Why a key file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyFileError {
    #[error("cannot read it")]
    Read(#[from] io::Error),
    #[error("others may read it; change its mode to 0600")]
    Mode,
    #[error("it holds no unlock key")]
    Content,
}

/// The keys of a file, which nobody but its owner may read.
pub(super) fn read(path: &Path) -> Result<Vec<UnlockKey>, KeyFileError> {
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.permissions().mode() & OTHERS != 0 {
        return Err(KeyFileError::Mode);
    }
    keys_in(file)?.ok_or(KeyFileError::Content)
}

/// The keys of a text, one a line; `None` when a line is none, or there is none.
pub(super) fn keys_in(source: impl io::Read) -> io::Result<Option<Vec<UnlockKey>>> {
    // Of its final size from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MOST_BYTES as usize));
    source.take(MOST_BYTES).read_to_string(&mut text)?;
    let keys: Option<Vec<_>> = text.lines().map(UnlockKey::from_text).collect();
    Ok(keys.filter(|keys| !keys.is_empty()))
}

/// Puts a key into the file. Those that are `still` of use stay behind it.
pub(super) fn write(path: &Path, key: &UnlockKey, still: &[UnlockKey]) -> io::Result<()> {
    let texts = [key].into_iter().chain(still).map(UnlockKey::expose_text);
    let mut content = Zeroizing::new(String::with_capacity(MOST_BYTES as usize));
    for text in texts {
        content.push_str(&text);
        content.push('\n');
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    data_dir::replace(directory, name, content.as_bytes())
}

/// The keys of a file that is about to be replaced, or none where there is no file. One that holds
/// anything else is somebody's, and is not replaced.
pub(super) fn replaced(path: &Path) -> io::Result<Vec<UnlockKey>> {
    match exists(path) {
        true => read(path).map_err(io::Error::other),
        false => Ok(Vec::new()),
    }
}

/// Takes away a file whose keys open nothing any more.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether there is something at this path that the file would replace.
pub(super) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_those_of_before_behind_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("unlock.key");
        let keys: Vec<_> = (0..2).map(|_| UnlockKey::generate().expect("key")).collect();
        assert!(!exists(&path));
        write(&path, &keys[0], &[]).expect("written");
        write(&path, &keys[1], &read(&path).expect("read")).expect("replaced");
        let bytes: Vec<_> =
            read(&path).expect("read").iter().map(|key| key.expose_secret().to_vec()).collect();
        assert_eq!(bytes, [keys[1].expose_secret(), keys[0].expose_secret()]);
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("unlock.key");
        write(&path, &UnlockKey::generate().expect("key"), &[]).expect("written");
        read(&path).expect("its owner's alone");
        for mode in [0o640, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            assert!(matches!(read(&path), Err(KeyFileError::Mode)), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_key_is_not_repeated() {
        assert!(keys_in(&b""[..]).expect("read").is_none());
        assert!(keys_in(&b"canary"[..]).expect("read").is_none());
        assert!(!KeyFileError::Content.to_string().contains("canary"));
    }
}
