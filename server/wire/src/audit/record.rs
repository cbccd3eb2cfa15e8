use aws_lc_rs::digest::{self, SHA256};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::checkpoint::SignedCheckpoint;
use super::event::Event;
use super::hash::{CertificateFingerprint, RecordHash};
use crate::ChainId;

/// What is hashed begins with this, so that no record is ever taken for anything else that is hashed.
const DOMAIN: &[u8] = b"secretfs audit record 1\n";
/// The largest number that a record may hold: what every JSON reader reads as it stands (RFC 8785).
pub const RECORD_MAX_NUMBER: u64 = (1 << 53) - 1;

/// A record that cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A number in it is too large for the encoding.
    #[error("a number is above 2^53 - 1")]
    Number,
    /// It is not a record, or not in the one form that there is for it.
    #[error("not a record in canonical form")]
    Form,
}

/// One record of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Record {
    /// The chain that it belongs to.
    pub chain: ChainId,
    /// Its place there; the first is 1.
    pub sequence: u64,
    /// When the manager recorded it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub time: Timestamp,
    /// The hash of the record before it; none of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<RecordHash>,
    /// What happened.
    pub event: Event,
    /// The audit key that signs from here on. The first record names one; a later one that does is
    /// itself signed for under the key before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<CertificateFingerprint>,
    /// Another chain as it was when this one took it up: of the manager that this one was restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<SignedCheckpoint>,
}

/// A record as it is kept and passed on: the bytes that are hashed, and their hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenRecord {
    /// The record in canonical JSON (RFC 8785).
    pub text: String,
    /// SHA-256 over a prefix and the text.
    pub hash: RecordHash,
}

impl Record {
    /// The record in its one form, and its hash.
    ///
    /// # Errors
    /// When a number in it is larger than the form has.
    pub fn write(&self) -> Result<WrittenRecord, RecordError> {
        let Event { count, lost, object, .. } = &self.event;
        let numbers = [Some(self.sequence), *count, lost.map(|lost| lost.total), object.version];
        if numbers.into_iter().flatten().any(|number| number > RECORD_MAX_NUMBER) {
            return Err(RecordError::Number);
        }
        let text = canonical(self).ok_or(RecordError::Form)?;
        let hash = WrittenRecord::hash_of(&text);
        Ok(WrittenRecord { text, hash })
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// When it is anything else, a space more or less included.
    pub fn read(text: &str) -> Result<Self, RecordError> {
        let record: Self = serde_json::from_str(text).map_err(|_| RecordError::Form)?;
        let again = record.write().map_err(|_| RecordError::Form)?;
        if again.text == text { Ok(record) } else { Err(RecordError::Form) }
    }
}

impl WrittenRecord {
    /// The hash that a record's text has.
    pub fn hash_of(text: &str) -> RecordHash {
        let mut context = digest::Context::new(&SHA256);
        context.update(DOMAIN);
        context.update(text.as_bytes());
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        hash.copy_from_slice(context.finish().as_ref());
        RecordHash::new(hash)
    }
}

pub(super) fn canonical(value: &impl Serialize) -> Option<String> {
    serde_json_canonicalizer::to_string(value).ok()
}
