//! An operator's credentials on disk. Certificate and key are one file, so that a renewal replaces both
//! or neither, whoever reads them meanwhile.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use zeroize::Zeroizing;

use super::config::ConfigFile;
use super::error::Failure;
use crate::client::{CertificateSummary, Credentials};
use crate::host::files;

const CA: &str = "ca.pem";
const IDENTITY: &str = "operator.pem";
const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY";

/// A renewal by another command holds the lock for seconds at most.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Where the certificate and the key of an operator are.
#[derive(Debug, Clone)]
pub(super) struct IdentityFile {
    path: PathBuf,
    /// Where the key was, in a file of its own, before the first renewal.
    old_key: Option<PathBuf>,
}

/// A certificate and its key, as they are at this moment.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
}

/// Nobody else renews or replaces credentials in this directory as long as this lives.
pub(super) struct Lock(#[allow(dead_code, reason = "closing it is what unlocks")] File);

/// The credentials that a configuration names, and where they are.
pub(super) fn load(file: &ConfigFile) -> Result<(Credentials, IdentityFile), Failure> {
    let section = &file.operator;
    let ca = path(file, section.ca.as_deref(), "ca")?;
    let ca = fs::read_to_string(&ca).map_err(|error| unreadable("ca", &ca, &error))?;
    let at = path(file, section.certificate.as_deref(), "certificate")?;
    let identity_file = IdentityFile { path: at, old_key: section.key.as_ref().map(|key| file.resolve(key)) };
    let Identity { certificate, key } = match identity_file.read() {
        Err(error) => return Err(unreadable("certificate", &identity_file.path, &error)),
        Ok(Ok(identity)) => identity,
        Ok(Err(certificate)) => {
            let key = path(file, section.key.as_deref(), "key")?;
            let text = fs::read_to_string(&key).map_err(|error| unreadable("key", &key, &error))?;
            Identity { certificate, key: Zeroizing::new(text) }
        }
    };
    Ok((Credentials { certificate, key, ca }, identity_file))
}

fn path(file: &ConfigFile, path: Option<&Path>, key: &str) -> Result<PathBuf, Failure> {
    path.map(|path| file.resolve(path)).ok_or_else(|| {
        Failure::usage(format!("operator.{key} is not configured")).hint(
            "log in with `secretfs login`, or set SECRETFS_CONFIG to the file that `secretfs manager init` or \
             `secretfs dev` named",
        )
    })
}

fn unreadable(key: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot read operator.{key} {}: {error}", path.display()))
}

impl IdentityFile {
    /// Both, or the certificate alone where the key is in a file of its own.
    pub(super) fn read(&self) -> io::Result<Result<Identity, String>> {
        let text = Zeroizing::new(fs::read_to_string(&self.path)?);
        Ok(match text.find(KEY_BEGINS).map(|begin| text.split_at(begin)) {
            Some((certificate, key)) => {
                Ok(Identity { certificate: certificate.to_owned(), key: Zeroizing::new(key.to_owned()) })
            }
            None => Err(text.as_str().to_owned()),
        })
    }

    /// What the certificate says, if there is one.
    pub(super) fn summary(&self) -> Option<CertificateSummary> {
        let certificate = self.read().ok()?.map_or_else(|certificate| certificate, |both| both.certificate);
        CertificateSummary::of(&certificate)
    }

    /// Replaces certificate and key at once. A reader has the old pair or the new one.
    pub(super) fn replace(&self, certificate: &str, key: &str) -> io::Result<()> {
        // The file itself, and not a link to it.
        let path = fs::canonicalize(&self.path)?;
        write_identity(&path, certificate, key)?;
        if let Some(old) = &self.old_key
            && fs::canonicalize(old).is_ok_and(|old| old != path)
        {
            // Of no use any more, and a key: but the new pair is in its place already.
            let _ = fs::remove_file(old);
        }
        Ok(())
    }

    /// Whether the file is this user's own: one that root replaces could not be read by its owner.
    pub(super) fn is_own(&self) -> bool {
        let user = rustix::process::geteuid().as_raw();
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.uid() == user)
    }

    /// Keeps others from replacing it. `None` when somebody is at it.
    pub(super) fn try_lock(&self) -> io::Result<Option<Lock>> {
        try_lock(files::directory_of(&fs::canonicalize(&self.path)?))
    }
}

fn try_lock(directory: &Path) -> io::Result<Option<Lock>> {
    let directory = File::open(directory)?;
    match directory.try_lock() {
        Ok(()) => Ok(Some(Lock(directory))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn write_identity(path: &Path, certificate: &str, key: &str) -> io::Result<()> {
    let both = Zeroizing::new(format!("{}\n{key}", certificate.trim_end()));
    files::write_private(path, both.as_bytes())
}

/// A place where an operator's configuration and credentials are, or will be.
pub(super) struct Login {
    config: PathBuf,
    directory: PathBuf,
}

/// A login that is in the place of a new one.
pub(super) struct Occupied {
    pub(super) name: String,
    pub(super) until: jiff::Timestamp,
    pub(super) file: PathBuf,
}

impl Login {
    /// With the configuration in this file and the rest beside it.
    pub(super) fn at(config: &Path) -> Self {
        Self { config: config.to_owned(), directory: files::directory_of(config).to_owned() }
    }

    /// The configuration file.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// A login that is still good and would be lost: that of the configuration, or one that only has
    /// its files in the same place.
    pub(super) fn occupied(&self) -> Result<Option<Occupied>, Failure> {
        let mut files = vec![self.directory.join(IDENTITY)];
        if self.config.exists() {
            let config = ConfigFile::load(Some(&self.config))?;
            files.extend(config.operator.certificate.as_ref().map(|path| config.resolve(path)));
        }
        let now = jiff::Timestamp::now();
        Ok(files.into_iter().find_map(|file| {
            let summary = IdentityFile { path: file.clone(), old_key: None }.summary()?;
            (summary.end > now).then_some(Occupied { name: summary.name, until: summary.end, file })
        }))
    }

    /// Makes the directory, and keeps others from changing credentials in it.
    pub(super) async fn lock(&self) -> Result<Lock, Failure> {
        let failed = |error: io::Error| self.failed(&error);
        if !self.directory.exists() {
            files::create_private_directory(&self.directory).map_err(failed)?;
        }
        let began = Instant::now();
        loop {
            if let Some(lock) = try_lock(&self.directory).map_err(failed)? {
                return Ok(lock);
            }
            if began.elapsed() > LOCK_PATIENCE {
                let directory = self.directory.display();
                return Err(Failure::failed(format!(
                    "another command is changing credentials in {directory}"
                )));
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    /// Writes the credentials and, where it does not say so yet, the configuration.
    pub(super) fn write(
        &self,
        _lock: &Lock,
        manager: &str,
        environment: Option<&str>,
        credentials: &Credentials,
    ) -> Result<(), Failure> {
        let section = Section { manager, environment, ca: CA, certificate: IDENTITY };
        let existing = match fs::read_to_string(&self.config) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(|error| self.failed(&error))?,
        };
        let config = with_section(&existing, section).map_err(|error| Failure::from_error(&error))?;
        let write = || {
            files::write_private(&self.directory.join(CA), credentials.ca.as_bytes())?;
            write_identity(&self.directory.join(IDENTITY), &credentials.certificate, &credentials.key)?;
            if config != existing { files::write_private(&self.config, config.as_bytes()) } else { Ok(()) }
        };
        write().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::failed(format!("cannot write to {}: {error}", self.directory.display()))
    }
}

/// How an operator reaches the manager, as it stands in a configuration file.
#[derive(Serialize)]
struct Section<'a> {
    manager: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a str>,
    ca: &'a str,
    certificate: &'a str,
}

/// A configuration with this section, and all others as they are.
fn with_section(existing: &str, section: Section<'_>) -> Result<String, toml::ser::Error> {
    let section = toml::Value::try_from(section)?;
    // It was read as a configuration before.
    let mut table: toml::Table = toml::from_str(existing).unwrap_or_default();
    match table.get("operator") {
        Some(same) if *same == section => Ok(existing.to_owned()),
        Some(_) => {
            table.insert("operator".to_owned(), section);
            toml::to_string(&table)
        }
        // At the end, so that what somebody has written stays as it is.
        None => {
            let own = toml::to_string(&toml::Table::from_iter([("operator".to_owned(), section)]))?;
            Ok(if existing.trim().is_empty() { own } else { format!("{}\n\n{own}", existing.trim_end()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn credentials(name: &str) -> Credentials {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_after = rcgen::date_time_ymd(2200, 1, 1);
        let certificate = params.self_signed(&key).unwrap().pem();
        Credentials { ca: certificate.clone(), certificate, key: Zeroizing::new(key.serialize_pem()) }
    }

    async fn written(directory: &Path, name: &str) -> ConfigFile {
        let login = Login::at(&directory.join("config.toml"));
        let lock = login.lock().await.unwrap();
        login.write(&lock, "https://localhost:7443", Some("prod"), &credentials(name)).unwrap();
        ConfigFile::load(Some(login.config())).unwrap()
    }

    #[tokio::test]
    async fn a_login_is_read_as_it_was_written_and_by_nobody_else() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("secretfs");
        let file = written(&directory, "alice").await;
        let (read, at) = load(&file).unwrap();
        read.to_config().unwrap();
        assert_eq!(at.summary().unwrap().name, "alice");
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&directory).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let occupied = Login::at(&directory.join("other.toml")).occupied().unwrap().unwrap();
        assert_eq!(occupied.name, "alice");
        assert!(at.is_own() && at.try_lock().unwrap().is_some());
    }

    #[tokio::test]
    async fn certificate_and_key_are_never_those_of_two_pairs() {
        let parent = tempfile::tempdir().unwrap();
        let file = written(parent.path(), "alice").await;
        let (_, at) = load(&file).unwrap();
        let writing = std::thread::spawn(move || {
            for _ in 0..40 {
                let new = credentials("alice");
                at.replace(&new.certificate, &new.key).unwrap();
            }
        });
        let mut reads = 0;
        while !writing.is_finished() || reads == 0 {
            load(&file).unwrap().0.to_config().expect("a pair");
            reads += 1;
        }
        writing.join().unwrap();
    }

    #[tokio::test]
    async fn a_key_in_a_file_of_its_own_is_taken_until_the_first_renewal() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (credentials("admin"), credentials("admin"));
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("ca.pem", &old.ca);
        write("operator.pem", &old.certificate);
        write("operator-key.pem", &old.key);
        write(
            "config.toml",
            "[operator]\nca = 'ca.pem'\ncertificate = 'operator.pem'\nkey = 'operator-key.pem'\n",
        );
        let file = ConfigFile::load(Some(&directory.path().join("config.toml"))).unwrap();
        let (read, at) = load(&file).unwrap();
        assert_eq!(read.key.trim(), old.key.trim());
        at.replace(&new.certificate, &new.key).unwrap();
        let (read, _) = load(&file).unwrap();
        assert_eq!(read.key.trim(), new.key.trim());
        read.to_config().unwrap();
        assert!(!directory.path().join("operator-key.pem").exists());
    }

    #[test]
    fn what_else_stands_in_a_configuration_stays() {
        let section = || Section { manager: "https://a:1", environment: None, ca: CA, certificate: IDENTITY };
        let node = "# mine\n[node]\ndeadline = \"2s\"\n";
        let first = with_section(node, section()).unwrap();
        assert!(first.starts_with(node.trim_end()) && first.contains("[operator]"), "{first}");
        assert_eq!(with_section(&first, section()).unwrap(), first);
        let other = Section { manager: "https://b:2", ..section() };
        let second = with_section(&first, other).unwrap();
        assert!(second.contains("https://b:2") && !second.contains("https://a:1"), "{second}");
        assert!(second.contains("deadline = \"2s\""), "{second}");
    }
}
