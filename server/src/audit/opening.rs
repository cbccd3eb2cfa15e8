//! Opening a log: what was written since it was signed last is verified, and a chain that came from a backup
//! is left as it is and a new one begun.

use std::sync::Arc;

use secretfs_wire::Action;
use secretfs_wire::ChainId;
use secretfs_wire::audit::{
    Actor, Checkpoint, Damage, Event, Fault, Line, Outcome, Record, SignedCheckpoint, Verifier,
};

use super::error::OpenAuditError;
use super::key::SigningKey;
use super::mark::SignedMark;
use super::reading::{Item, Reader};
use crate::app::now;
use crate::ca::Authority;
use crate::keys::RootKey;
use crate::store::{AuditBatch, AuditLog, AuditMark, Head, StoredChain, StoredRecord};

/// A chain that can be gone on with.
pub(super) struct Opened {
    pub(super) chain: ChainId,
    pub(super) head: Head,
    pub(super) key: SigningKey,
    pub(super) signed: SignedCheckpoint,
}

/// What a log is opened with.
pub(super) struct Means<'a> {
    pub(super) log: &'a Arc<dyn AuditLog>,
    pub(super) mark: &'a dyn AuditMark,
    pub(super) signed: &'a SignedMark,
    pub(super) authority: &'a Authority,
    pub(super) root: &'a RootKey,
}

impl Means<'_> {
    pub(super) async fn open(&self) -> Result<Opened, OpenAuditError> {
        let chains = self.log.chains().await?;
        let (marked, signed) = (self.mark.audit_chain().await?, self.signed.read()?);
        let mut known = marked.into_iter().chain(signed.as_ref().map(|signed| signed.chain));
        if known.any(|known| chains.iter().all(|chain| chain.id != known)) {
            return Err(OpenAuditError::Foreign);
        }
        let opened = match chains.last() {
            None => self.begin(None).await?,
            Some(last) => {
                let opened = self.go_on(last, signed).await?;
                if last.ended { self.begin(Some(self.sign(opened).await?)).await? } else { opened }
            }
        };
        self.signed.write(&opened.signed.checkpoint)?;
        if marked != Some(opened.chain) {
            self.mark.set_audit_chain(opened.chain).await?;
        }
        Ok(opened)
    }

    /// Begins a chain, which says of a chain before it how far that was.
    async fn begin(&self, follows: Option<SignedCheckpoint>) -> Result<Opened, OpenAuditError> {
        let (chain, time) = (ChainId::random(), now());
        let (key, kept) = SigningKey::make(self.authority, self.root, chain, time)?;
        let event = Event::new(Action::AuditBegin, Outcome::Done, Actor::Manager);
        let key_name = Some(key.fingerprint());
        let first = Record { chain, sequence: 1, time, previous: None, event, key: key_name, follows };
        let written = first.write().map_err(OpenAuditError::Record)?;
        let head = Head { sequence: 1, hash: written.hash };
        let signed = key.sign(chain, head, time).map_err(OpenAuditError::Sign)?;
        let batch = AuditBatch {
            records: vec![StoredRecord { sequence: 1, written }],
            checkpoint: Some(signed.clone()),
            key: Some(kept),
            durable: true,
            ..AuditBatch::default()
        };
        self.log.append(chain, batch).await?;
        Ok(Opened { chain, head, key, signed })
    }

    /// Verifies a chain from where it was signed last on, and takes up its key.
    async fn go_on(&self, chain: &StoredChain, signed: Option<Checkpoint>) -> Result<Opened, OpenAuditError> {
        let fault = OpenAuditError::Fault;
        let StoredChain { id, head, .. } = *chain;
        let number = head.map_or(0, |head| head.sequence);
        let (mut verifier, from) = match &signed {
            Some(marked) if marked.chain == id => (self.after(marked).await?, marked.sequence),
            // It was begun, and its manager killed before that was marked.
            _ if number == 1 => (Verifier::new(self.authority.ca_bundle()), 1),
            _ => return Err(OpenAuditError::Unmarked),
        };
        let mut reader = Reader::begin(Arc::clone(self.log), id, from).await?;
        let mut last = None;
        while let Some(items) = reader.some().await? {
            for item in items {
                item.verify(&mut verifier).map_err(fault)?;
                if let Item::Line(Line::Checkpoint(signed)) = item {
                    last = Some(signed);
                }
            }
        }
        let summary = verifier.finish().map_err(|found| match found.damage {
            // Only the end was looked at, and what is missing may begin before it.
            Damage::Cut { .. } => fault(Fault { sequence: number + 1, ..found }),
            _ => fault(found),
        })?;
        let is_next = |marked: &Checkpoint| {
            let mut links = summary.follows.iter().map(|link| &link.checkpoint);
            links.any(|link| link.chain == marked.chain && link.sequence >= marked.sequence)
        };
        if signed.is_some_and(|marked| marked.chain != id && !is_next(&marked)) {
            return Err(OpenAuditError::Foreign);
        }
        let (hash, signed) = summary.hash.zip(last).ok_or(OpenAuditError::Unsigned(from))?;
        let key = SigningKey::open(self.root, &self.log.audit_keys(id).await?)?;
        Ok(Opened { chain: id, head: Head { sequence: summary.last, hash }, key, signed })
    }

    /// What verifies how a chain goes on from where it is marked. The checkpoint has to be in the log as well;
    /// one that was signed once more after a failure has another time there.
    async fn after(&self, marked: &Checkpoint) -> Result<Verifier, OpenAuditError> {
        let gone = || OpenAuditError::Unsigned(marked.sequence);
        let found = self.log.checkpoints(marked.chain, marked.sequence, 1).await?.pop();
        let signed = found.and_then(|found| found.signed.ok()).ok_or_else(gone)?;
        let Checkpoint { chain, sequence, hash, key, .. } = &signed.checkpoint;
        if (chain, sequence, hash) != (&marked.chain, &marked.sequence, &marked.hash) {
            return Err(gone());
        }
        let keys = self.log.audit_keys(marked.chain).await?;
        let (_, key) = keys.iter().find(|(name, _)| name == key).ok_or_else(gone)?;
        let verifier = Verifier::from_checkpoint(self.authority.ca_bundle(), &key.certificate, &signed);
        verifier.map_err(OpenAuditError::Fault)
    }

    /// A checkpoint about all of a chain that is not gone on with.
    async fn sign(&self, opened: Opened) -> Result<SignedCheckpoint, OpenAuditError> {
        let Opened { chain, head, key, signed } = opened;
        if signed.checkpoint.sequence == head.sequence {
            return Ok(signed);
        }
        let signed = key.sign(chain, head, now()).map_err(OpenAuditError::Sign)?;
        let batch = AuditBatch {
            after: Some(head),
            checkpoint: Some(signed.clone()),
            durable: true,
            ..AuditBatch::default()
        };
        self.log.append(chain, batch).await?;
        Ok(signed)
    }
}
