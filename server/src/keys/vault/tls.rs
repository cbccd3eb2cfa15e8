//! TLS towards Vault: 1.3, or 1.2, which load balancers before it may still speak.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Why no TLS can be spoken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read vault.ca {}", .0.display())]
    Ca(PathBuf, #[source] rustls_pki_types::pem::Error),
    #[error("vault.ca {} has no certificate of an authority", .0.display())]
    NoCa(PathBuf),
    #[error("this system trusts no certificate authority; set vault.ca")]
    NoSystemRoots,
    #[error("the cryptographic library has no TLS")]
    Versions(#[source] rustls::Error),
}

/// Trusts the authority in this file and no other one, or else those of the system.
pub(super) fn config(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let roots = match ca {
        Some(path) => from_file(path)?,
        None => from_system()?,
    };
    let mut config = builder()?.with_root_certificates(roots).with_no_client_auth();
    // A connection for each call under way: no call waits behind another one that hangs.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_protocol_versions(&[&TLS13, &TLS12]).map_err(TlsError::Versions)
}

fn from_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let failed = |error| TlsError::Ca(path.to_owned(), error);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
        let certificate = certificate.map_err(failed)?;
        roots.add(certificate).map_err(|_| TlsError::NoCa(path.to_owned()))?;
    }
    if roots.is_empty() { Err(TlsError::NoCa(path.to_owned())) } else { Ok(roots) }
}

/// What of the system's store cannot be read is as if it were not there: which authority is missed is
/// seen when Vault's certificate is of it.
fn from_system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

/// Trusts nobody.
pub(super) fn without_roots() -> Result<ClientConfig, TlsError> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
