//! Opening a log: what was written since its last checkpoint is verified, and a chain that came from a
//! backup is left as it is and a new one begun.

use std::sync::Arc;

use secretfs_wire::Action;
use secretfs_wire::ChainId;
use secretfs_wire::audit::{
    Actor, Damage, Event, Fault, Line, Outcome, Record, SignedCheckpoint, Verifier, WrittenRecord,
};

use super::error::OpenAuditError;
use super::key::SigningKey;
use crate::app::now;
use crate::ca::Authority;
use crate::keys::RootKey;
use crate::store::{AuditBatch, AuditLog, AuditMark, Head, NewRecord, StoredChain};

/// How many records are read at once.
const PAGE: u32 = 500;

/// A chain that can be gone on with.
pub(super) struct Opened {
    pub(super) chain: ChainId,
    pub(super) head: Head,
    pub(super) key: SigningKey,
    pub(super) signed: Option<SignedCheckpoint>,
}

/// What a log is opened with.
pub(super) struct Means<'a> {
    pub(super) log: &'a Arc<dyn AuditLog>,
    pub(super) mark: &'a dyn AuditMark,
    pub(super) authority: &'a Authority,
    pub(super) root: &'a RootKey,
}

impl Means<'_> {
    pub(super) async fn open(&self) -> Result<Opened, OpenAuditError> {
        let chains = self.log.chains().await?;
        let marked = self.mark.audit_chain().await?;
        if marked.is_some_and(|marked| chains.iter().all(|chain| chain.id != marked)) {
            return Err(OpenAuditError::Foreign);
        }
        let opened = match chains.last() {
            None => self.begin(None).await?,
            Some(StoredChain { id, ended: true, .. }) => {
                let before = self.go_on(*id).await?;
                self.begin(self.sign(before).await?).await?
            }
            Some(StoredChain { id, ended: false, .. }) => self.go_on(*id).await?,
        };
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
            records: vec![NewRecord { sequence: 1, environment: None, event: None, written }],
            checkpoint: Some(signed.clone()),
            key: Some(kept),
            durable: true,
            ..AuditBatch::default()
        };
        self.log.append(chain, batch).await?;
        Ok(Opened { chain, head, key, signed: Some(signed) })
    }

    /// Verifies what is after a chain's last checkpoint, and takes up its key.
    async fn go_on(&self, chain: ChainId) -> Result<Opened, OpenAuditError> {
        let keys = self.log.audit_keys(chain).await?;
        let chains = self.log.chains().await?;
        let head = chains.iter().find(|kept| kept.id == chain).and_then(|kept| kept.head);
        let authority = self.authority.ca_bundle();
        let signed = self.log.last_checkpoint(chain).await?;
        let certificate = signed.as_ref().and_then(|signed| {
            keys.iter().find(|(name, _)| *name == signed.checkpoint.key).map(|(_, key)| &key.certificate)
        });
        let (mut verifier, mut from) = match (&signed, certificate) {
            (Some(signed), Some(certificate)) => {
                let verifier = Verifier::from_checkpoint(authority, certificate, signed);
                (verifier.map_err(OpenAuditError::Fault)?, signed.checkpoint.sequence)
            }
            // Without one that can be checked, all of it.
            _ => (Verifier::new(authority), 1),
        };
        let fault = OpenAuditError::Fault;
        for (_, key) in &keys {
            verifier.take(&Line::Certificate(key.certificate.clone())).map_err(fault)?;
        }
        let mut last: Option<(u64, WrittenRecord)> = None;
        loop {
            let page = self.log.records(chain, from, None, PAGE).await?;
            let Some(end) = page.last() else { break };
            from = end.sequence + 1;
            for stored in page {
                verifier.record(&stored.written).map_err(fault)?;
                last = Some((stored.sequence, stored.written));
                if let Some(signed) =
                    signed.as_ref().filter(|signed| signed.checkpoint.sequence == stored.sequence)
                {
                    verifier.take(&Line::Checkpoint(signed.clone())).map_err(fault)?;
                }
            }
        }
        verifier.finish().map_err(|found| match found.damage {
            // Only the end was looked at, and what is missing may begin before it.
            Damage::Cut { .. } => {
                fault(Fault { sequence: head.map_or(1, |head| head.sequence + 1), ..found })
            }
            _ => fault(found),
        })?;
        let (sequence, written) = last.ok_or(OpenAuditError::Foreign)?;
        let key = SigningKey::open(self.root, &keys)?;
        Ok(Opened { chain, head: Head { sequence, hash: written.hash }, key, signed })
    }

    /// A checkpoint about all of a chain that is not gone on with.
    async fn sign(&self, opened: Opened) -> Result<Option<SignedCheckpoint>, OpenAuditError> {
        let Opened { chain, head, key, signed } = opened;
        if signed.as_ref().is_some_and(|signed| signed.checkpoint.sequence == head.sequence) {
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
        Ok(Some(signed))
    }
}
