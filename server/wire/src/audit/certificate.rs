use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, aws_lc_rs as algorithms};

use super::hash::CertificateFingerprint;
use crate::ChainId;

/// The purpose (extended key usage) of an audit key's certificate, and of no other that the CA issues:
/// `id-kp-documentSigning` (RFC 9336). TLS takes it for neither a server nor a client.
pub const KEY_PURPOSE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 36];
/// The same in DER.
const KEY_PURPOSE_DER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 36];

/// Why a certificate is none of an audit key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuditCertificate {
    /// It is no certificate.
    #[error("it is no certificate")]
    Malformed,
    /// The CA has not issued it, or for something else, or it does not hold at this time.
    #[error("the CA has not certified it as an audit key at that time")]
    NotCertified,
    /// It names another chain.
    #[error("it is of another chain")]
    OtherChain,
}

/// The URI that an audit key's certificate names.
pub fn subject_uri(chain: ChainId) -> String {
    format!("secretfs://audit/{chain}")
}

/// The certificates of a manager's CA.
#[derive(Debug, Clone)]
pub struct CaBundle(Vec<CertificateDer<'static>>);

impl CaBundle {
    /// From certificates in DER.
    pub fn new(certificates: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(certificates.into_iter().map(CertificateDer::from).collect())
    }

    /// From certificates in PEM; `None` when there are none or they are malformed.
    pub fn from_pem(pem: &str) -> Option<Self> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        all.ok().filter(|all| !all.is_empty()).map(Self)
    }
}

/// The certificate of an audit key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCertificate(CertificateDer<'static>);

impl AuditCertificate {
    /// From DER.
    pub fn from_der(der: Vec<u8>) -> Self {
        Self(der.into())
    }

    /// From the base64 of its DER.
    pub fn from_text(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok().map(Self::from_der)
    }

    /// The base64 of its DER.
    pub fn to_text(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// Its DER.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// What names it in records and checkpoints.
    pub fn fingerprint(&self) -> CertificateFingerprint {
        let mut fingerprint = [0; digest::SHA256_OUTPUT_LEN];
        fingerprint.copy_from_slice(digest::digest(&SHA256, &self.0).as_ref());
        CertificateFingerprint::new(fingerprint)
    }

    /// Checks that the CA issued it for an audit key of this chain, and that it held at this time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(
        &self,
        authority: &CaBundle,
        chain: ChainId,
        at: Timestamp,
    ) -> Result<(), InvalidAuditCertificate> {
        let certificate = EndEntityCert::try_from(&self.0).map_err(|_| InvalidAuditCertificate::Malformed)?;
        let anchors: Vec<_> =
            authority.0.iter().filter_map(|certificate| anchor_from_trusted_cert(certificate).ok()).collect();
        let since_epoch = Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default());
        certificate
            .verify_for_usage(
                &[algorithms::ECDSA_P256_SHA256],
                &anchors,
                &[],
                UnixTime::since_unix_epoch(since_epoch),
                KeyUsage::required(KEY_PURPOSE_DER),
                None,
                None,
            )
            .map_err(|_| InvalidAuditCertificate::NotCertified)?;
        let expected = subject_uri(chain);
        let mut names = certificate.valid_uri_names();
        if names.next() == Some(expected.as_str()) && names.next().is_none() {
            Ok(())
        } else {
            Err(InvalidAuditCertificate::OtherChain)
        }
    }

    /// Whether its key has signed these bytes.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(&self.0) else { return false };
        certificate.verify_signature(algorithms::ECDSA_P256_SHA256, message, signature).is_ok()
    }
}
