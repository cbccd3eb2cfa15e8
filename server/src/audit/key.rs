use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use jiff::Timestamp;
use secretfs_wire::ChainId;
use secretfs_wire::audit::{
    AuditCertificate, CertificateFingerprint, Checkpoint, CheckpointError, SignedCheckpoint,
};

use crate::ca::{Authority, CaError};
use crate::keys::{KeyError, RootKey};
use crate::store::{AuditKeyRecord, Head};

const LABEL: &str = "secretfs audit key v1";

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditKeyError {
    #[error("the CA cannot certify an audit key")]
    Certify(#[source] CaError),
    #[error("the audit key cannot be sealed or opened")]
    Seal(#[source] KeyError),
    #[error("the audit key is damaged")]
    Damaged,
    #[error("the log has no audit key")]
    None,
}

/// The key that checkpoints are signed with.
pub(super) struct SigningKey {
    certificate: AuditCertificate,
    pair: EcdsaKeyPair,
    pub(super) made: Timestamp,
}

impl SigningKey {
    /// Makes one for a chain, and what is kept of it.
    pub(super) fn make(
        authority: &Authority,
        root: &RootKey,
        chain: ChainId,
        now: Timestamp,
    ) -> Result<(Self, AuditKeyRecord), AuditKeyError> {
        let (der, pkcs8) = authority.issue_audit(chain, now).map_err(AuditKeyError::Certify)?;
        let certificate = AuditCertificate::from_der(der);
        let name = certificate.fingerprint().to_string();
        let sealed = root.seal(LABEL, &name, &pkcs8).map_err(AuditKeyError::Seal)?;
        let record = AuditKeyRecord { certificate: certificate.clone(), made: now, sealed: Some(sealed) };
        Ok((Self::of(certificate, &pkcs8, now)?, record))
    }

    /// The one of these that still signs.
    pub(super) fn open(
        root: &RootKey,
        keys: &[(CertificateFingerprint, AuditKeyRecord)],
    ) -> Result<Self, AuditKeyError> {
        let signing = keys.iter().find_map(|(_, key)| Some((key, key.sealed.as_ref()?)));
        let (key, sealed) = signing.ok_or(AuditKeyError::None)?;
        let name = key.certificate.fingerprint().to_string();
        let pkcs8 = root.open(LABEL, &name, sealed).map_err(AuditKeyError::Seal)?;
        Self::of(key.certificate.clone(), &pkcs8, key.made)
    }

    fn of(certificate: AuditCertificate, pkcs8: &[u8], made: Timestamp) -> Result<Self, AuditKeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
            .map_err(|_| AuditKeyError::Damaged)?;
        Ok(Self { certificate, pair, made })
    }

    pub(super) fn fingerprint(&self) -> CertificateFingerprint {
        self.certificate.fingerprint()
    }

    /// Signs how far a chain is.
    pub(super) fn sign(
        &self,
        chain: ChainId,
        head: Head,
        time: Timestamp,
    ) -> Result<SignedCheckpoint, CheckpointError> {
        let Head { sequence, hash } = head;
        Checkpoint { chain, sequence, hash, time, key: self.fingerprint() }.sign(&self.pair)
    }
}
