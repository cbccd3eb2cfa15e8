use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::AuditCertificate;
use super::hash::{CertificateFingerprint, RecordHash};
use super::record::{RECORD_MAX_NUMBER, canonical};
use crate::ChainId;

/// What is signed begins with this.
const DOMAIN: &[u8] = b"secretfs audit checkpoint 1\n";

/// A checkpoint that cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint cannot be signed")]
pub struct CheckpointError;

/// How far a chain was at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Checkpoint {
    /// The chain.
    pub chain: ChainId,
    /// How many records it had, which is the last one's number.
    pub sequence: u64,
    /// The last one's hash.
    pub hash: RecordHash,
    /// When it was signed.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub time: Timestamp,
    /// The audit key that it is signed with.
    pub key: CertificateFingerprint,
}

/// A checkpoint and its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignedCheckpoint {
    /// What is signed.
    pub checkpoint: Checkpoint,
    /// ECDSA on P-256 with SHA-256, in base64.
    pub signature: String,
}

impl Checkpoint {
    /// Signs it with the audit key.
    ///
    /// # Errors
    /// When the signature cannot be made.
    pub fn sign(self, key: &EcdsaKeyPair) -> Result<SignedCheckpoint, CheckpointError> {
        let message = self.message().ok_or(CheckpointError)?;
        let signature = key.sign(&SystemRandom::new(), &message).map_err(|_| CheckpointError)?;
        Ok(SignedCheckpoint { signature: STANDARD.encode(signature), checkpoint: self })
    }

    fn message(&self) -> Option<Vec<u8>> {
        if self.sequence > RECORD_MAX_NUMBER {
            return None;
        }
        Some([DOMAIN, canonical(self)?.as_bytes()].concat())
    }
}

impl SignedCheckpoint {
    /// Whether the key of this certificate has signed it.
    pub fn is_signed_by(&self, certificate: &AuditCertificate) -> bool {
        let (Some(message), Ok(signature)) = (self.checkpoint.message(), STANDARD.decode(&self.signature))
        else {
            return false;
        };
        self.checkpoint.key == certificate.fingerprint() && certificate.has_signed(&message, &signature)
    }
}
