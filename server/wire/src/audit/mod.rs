//! The audit log: what its records say, how they hang together, and how that is verified.
//!
//! A record holds the hash of the one before it, so that who changes, removes or moves one has to write
//! all that follow anew. Signed checkpoints make that impossible for whoever lacks the audit key: each
//! says how many records a chain had and the hash of the last. The key's certificate is of the manager's
//! CA, so who has that can verify an export without the manager.

mod certificate;
mod checkpoint;
mod event;
mod fault;
mod hash;
mod line;
mod mode;
mod record;
#[cfg(test)]
mod tests;
mod verify;

pub use certificate::{AuditCertificate, CaBundle, InvalidAuditCertificate, KEY_PURPOSE, subject_uri};
pub use checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
pub use event::{Actor, Doubt, Event, EventId, Input, Lost, Object, Outcome, Process, Unseen};
pub use fault::{Damage, Fault};
pub use hash::{CertificateFingerprint, InvalidHash, RecordHash};
pub use line::{Line, MalformedLine};
pub use mode::{AuditMode, InvalidAuditMode};
pub use record::{RECORD_MAX_NUMBER, Record, RecordError, WrittenRecord};
pub use verify::{Summary, Verifier};
