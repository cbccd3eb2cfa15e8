//! Keys that are made where they are used, and what certificates say.

use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

/// A fresh TLS key, and the request for its certificate.
pub(crate) struct CertificateRequest {
    /// The request, PEM.
    pub(crate) request: String,
    /// The key, PEM.
    pub(crate) key: Zeroizing<String>,
}

impl CertificateRequest {
    /// Makes a P-256 key. The request names nothing: the manager writes the names.
    pub(crate) fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?.pem()?;
        Ok(Self { request, key: Zeroizing::new(key.serialize_pem()) })
    }
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateSummary {
    /// Its common name.
    pub(crate) name: String,
    /// From when on it holds.
    pub(crate) begin: Timestamp,
    /// When it ends.
    pub(crate) end: Timestamp,
}

impl CertificateSummary {
    /// Of the first certificate in a PEM text, or `None` if there is none.
    pub(crate) fn of(pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Some(Self {
            name: name.unwrap_or_default().to_owned(),
            begin: time(certificate.validity().not_before)?,
            end: time(certificate.validity().not_after)?,
        })
    }
}

/// When a PEM certificate ends, or `None` if it is none.
pub(crate) fn certificate_end(pem: &str) -> Option<Timestamp> {
    CertificateSummary::of(pem).map(|summary| summary.end)
}
