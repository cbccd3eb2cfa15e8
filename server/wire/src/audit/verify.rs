use std::collections::BTreeMap;

use jiff::Timestamp;

use super::certificate::{AuditCertificate, CaBundle};
use super::checkpoint::{Checkpoint, SignedCheckpoint};
use super::fault::{Damage, Fault};
use super::hash::{CertificateFingerprint, RecordHash};
use super::line::Line;
use super::record::{Record, WrittenRecord};
use crate::ChainId;

/// Verifies a chain line by line, in constant memory, and ends at the first fault.
#[derive(Debug)]
pub struct Verifier {
    authority: CaBundle,
    certificates: BTreeMap<CertificateFingerprint, AuditCertificate>,
    /// A checkpoint that the chain must go on from; without one it is verified from its first record.
    from: Option<Checkpoint>,
    chain: Option<ChainId>,
    /// The number that the next record must have, and the hash of the one before it.
    next: u64,
    previous: Option<RecordHash>,
    signer: Option<CertificateFingerprint>,
    /// The key that signs as soon as the one before it has signed for that.
    successor: Option<(CertificateFingerprint, Timestamp)>,
    /// A record that is not the next one: what comes after it says whether one is missing or two are
    /// swapped.
    misplaced: Option<u64>,
    /// A checkpoint said that there are so many records, and more than were given until then.
    ahead: Option<u64>,
    /// Checkpoints that are known from elsewhere and not come to yet.
    known: Vec<Checkpoint>,
    summary: Summary,
}

/// What was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The chain; none if there was no record.
    pub chain: Option<ChainId>,
    /// How many records were verified.
    pub records: u64,
    /// The first one's number.
    pub first: u64,
    /// The last one's number.
    pub last: u64,
    /// How many checkpoints were.
    pub checkpoints: u64,
    /// Up to which record the last checkpoint goes. Whoever could write the log could have made what comes
    /// after it.
    pub signed: u64,
    /// When the first record after it was recorded, if there is one.
    pub unsigned_since: Option<Timestamp>,
    /// The audit keys, in the order in which they signed.
    pub keys: Vec<CertificateFingerprint>,
    /// The other chains that records of this one take up.
    pub follows: Vec<SignedCheckpoint>,
    /// The hash of the last record.
    pub hash: Option<RecordHash>,
}

impl Verifier {
    /// Verifies a chain from its first record.
    pub fn new(authority: CaBundle) -> Self {
        Self {
            authority,
            certificates: BTreeMap::new(),
            from: None,
            chain: None,
            next: 1,
            previous: None,
            signer: None,
            successor: None,
            misplaced: None,
            ahead: None,
            known: Vec::new(),
            summary: Summary::default(),
        }
    }

    /// Verifies how a chain goes on from a checkpoint that was kept elsewhere. The first record to be
    /// given is the one that the checkpoint is about.
    ///
    /// # Errors
    /// When the checkpoint's own signature or certificate is not good.
    pub fn from_checkpoint(
        authority: CaBundle,
        certificate: &AuditCertificate,
        signed: &SignedCheckpoint,
    ) -> Result<Self, Fault> {
        let checkpoint = &signed.checkpoint;
        let mut verifier = Self::new(authority);
        verifier.chain = Some(checkpoint.chain);
        verifier.next = checkpoint.sequence;
        verifier.certificates.insert(certificate.fingerprint(), certificate.clone());
        verifier.take_key(checkpoint.key, checkpoint.time)?;
        if !signed.is_signed_by(certificate) {
            return Err(verifier.here(Damage::Signature));
        }
        verifier.from = Some(checkpoint.clone());
        Ok(verifier)
    }

    /// Holds the chain, if it is the one, against a checkpoint that is known from elsewhere, such as from
    /// the chain that follows it. Its signature is not checked here.
    pub fn must_meet(&mut self, checkpoint: &Checkpoint) {
        self.known.push(checkpoint.clone());
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// The first fault. Nothing that is given after it is verified.
    pub fn line(&mut self, text: &str) -> Result<(), Fault> {
        match Line::read(text) {
            Ok(line) => self.take(&line),
            Err(_) => Err(self.unreadable()),
        }
    }

    /// What it means that what stands next is no line.
    pub fn unreadable(&mut self) -> Fault {
        self.misplacement(None).unwrap_or_else(|| self.here(Damage::Malformed))
    }

    /// The same with what was read already.
    ///
    /// # Errors
    /// The first fault.
    pub fn take(&mut self, line: &Line) -> Result<(), Fault> {
        match line {
            Line::Certificate(certificate) => {
                self.certificates.insert(certificate.fingerprint(), certificate.clone());
                Ok(())
            }
            Line::Record(written) => self.record(written).map(drop),
            Line::Checkpoint(checkpoint) => self.checkpoint(checkpoint),
        }
    }

    /// Takes the next record, and gives it read.
    ///
    /// # Errors
    /// The first fault.
    pub fn record(&mut self, written: &WrittenRecord) -> Result<Record, Fault> {
        let record = Record::read(&written.text);
        let number = record.as_ref().ok().map(|record| record.sequence);
        if let Some(fault) = self.misplacement(number).or_else(|| self.hole(number)) {
            return Err(fault);
        }
        if WrittenRecord::hash_of(&written.text) != written.hash {
            return Err(self.here(Damage::Changed));
        }
        let record = record.map_err(|_| self.here(Damage::NoRecord))?;
        if self.chain.is_some_and(|chain| chain != record.chain) {
            return Err(self.here(Damage::OtherChain));
        }
        if record.sequence != self.next {
            if record.sequence < self.next {
                return Err(self.here(Damage::OutOfPlace { found: record.sequence }));
            }
            // Whether it is missing is known at the next one.
            self.misplaced = Some(record.sequence);
            return Ok(record);
        }
        match self.from.take() {
            Some(from) if from.hash != written.hash => return Err(self.here(Damage::Forged)),
            Some(from) => self.summary.signed = from.sequence,
            None if record.previous != self.previous => return Err(self.here(Damage::DoesNotFollow)),
            None => {}
        }
        self.settle(&record, written.hash)?;
        Ok(record)
    }

    /// What the record means for those that come.
    fn settle(&mut self, record: &Record, hash: RecordHash) -> Result<(), Fault> {
        if self.successor.is_some() {
            return Err(Fault { sequence: self.next - 1, damage: Damage::UnsignedKey });
        }
        self.chain = Some(record.chain);
        match (record.key, self.signer) {
            (None, None) => return Err(self.here(Damage::NoKey)),
            (Some(key), None) => self.take_key(key, record.time)?,
            (Some(key), Some(_)) => self.successor = Some((key, record.time)),
            (None, Some(_)) => {}
        }
        self.summary.chain = Some(record.chain);
        self.summary.follows.extend(record.follows.clone());
        let (here, elsewhere) = std::mem::take(&mut self.known)
            .into_iter()
            .partition::<Vec<_>, _>(|known| (known.chain, known.sequence) == (record.chain, record.sequence));
        self.known = elsewhere;
        if here.iter().any(|known| known.hash != hash) {
            return Err(self.here(Damage::Forged));
        }
        if self.summary.records == 0 {
            self.summary.first = record.sequence;
        }
        (self.summary.records, self.summary.last) = (self.summary.records + 1, record.sequence);
        self.summary.hash = Some(hash);
        if self.summary.signed < record.sequence {
            self.summary.unsigned_since.get_or_insert(record.time);
        }
        (self.previous, self.next) = (Some(hash), self.next + 1);
        Ok(())
    }

    fn take_key(&mut self, key: CertificateFingerprint, at: Timestamp) -> Result<(), Fault> {
        let certificate = self.certificates.get(&key).ok_or_else(|| self.here(Damage::NoCertificate(key)))?;
        if let Some(chain) = self.chain {
            certificate
                .check(&self.authority, chain, at)
                .map_err(|why| self.here(Damage::Certificate(key, why)))?;
        }
        self.signer = Some(key);
        self.summary.keys.push(key);
        Ok(())
    }

    fn checkpoint(&mut self, signed: &SignedCheckpoint) -> Result<(), Fault> {
        if self.misplaced.is_some() {
            // It is broken already, and the next record says how.
            return Ok(());
        }
        let checkpoint = &signed.checkpoint;
        let last = self.next - 1;
        let at = |damage| Fault { sequence: last, damage };
        if self.chain.is_some_and(|chain| chain != checkpoint.chain) {
            return Err(at(Damage::CheckpointOutOfPlace));
        }
        let signer = self.signer.ok_or_else(|| at(Damage::CheckpointOutOfPlace))?;
        if checkpoint.key != signer {
            return Err(at(Damage::WrongKey(checkpoint.key)));
        }
        let certificate = self.certificates.get(&signer).ok_or_else(|| at(Damage::NoCertificate(signer)))?;
        if !signed.is_signed_by(certificate) {
            return Err(at(Damage::Signature));
        }
        if checkpoint.sequence > last || self.from.is_some() {
            // Whether the chain is cut or has a hole is known at the next record.
            self.ahead = self.ahead.max(Some(checkpoint.sequence));
            return Ok(());
        }
        if checkpoint.sequence < last {
            return Err(at(Damage::CheckpointOutOfPlace));
        }
        if Some(checkpoint.hash) != self.previous {
            return Err(at(Damage::Forged));
        }
        self.summary.checkpoints += 1;
        (self.summary.signed, self.summary.unsigned_since) = (last, None);
        if let Some((key, time)) = self.successor.take() {
            self.take_key(key, time).map_err(|fault| at(fault.damage))?;
        }
        Ok(())
    }

    /// The number of the last record that was verified; 0 when there is none.
    pub fn last(&self) -> u64 {
        self.summary.last
    }

    /// Ends it.
    ///
    /// # Errors
    /// A fault that only the end shows.
    pub fn finish(mut self) -> Result<Summary, Fault> {
        if let Some(fault) = self.misplacement(None) {
            return Err(fault);
        }
        let known = self.known.iter().filter(|known| self.chain.is_none_or(|chain| chain == known.chain));
        let known = known.chain(&self.from).map(|checkpoint| checkpoint.sequence).max();
        if let Some(of) = self.ahead.max(known) {
            return Err(self.here(Damage::Cut { of }));
        }
        if self.successor.is_some() {
            return Err(Fault { sequence: self.next - 1, damage: Damage::UnsignedKey });
        }
        if self.summary.records == 0 {
            return Err(self.here(Damage::Empty));
        }
        if self.summary.signed == 0 {
            return Err(Fault { sequence: self.summary.first, damage: Damage::Unsigned });
        }
        Ok(self.summary)
    }

    /// What a record in a wrong place means, now that the one after it is known.
    fn misplacement(&mut self, follower: Option<u64>) -> Option<Fault> {
        let found = self.misplaced.take()?;
        let damage = match follower {
            Some(follower) if follower == self.next => Damage::Swapped { with: found },
            Some(follower) if follower == self.next + 1 && found > follower => Damage::OutOfPlace { found },
            _ => Damage::Missing { found },
        };
        Some(self.here(damage))
    }

    /// What it means that a record comes after a checkpoint that was ahead of it.
    fn hole(&self, found: Option<u64>) -> Option<Fault> {
        self.ahead?;
        let damage = match found.filter(|found| *found > self.next) {
            Some(found) => Damage::Missing { found },
            None => Damage::CheckpointOutOfPlace,
        };
        Some(self.here(damage))
    }

    fn here(&self, damage: Damage) -> Fault {
        Fault { sequence: self.next, damage }
    }
}
