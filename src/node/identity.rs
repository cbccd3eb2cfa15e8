//! What makes a node this node: its name, its keys and its certificate.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use secretfs_wire::envelope::{EnvelopeError, NodePrivateKey};
use secretfs_wire::{EnvironmentName, NodeId, NodeName};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::client::Credentials;
use crate::host::files;

/// A joined node. Its private keys were made here and never leave.
pub(crate) struct NodeIdentity {
    /// Who it is, and whose node.
    pub(crate) about: About,
    /// Its TLS certificate and key, and the manager's CA.
    pub(crate) credentials: Credentials,
    /// The key that session keys are wrapped to.
    pub(crate) envelope_key: NodePrivateKey,
}

/// Who a node is, and whose.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    /// The manager's URL.
    pub(crate) manager: Url,
    /// The environment it joined.
    pub(crate) environment: EnvironmentName,
    /// Its name there.
    pub(crate) name: NodeName,
    /// Its id.
    pub(crate) id: NodeId,
}

/// What is wrong with a node's state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// There is none.
    #[error("this host has not joined: there is no {0}")]
    NotJoined(PathBuf),
    /// There is one already.
    #[error("this host has joined as node {name} of environment {environment} already")]
    AlreadyJoined {
        /// Its name.
        name: NodeName,
        /// Its environment.
        environment: EnvironmentName,
    },
    /// A file cannot be read or written.
    #[error("cannot access {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The directory in which a node keeps its identity. Nothing in it is a secret's value, or a key
/// under which a stored value could be read.
#[derive(Debug, Clone)]
pub(crate) struct StateDirectory(PathBuf);

const ABOUT: &str = "node.toml";
const CA: &str = "ca.pem";
/// Certificate and key are one file, so that a renewal replaces both or neither.
const IDENTITY: &str = "identity.pem";
const ENVELOPE_KEY: &str = "envelope-key.der";

impl StateDirectory {
    /// The state kept at `path`, which need not exist yet.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Refuses when a node is kept here.
    pub(crate) fn ensure_vacant(&self) -> Result<(), StateError> {
        match self.load_about() {
            Err(StateError::NotJoined(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(about) => Err(StateError::AlreadyJoined { name: about.name, environment: about.environment }),
        }
    }

    /// Opens the files of the node that is kept here, for who may not open them itself.
    pub(crate) fn open(&self) -> Result<IdentityFiles, StateError> {
        let about = match self.open_file(ABOUT) {
            Err(StateError::File { path, source }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(StateError::NotJoined(path));
            }
            other => other?,
        };
        Ok(IdentityFiles {
            about,
            ca: self.open_file(CA)?,
            identity: self.open_file(IDENTITY)?,
            envelope_key: self.open_file(ENVELOPE_KEY)?,
        })
    }

    /// Keeps a node that has just joined.
    pub(crate) fn save(&self, identity: &NodeIdentity) -> Result<(), StateError> {
        files::create_private_directory(&self.0)
            .map_err(|source| StateError::File { path: self.0.clone(), source })?;
        self.write(CA, identity.credentials.ca.as_bytes())?;
        self.write(ENVELOPE_KEY, identity.envelope_key.expose_pkcs8())?;
        self.save_certificate(&identity.credentials.certificate, &identity.credentials.key)?;
        let about =
            toml::to_string(&identity.about).map_err(|error| self.damaged(ABOUT, &error.to_string()))?;
        // The last one, since its presence says that this host has joined.
        self.write(ABOUT, about.as_bytes())
    }

    /// Keeps a renewed certificate with its key.
    pub(crate) fn save_certificate(&self, certificate: &str, key: &str) -> Result<(), StateError> {
        let both = Zeroizing::new(format!("{}\n{key}", certificate.trim_end()));
        self.write(IDENTITY, both.as_bytes())
    }

    fn load_about(&self) -> Result<About, StateError> {
        self.open()?.about()
    }

    fn open_file(&self, name: &str) -> Result<NamedFile, StateError> {
        let path = self.0.join(name);
        match File::open(&path) {
            Ok(file) => Ok(NamedFile { name: path, file }),
            Err(source) => Err(StateError::File { path, source }),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        let path = self.0.join(name);
        files::write_private(&path, content).map_err(|source| StateError::File { path, source })
    }

    fn damaged(&self, name: &str, reason: &str) -> StateError {
        StateError::Damaged { path: self.0.join(name), reason: reason.to_owned() }
    }
}

/// The open files of a node's identity. Whoever has them can be this node, and needs no access to
/// the directory that they are in.
pub(crate) struct IdentityFiles {
    about: NamedFile,
    ca: NamedFile,
    identity: NamedFile,
    envelope_key: NamedFile,
}

struct NamedFile {
    name: PathBuf,
    file: File,
}

impl IdentityFiles {
    /// How many there are.
    pub(crate) const COUNT: usize = 4;

    /// Their descriptors, in the order in which [`from_descriptors`](Self::from_descriptors) takes them.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; Self::COUNT] {
        [&self.about, &self.ca, &self.identity, &self.envelope_key].map(|named| named.file.as_fd())
    }

    /// Takes descriptors that another process has opened.
    pub(crate) fn from_descriptors(descriptors: [OwnedFd; Self::COUNT]) -> Self {
        let [about, ca, identity, envelope_key] = descriptors;
        let named = |name: &str, descriptor| NamedFile { name: name.into(), file: File::from(descriptor) };
        Self {
            about: named(ABOUT, about),
            ca: named(CA, ca),
            identity: named(IDENTITY, identity),
            envelope_key: named(ENVELOPE_KEY, envelope_key),
        }
    }

    /// Reads the node.
    pub(crate) fn read(&self) -> Result<NodeIdentity, StateError> {
        let identity = Zeroizing::new(self.identity.text()?);
        let key_begin =
            identity.find("-----BEGIN PRIVATE KEY").ok_or_else(|| self.identity.damaged("no key"))?;
        let (certificate, key) = identity.split_at(key_begin);
        let envelope_key = Zeroizing::new(self.envelope_key.bytes()?);
        Ok(NodeIdentity {
            about: self.about()?,
            credentials: Credentials {
                certificate: certificate.to_owned(),
                key: Zeroizing::new(key.to_owned()),
                ca: self.ca.text()?,
            },
            envelope_key: NodePrivateKey::from_pkcs8(&envelope_key)
                .map_err(|error: EnvelopeError| self.envelope_key.damaged(&error.to_string()))?,
        })
    }

    fn about(&self) -> Result<About, StateError> {
        toml::from_str(&self.about.text()?).map_err(|error| self.about.damaged(error.message()))
    }
}

impl NamedFile {
    /// The whole content, from the beginning: several processes may share the descriptor's position.
    fn bytes(&self) -> Result<Vec<u8>, StateError> {
        let read = || {
            let mut content = vec![0; self.file.metadata()?.len() as usize];
            self.file.read_exact_at(&mut content, 0)?;
            Ok(content)
        };
        read().map_err(|source| StateError::File { path: self.name.clone(), source })
    }

    fn text(&self) -> Result<String, StateError> {
        String::from_utf8(self.bytes()?).map_err(|_| self.damaged("not text"))
    }

    fn damaged(&self, reason: &str) -> StateError {
        StateError::Damaged { path: self.name.clone(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::certificate_end;
    use rcgen::{CertificateParams, KeyPair};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn identity() -> NodeIdentity {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
        NodeIdentity {
            about: About {
                manager: "https://localhost:7443".parse().unwrap(),
                environment: "prod".parse().unwrap(),
                name: "web-1".parse().unwrap(),
                id: NodeId::random(),
            },
            credentials: Credentials {
                ca: certificate.clone(),
                certificate,
                key: Zeroizing::new(key.serialize_pem()),
            },
            envelope_key: NodePrivateKey::generate().unwrap(),
        }
    }

    #[test]
    fn a_node_is_the_same_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/node");
        let state = StateDirectory::at(&path);
        assert!(matches!(state.open().and_then(|files| files.read()), Err(StateError::NotJoined(_))));
        state.ensure_vacant().unwrap();

        let before = identity();
        state.save(&before).unwrap();
        let after = state.open().and_then(|files| files.read()).unwrap();
        assert_eq!(after.about.id, before.about.id);
        assert_eq!(after.credentials.key.trim(), before.credentials.key.trim());
        after.credentials.to_config().unwrap();
        assert!(certificate_end(&after.credentials.certificate).is_some());
        assert!(matches!(state.ensure_vacant(), Err(StateError::AlreadyJoined { .. })));
    }

    #[test]
    fn only_the_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node");
        StateDirectory::at(&path).save(&identity()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&path).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::at(directory.path());
        state.save(&identity()).unwrap();
        fs::write(directory.path().join(ENVELOPE_KEY), b"junk").unwrap();
        let Err(error) = state.open().and_then(|files| files.read()) else {
            panic!("junk was taken for a key")
        };
        assert!(error.to_string().contains(ENVELOPE_KEY), "{error}");
    }
}
