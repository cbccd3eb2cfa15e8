use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::certificate::AuditCertificate;
use super::checkpoint::{Checkpoint, SignedCheckpoint};
use super::hash::RecordHash;
use super::record::WrittenRecord;

/// A text that is no line of an audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a line of an audit log")]
pub struct MalformedLine;

/// A line of an audit log as it is passed on and exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// An audit key's certificate; it comes before the record that names the key.
    Certificate(AuditCertificate),
    /// A record.
    Record(WrittenRecord),
    /// A checkpoint; it comes after the record that it is about.
    Checkpoint(SignedCheckpoint),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    Certificate { certificate: String },
    Record { hash: RecordHash, record: &'a RawValue },
    Checkpoint(&'a SignedCheckpoint),
}

/// Any line; which one it is depends on what is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    certificate: Option<String>,
    hash: Option<RecordHash>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    checkpoint: Option<Checkpoint>,
    signature: Option<String>,
}

impl Line {
    /// The line, without its line feed.
    ///
    /// # Errors
    /// When it holds a record that is no JSON.
    pub fn to_text(&self) -> Result<String, MalformedLine> {
        let raw;
        let written = match self {
            Self::Certificate(certificate) => Written::Certificate { certificate: certificate.to_text() },
            Self::Record(record) => {
                raw = serde_json::from_str::<&RawValue>(&record.text).map_err(|_| MalformedLine)?;
                Written::Record { hash: record.hash, record: raw }
            }
            Self::Checkpoint(checkpoint) => Written::Checkpoint(checkpoint),
        };
        serde_json::to_string(&written).map_err(|_| MalformedLine)
    }

    /// Reads a line in exactly the form that [`to_text`](Self::to_text) writes.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn read(text: &str) -> Result<Self, MalformedLine> {
        let line = match serde_json::from_str(text).map_err(|_| MalformedLine)? {
            Read { certificate: Some(text), hash: None, record: None, checkpoint: None, signature: None } => {
                Self::Certificate(AuditCertificate::from_text(&text).ok_or(MalformedLine)?)
            }
            Read {
                record: Some(record),
                hash: Some(hash),
                certificate: None,
                checkpoint: None,
                signature: None,
            } => Self::Record(WrittenRecord { text: record.get().to_owned(), hash }),
            Read {
                checkpoint: Some(checkpoint),
                signature: Some(signature),
                certificate: None,
                hash: None,
                record: None,
            } => Self::Checkpoint(SignedCheckpoint { checkpoint, signature }),
            _ => return Err(MalformedLine),
        };
        if line.to_text()? == text { Ok(line) } else { Err(MalformedLine) }
    }
}
