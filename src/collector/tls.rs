//! TLS towards a collector: 1.3, or 1.2, which receivers of syslog may still speak.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::CollectorError;

/// Whom a collector has to be, and who we are to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    /// The authority that certifies it, and no other; without one those that the system trusts.
    pub(crate) ca: Option<PathBuf>,
    /// A certificate to show it.
    pub(crate) certificate: Option<PathBuf>,
    /// The key of that, if it is not in the same file.
    pub(crate) key: Option<PathBuf>,
}

impl Trust {
    /// TLS with these.
    pub(super) fn config(&self) -> Result<ClientConfig, CollectorError> {
        let builder = builder()?.with_root_certificates(self.roots()?);
        let Some(certificate) = &self.certificate else { return Ok(builder.with_no_client_auth()) };
        let key_path = self.key.as_ref().unwrap_or(certificate);
        let key = PrivateKeyDer::from_pem_file(key_path).map_err(|error| unusable(key_path, &error))?;
        builder
            .with_client_auth_cert(certificates(certificate)?, key)
            .map_err(|error| CollectorError::File { path: key_path.clone(), reason: error.to_string() })
    }

    fn roots(&self) -> Result<RootCertStore, CollectorError> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca else {
            // Which authority is missed is seen when the collector's certificate is of it.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return if roots.is_empty() { Err(CollectorError::NoRoots) } else { Ok(roots) };
        };
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| CollectorError::File { path: path.clone(), reason: error.to_string() })?;
        }
        Ok(roots)
    }
}

/// TLS in which nobody is who they should be.
pub(super) fn trusting_nobody() -> Result<ClientConfig, CollectorError> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12])
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CollectorError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Err(error) => Err(unusable(path, &error)),
        Ok(none) if none.is_empty() => Err(unusable(path, &pem::Error::NoItemsFound)),
        Ok(certificates) => Ok(certificates),
    }
}

fn unusable(path: &Path, error: &pem::Error) -> CollectorError {
    CollectorError::File { path: path.to_owned(), reason: error.to_string() }
}
