//! A manager in one file: a tar archive in the age format, encrypted to recipients and authenticated.
//!
//! ```text
//! backup.json      what this is, and when it was made
//! ca.pem           these are as in the data directory, and as sealed as there
//! ca.key.sealed
//! root.sealed
//! keys/NAME/N.key
//! store.db         the store as it was at one moment
//! audit.mark       how far the audit log was signed
//! audit.db         the audit log a moment later; a restored manager begins another chain, since the
//!                  one that was backed up may still write this one
//! ```
//!
//! A backup is made beside a running manager, and needs nothing of it. What opens the root key without
//! an operator, such as a key file, is not in it: who restores has to unlock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use age::{DecryptError, Decryptor, EncryptError, Encryptor, IdentityFile};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};

use crate::app::now;
use crate::config::Config;
use crate::data_dir::{self, DataDir, DataDirError};
use crate::error::Cause;
use crate::store::{Sqlite, SqliteAudit, StoreError};

const FORMAT: u32 = 1;
const ABOUT: &str = "backup.json";
const FILE_MODE: u32 = 0o600;
/// What is not the store is small; a larger one is not ours.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What a backup says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// How the rest is to be read.
    format: u32,
    /// The version of secretfs that made it.
    pub version: String,
    /// When it was made.
    pub created: Timestamp,
}

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A text is not an age recipient.
    #[error("{0:?} is not an age recipient, which begins with age1")]
    Recipient(String),
    /// No recipient was given, or they do not go together.
    #[error("cannot encrypt to these recipients")]
    Encrypt(#[source] EncryptError),
    /// There is nothing in the file of identities that age knows.
    #[error("cannot read the identities")]
    Identities(#[source] Cause),
    /// It is not an age file, not for these identities, or damaged.
    #[error("cannot decrypt the backup")]
    Decrypt(#[source] DecryptError),
    /// The data directory cannot be used.
    #[error("cannot use the data directory")]
    DataDir(#[source] Cause),
    /// The store cannot be copied, or the copy is damaged.
    #[error("cannot copy the store")]
    Store(#[source] Cause),
    /// A file cannot be read or written.
    #[error("cannot read or write {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be written or read to its end.
    #[error("cannot write or read the backup")]
    Archive(#[source] io::Error),
    /// It holds what no backup of ours holds.
    #[error("this is no backup of secretfs: {0}")]
    Foreign(String),
    /// It was made by a later version.
    #[error("this backup has format {0}, which only a newer secretfs reads")]
    TooNew(u32),
}

/// Writes a backup of a manager, which may be running, for those who hold the key of one of the
/// recipients (`age1...`).
///
/// # Errors
/// When something cannot be read or written. What was written until then does not decrypt.
pub async fn backup(
    config: &Config,
    recipients: &[String],
    output: impl Write,
) -> Result<About, BackupError> {
    let parse = |text: &String| {
        text.parse::<age::x25519::Recipient>().map_err(|_| BackupError::Recipient(text.clone()))
    };
    let recipients = recipients.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = Encryptor::with_recipients(recipients).map_err(BackupError::Encrypt)?;

    // Before and after the store, since keys come and go: one that is in the store at its moment was
    // there before it, or is still there after it.
    let mut files = sealed_files(&config.data_dir)?;
    let scratch = scratch(&config.data_dir)?;
    let store = scratch.path().join(data_dir::STORE);
    Sqlite::copy(&config.data_dir.join(data_dir::STORE), &store)
        .await
        .map_err(|error| BackupError::Store(error.into()))?;
    files.extend(sealed_files(&config.data_dir)?);
    // Before the log, which has all that it says then.
    let mark = sealed_file(&config.data_dir, Path::new(data_dir::AUDIT_MARK))?;
    files.extend(mark.map(|mark| (data_dir::AUDIT_MARK.into(), mark)));
    let audit = scratch.path().join(data_dir::AUDIT);
    let has_audit = config.data_dir.join(data_dir::AUDIT).is_file();
    if has_audit {
        // After the store, which says which chain it is.
        Sqlite::copy(&config.data_dir.join(data_dir::AUDIT), &audit)
            .await
            .map_err(|error| BackupError::Store(error.into()))?;
    }

    let about = About { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), created: now() };
    let encrypted = encryptor.wrap_output(output).map_err(BackupError::Archive)?;
    let mut archive = Builder::new(encrypted);
    let text = serde_json::to_vec(&about).map_err(|error| BackupError::Archive(error.into()))?;
    append(&mut archive, Path::new(ABOUT), text.as_slice(), text.len() as u64, SystemTime::now())?;
    for (path, Sealed { content, written }) in &files {
        append(&mut archive, path, content.as_slice(), content.len() as u64, *written)?;
    }
    for (name, path) in [(data_dir::STORE, &store), (data_dir::AUDIT, &audit)] {
        if name == data_dir::AUDIT && !has_audit {
            continue;
        }
        let failed = |source| BackupError::File { path: path.clone(), source };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        append(&mut archive, Path::new(name), file, length, SystemTime::now())?;
    }
    let encrypted = archive.into_inner().map_err(BackupError::Archive)?;
    encrypted.finish().and_then(|mut output| output.flush()).map_err(BackupError::Archive)?;
    Ok(about)
}

/// Makes the manager of a backup in an absent or empty data directory: all of it or nothing. It is
/// locked as the one was that was backed up.
///
/// # Errors
/// When the backup is not for these identities (the text of an age identity file), not one, or
/// damaged, or the data directory is not empty.
pub async fn restore(config: &Config, identities: &[u8], input: impl Read) -> Result<About, BackupError> {
    let data_dir = &config.data_dir;
    DataDir::require_empty(data_dir).map_err(|error| BackupError::DataDir(error.into()))?;
    let identities = IdentityFile::from_buffer(identities)
        .map_err(|error| BackupError::Identities(error.into()))?
        .into_identities()
        .map_err(|error| BackupError::Identities(error.into()))?;
    let decryptor = Decryptor::new(input).map_err(BackupError::Decrypt)?;
    let decrypted = decryptor
        .decrypt(identities.iter().map(|identity| identity.as_ref() as &dyn age::Identity))
        .map_err(BackupError::Decrypt)?;

    let parent = data_dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let scratch = scratch(parent.unwrap_or(Path::new(".")))?;
    let about = unpack(Archive::new(decrypted), scratch.path())?;
    for needed in data_dir::NEEDED {
        if !scratch.path().join(needed).is_file() {
            return Err(BackupError::Foreign(format!("it has no {needed}")));
        }
    }
    Sqlite::check(&scratch.path().join(data_dir::STORE))
        .await
        .map_err(|error| BackupError::Store(error.into()))?;
    let audit = scratch.path().join(data_dir::AUDIT);
    if audit.is_file() {
        let damaged = |error: StoreError| BackupError::Store(error.into());
        Sqlite::check(&audit).await.map_err(damaged)?;
        SqliteAudit::end_chains(&audit).await.map_err(damaged)?;
    }
    DataDir::adopt(scratch.path(), data_dir).map_err(|error| match error {
        DataDirError::Create { path, source } => BackupError::File { path, source },
        error => BackupError::DataDir(error.into()),
    })?;
    // It is the data directory now.
    let _ = scratch.keep();
    Ok(about)
}

fn append<W: Write>(
    archive: &mut Builder<W>,
    path: &Path,
    content: impl Read,
    length: u64,
    written: SystemTime,
) -> Result<(), BackupError> {
    let mut header = Header::new_ustar();
    header.set_mode(FILE_MODE);
    header.set_size(length);
    header.set_mtime(written.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    header.set_entry_type(EntryType::Regular);
    archive.append_data(&mut header, path, content).map_err(BackupError::Archive)
}

/// A small file. When a key was made is when its file was written.
struct Sealed {
    content: Vec<u8>,
    written: SystemTime,
}

/// All files of a data directory that go into a backup, but the store.
fn sealed_files(data_dir: &Path) -> Result<BTreeMap<PathBuf, Sealed>, BackupError> {
    let mut files = BTreeMap::new();
    let mut read = |relative: PathBuf| {
        if let Some(sealed) = sealed_file(data_dir, &relative)? {
            files.insert(relative, sealed);
        }
        Ok(())
    };
    for name in data_dir::NEEDED.into_iter().filter(|name| *name != data_dir::STORE) {
        read(PathBuf::from(name))?;
    }
    for key in entries(&data_dir.join(data_dir::KEYS))? {
        let key = Path::new(data_dir::KEYS).join(key);
        for version in entries(&data_dir.join(&key))? {
            // What is being written is not yet in use.
            if is_key_file(&version) {
                read(key.join(version))?;
            }
        }
    }
    Ok(files)
}

/// A file of a data directory; none if it is not there and need not be: a key was retired while we looked, or
/// there is no log yet.
fn sealed_file(data_dir: &Path, relative: &Path) -> Result<Option<Sealed>, BackupError> {
    let path = data_dir.join(relative);
    match fs::metadata(&path).and_then(|metadata| Ok((fs::read(&path)?, metadata.modified()?))) {
        Ok((content, written)) => Ok(Some(Sealed { content, written })),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_optional(relative) => Ok(None),
        Err(source) => Err(BackupError::File { path, source }),
    }
}

fn is_optional(relative: &Path) -> bool {
    relative == Path::new(data_dir::AUDIT_MARK) || relative.starts_with(data_dir::KEYS)
}

/// The names in a directory; none when it is gone.
fn entries(directory: &Path) -> Result<Vec<String>, BackupError> {
    let failed = |source| BackupError::File { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(failed)?,
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed)
    };
    entries.map(name).collect()
}

fn is_key_file(name: &str) -> bool {
    name.strip_suffix(".key").is_some_and(|version| version.parse::<u64>().is_ok())
}

fn unpack(mut archive: Archive<impl Read>, into: &Path) -> Result<About, BackupError> {
    let mut about = None;
    for entry in archive.entries().map_err(BackupError::Archive)? {
        let mut entry = entry.map_err(BackupError::Archive)?;
        let path = entry.path().map_err(BackupError::Archive)?.into_owned();
        let size = entry.header().size().map_err(BackupError::Archive)?;
        let foreign = |what: &str| BackupError::Foreign(format!("{what} {}", path.display()));
        if entry.header().entry_type() != EntryType::Regular || !is_ours(&path) {
            return Err(foreign("it holds"));
        }
        let is_store = [data_dir::STORE, data_dir::AUDIT].map(Path::new).contains(&path.as_path());
        if !is_store && size > MAX_FILE_BYTES {
            return Err(foreign("it holds too large a"));
        }
        if about.is_none() {
            // It comes first, and says whether the rest can be read.
            if path != Path::new(ABOUT) {
                return Err(foreign("it begins with"));
            }
            let read: About = serde_json::from_reader(&mut entry)
                .map_err(|_| BackupError::Foreign("it does not say what it is".to_owned()))?;
            if read.format > FORMAT {
                return Err(BackupError::TooNew(read.format));
            }
            about = Some(read);
            continue;
        }
        let target = into.join(&path);
        let failed = |source| BackupError::File { path: target.clone(), source };
        if let Some(parent) = target.parent() {
            data_dir::create_directory(parent).map_err(failed)?;
        }
        let mut file = data_dir::create_file(&target).map_err(failed)?;
        // What fails here is more likely the archive, which is authenticated in pieces as it is read.
        let copied = io::copy(&mut entry, &mut file).map_err(BackupError::Archive)?;
        if copied != size {
            return Err(BackupError::Archive(io::ErrorKind::UnexpectedEof.into()));
        }
        let written = entry.header().mtime().map_err(BackupError::Archive)?;
        file.set_modified(UNIX_EPOCH + Duration::from_secs(written)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
    }
    // The end of the archive is not the end of the file: what follows has to be authentic as well.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(BackupError::Archive)?;
    about.ok_or_else(|| BackupError::Foreign("it is empty".to_owned()))
}

/// Whether a path is one that a backup has. No other is ever written to.
fn is_ours(path: &Path) -> bool {
    let names: Option<Vec<_>> = path
        .components()
        .map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    match names.as_deref() {
        Some([name]) => {
            [ABOUT, data_dir::AUDIT, data_dir::AUDIT_MARK].contains(name) || data_dir::NEEDED.contains(name)
        }
        Some([keys, key, version]) => {
            *keys == data_dir::KEYS && key.parse::<secretfs_wire::KeyName>().is_ok() && is_key_file(version)
        }
        _ => false,
    }
}

/// A directory that only its owner enters, removed when it is dropped.
fn scratch(within: &Path) -> Result<tempfile::TempDir, BackupError> {
    tempfile::Builder::new()
        .prefix(".backup-")
        .tempdir_in(within)
        .map_err(|source| BackupError::File { path: within.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of these files, each with its own path as content.
    fn archive(paths: &[&str]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        let about = About { format: FORMAT, version: "0".to_owned(), created: now() };
        let about = serde_json::to_vec(&about).expect("JSON");
        let none = SystemTime::now();
        append(&mut archive, Path::new(ABOUT), about.as_slice(), about.len() as u64, none).expect("appended");
        for path in paths {
            let mut header = Header::new_ustar();
            header.set_size(path.len() as u64);
            header.set_mode(FILE_MODE);
            header.set_entry_type(EntryType::Regular);
            // Past what the library would refuse to write.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, path.as_bytes()).expect("appended");
        }
        archive.into_inner().expect("an archive")
    }

    #[test]
    fn an_archive_with_anything_else_is_refused() {
        let into = tempfile::tempdir().expect("a directory");
        let unpack = |paths: &[&str]| unpack(Archive::new(archive(paths).as_slice()), into.path());
        unpack(&["ca.pem", "keys/prod/1.key", "store.db"]).expect("what a backup has");
        for foreign in ["unlock.key", "../escaped", "/tmp/escaped", "keys/prod/../../../escaped", "lock"] {
            let error = unpack(&[foreign]).expect_err(foreign);
            assert!(matches!(error, BackupError::Foreign(_)), "{foreign}: {error:?}");
        }
        assert!(!into.path().join("unlock.key").exists());
        assert!(unpack(&["ca.pem"]).is_err(), "nothing is replaced");
    }

    #[test]
    fn nothing_is_written_outside_of_its_place() {
        for ours in [
            "backup.json",
            "store.db",
            "audit.db",
            "audit.mark",
            "ca.pem",
            "root.sealed",
            "keys/prod/1.key",
            "keys/a.key/20.key",
        ] {
            assert!(is_ours(Path::new(ours)), "{ours}");
        }
        for foreign in [
            "",
            "/etc/passwd",
            "../store.db",
            "keys",
            "keys/prod",
            "keys/prod/1",
            "keys/../1.key",
            "keys/prod/x.key",
            "keys/prod/1.key/2.key",
            "unlock.key",
            "root.key",
            "lock",
            "./../store.db",
        ] {
            assert!(!is_ours(Path::new(foreign)), "{foreign}");
        }
    }
}
