use std::fmt;

use super::certificate::InvalidAuditCertificate;
use super::hash::CertificateFingerprint;

/// The first thing that is wrong with a chain, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place in the chain, which is the number of the record that is or should be there.
    pub sequence: u64,
    /// What is wrong there.
    pub damage: Damage,
}

/// How a chain can be damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The line after this record is none of an audit log.
    Malformed,
    /// The record does not have its hash.
    Changed,
    /// The record has its hash and is none.
    NoRecord,
    /// It is not there; the next that is there has this number.
    Missing {
        /// The number that stands in its place.
        found: u64,
    },
    /// It and another one stand in each other's place.
    Swapped {
        /// The number of the other one.
        with: u64,
    },
    /// Another record stands in its place.
    OutOfPlace {
        /// The number of the other one.
        found: u64,
    },
    /// The record names another hash for the one before it than that has: one of both was changed.
    DoesNotFollow,
    /// The record is of another chain.
    OtherChain,
    /// The chain ends before this record, although a signed checkpoint says that it is there.
    Cut {
        /// How many records a signed checkpoint says that there were.
        of: u64,
    },
    /// The signed checkpoint says another hash for this record than it has: it, or one before it, was
    /// changed, and all that follow were written anew.
    Forged,
    /// The checkpoint's signature is wrong.
    Signature,
    /// The checkpoint is signed with a key that is not the chain's at this place.
    WrongKey(CertificateFingerprint),
    /// The chain names a key whose certificate is not there.
    NoCertificate(CertificateFingerprint),
    /// A key's certificate is not good.
    Certificate(CertificateFingerprint, InvalidAuditCertificate),
    /// The checkpoint stands where it does not belong.
    CheckpointOutOfPlace,
    /// The first record names no key.
    NoKey,
    /// The record names a new key, and no checkpoint under the old one says so.
    UnsignedKey,
    /// There is no record at all, although each chain has a first one.
    Empty,
    /// No checkpoint signs for any record, although each chain is signed from its first record on.
    Unsigned,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequence, damage } = self;
        match damage {
            Damage::Malformed => {
                write!(f, "what stands in the place of record {sequence} is no line of an audit log")
            }
            Damage::Changed => write!(f, "record {sequence} was changed: it does not have its hash"),
            Damage::NoRecord => write!(f, "record {sequence} is not one in canonical form"),
            Damage::Missing { found } if *found == sequence + 1 => {
                write!(f, "record {sequence} is missing")
            }
            Damage::Missing { found } => write!(f, "records {sequence} to {} are missing", found - 1),
            Damage::Swapped { with } => write!(f, "records {sequence} and {with} are swapped"),
            Damage::OutOfPlace { found } => {
                write!(f, "record {found} stands in the place of record {sequence}")
            }
            Damage::DoesNotFollow => {
                write!(f, "record {sequence} does not follow the one before it: one of both was changed")
            }
            Damage::OtherChain => write!(f, "record {sequence} is of another chain"),
            Damage::Cut { of } => write!(
                f,
                "record {sequence} is missing and the chain ends: a signed checkpoint says that it had {of} records"
            ),
            Damage::Forged => write!(
                f,
                "record {sequence} is not what its signed checkpoint says: it or one before it was changed, and what follows was written anew"
            ),
            Damage::Signature => {
                write!(f, "the signature of the checkpoint after record {sequence} is wrong")
            }
            Damage::WrongKey(key) => {
                write!(
                    f,
                    "the checkpoint after record {sequence} is signed with key {key}, which is not the chain's there"
                )
            }
            Damage::NoCertificate(key) => {
                write!(f, "record {sequence} names key {key}, whose certificate is not there")
            }
            Damage::Certificate(key, why) => {
                write!(
                    f,
                    "the certificate of key {key}, which signs from record {sequence} on, is not good: {why}"
                )
            }
            Damage::CheckpointOutOfPlace => {
                write!(f, "a checkpoint stands after record {sequence} that does not belong there")
            }
            Damage::NoKey => write!(f, "record {sequence} is the first and names no audit key"),
            Damage::UnsignedKey => write!(
                f,
                "record {sequence} names a new audit key, and no checkpoint under the old one says so"
            ),
            Damage::Empty => f.write_str("there is no record, not even the first"),
            Damage::Unsigned => {
                write!(
                    f,
                    "record {sequence} is not signed for, and none after it: the checkpoints are missing"
                )
            }
        }
    }
}

impl std::error::Error for Fault {}
