use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use jiff::Timestamp;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use super::*;
use crate::{Action, ChainId, OpenLogId};

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    bundle: CaBundle,
}

struct AuditKey {
    certificate: AuditCertificate,
    pair: EcdsaKeyPair,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("a certificate");
        let bundle = CaBundle::new([certificate.der().to_vec()]);
        Self { bundle, issuer: Issuer::new(params, key) }
    }

    fn key(&self, chain: ChainId) -> AuditKey {
        self.key_for(&subject_uri(chain), ExtendedKeyUsagePurpose::Other(KEY_PURPOSE.to_vec()))
    }

    fn key_for(&self, uri: &str, purpose: ExtendedKeyUsagePurpose) -> AuditKey {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der());
        AuditKey {
            certificate: AuditCertificate::from_der(certificate.der().to_vec()),
            pair: pair.expect("a key pair"),
        }
    }
}

/// A chain that can be written to.
struct Chain {
    ca: Ca,
    id: ChainId,
    key: AuditKey,
    lines: Vec<Line>,
    last: u64,
    hash: Option<RecordHash>,
}

impl Chain {
    fn new() -> Self {
        let (ca, id) = (Ca::new(), ChainId::random());
        let key = ca.key(id);
        let lines = vec![Line::Certificate(key.certificate.clone())];
        let mut chain = Self { ca, id, key, lines, last: 0, hash: None };
        let key = chain.key.certificate.fingerprint();
        chain.append(Action::AuditBegin, Some(key));
        chain
    }

    /// `records` more, a checkpoint after each third.
    fn of(records: u64) -> Self {
        let mut chain = Self::new();
        for _ in 1..records {
            chain.append(Action::SecretRotate, None);
            if chain.last.is_multiple_of(3) {
                chain.sign();
            }
        }
        chain
    }

    fn append(&mut self, action: Action, key: Option<CertificateFingerprint>) {
        let mut event = Event::new(action, Outcome::Done, Actor::Manager);
        event.reason = Some(format!("\u{e9} \"{}\" \u{2028}", self.last));
        event.id = Some(EventId { log: OpenLogId::random(), number: u64::MAX - self.last });
        let record = Record {
            chain: self.id,
            sequence: self.last + 1,
            time: Timestamp::now(),
            previous: self.hash,
            event,
            key,
            follows: None,
        };
        self.push(&record);
    }

    fn push(&mut self, record: &Record) {
        let written = record.write().expect("written");
        (self.last, self.hash) = (record.sequence, Some(written.hash));
        self.lines.push(Line::Record(written));
    }

    fn checkpoint(&self) -> SignedCheckpoint {
        let checkpoint = Checkpoint {
            chain: self.id,
            sequence: self.last,
            hash: self.hash.expect("a record"),
            time: Timestamp::now(),
            key: self.key.certificate.fingerprint(),
        };
        checkpoint.sign(&self.key.pair).expect("signed")
    }

    fn sign(&mut self) {
        self.lines.push(Line::Checkpoint(self.checkpoint()));
    }

    /// Where record `number` stands.
    fn at(&self, number: u64) -> usize {
        let is_it = |line: &Line| match line {
            Line::Record(written) => Record::read(&written.text).is_ok_and(|r| r.sequence == number),
            _ => false,
        };
        self.lines.iter().position(is_it).expect("a record")
    }

    fn record(&mut self, number: u64) -> &mut WrittenRecord {
        let at = self.at(number);
        let Line::Record(written) = &mut self.lines[at] else { panic!("a record") };
        written
    }

    fn verify(&self) -> Result<Summary, Fault> {
        let mut verifier = Verifier::new(self.ca.bundle.clone());
        self.lines.iter().try_for_each(|line| verifier.take(line))?;
        verifier.finish()
    }

    fn damage(&self) -> (u64, Damage) {
        let fault = self.verify().expect_err("a damaged chain");
        (fault.sequence, fault.damage)
    }

    fn export(&self) -> Vec<u8> {
        let lines = self.lines.iter().map(|line| line.to_text().expect("a line") + "\n");
        lines.collect::<String>().into_bytes()
    }
}

fn verify_export(bundle: &CaBundle, export: &[u8]) -> Result<Summary, Fault> {
    let malformed = |sequence| Fault { sequence, damage: Damage::Malformed };
    let text = std::str::from_utf8(export).map_err(|_| malformed(0))?;
    let mut verifier = Verifier::new(bundle.clone());
    for line in text.strip_suffix('\n').ok_or_else(|| malformed(0))?.split('\n') {
        verifier.line(line)?;
    }
    verifier.finish()
}

#[test]
fn a_whole_chain_is_verified() {
    let chain = Chain::of(10);
    let summary = chain.verify().expect("whole");
    assert_eq!((summary.first, summary.records, summary.last), (1, 10, 10));
    assert_eq!((summary.checkpoints, summary.signed), (3, 9));
    let Line::Record(unsigned) = &chain.lines[chain.at(10)] else { panic!("a record") };
    let since = Record::read(&unsigned.text).expect("a record").time;
    assert_eq!(summary.unsigned_since, Some(since), "of the one after the last signature");
    assert_eq!(summary.keys, [chain.key.certificate.fingerprint()]);
    assert_eq!(verify_export(&chain.ca.bundle, &chain.export()), Ok(summary));
}

#[test]
fn each_damage_is_named() {
    let mut changed = Chain::of(10);
    let record = changed.record(5);
    record.text = record.text.replace("rotate", "create");
    assert_eq!(changed.damage(), (5, Damage::Changed));
    // Also when it was given the hash that it has now.
    let record = changed.record(5);
    record.hash = WrittenRecord::hash_of(&record.text);
    assert_eq!(changed.damage(), (6, Damage::DoesNotFollow));

    let mut missing = Chain::of(10);
    missing.lines.remove(missing.at(5));
    assert_eq!(missing.damage(), (5, Damage::Missing { found: 6 }));
    missing.lines.remove(missing.at(6));
    assert_eq!(missing.damage(), (5, Damage::Missing { found: 7 }));

    for (one, other) in [(4, 5), (6, 7)] {
        let mut swapped = Chain::of(10);
        let (here, there) = (swapped.at(one), swapped.at(other));
        swapped.lines.swap(here, there);
        assert_eq!(swapped.damage(), (one, Damage::Swapped { with: other }), "also across a checkpoint");
    }
    let mut moved = Chain::of(10);
    let (here, there) = (moved.at(4), moved.at(8));
    moved.lines.swap(here, there);
    assert_eq!(moved.damage(), (4, Damage::OutOfPlace { found: 8 }));
    let mut twice = Chain::of(10);
    let again = twice.lines[twice.at(4)].clone();
    twice.lines.insert(twice.at(8), again);
    assert_eq!(twice.damage(), (8, Damage::OutOfPlace { found: 4 }));

    let mut cut = Chain::of(10);
    let last = cut.at(9);
    cut.lines.remove(last);
    cut.lines.pop();
    assert_eq!(cut.damage(), (9, Damage::Cut { of: 9 }));

    // Record 5 was made another, and what follows written anew.
    let mut forged = Chain::of(5);
    let signed = {
        forged.append(Action::SecretRotate, None);
        forged.checkpoint()
    };
    forged.lines.pop();
    (forged.last, forged.hash) = (4, forged.lines.iter().rev().nth(1).and_then(hash_of));
    forged.lines.pop();
    forged.append(Action::SecretRemove, None);
    forged.append(Action::SecretRotate, None);
    forged.lines.push(Line::Checkpoint(signed));
    assert_eq!(forged.damage(), (6, Damage::Forged));
}

fn hash_of(line: &Line) -> Option<RecordHash> {
    match line {
        Line::Record(written) => Some(written.hash),
        _ => None,
    }
}

#[test]
fn nothing_is_whole_that_nobody_has_signed() {
    let mut chain = Chain::of(10);
    chain.lines.retain(|line| !matches!(line, Line::Checkpoint(_)));
    assert_eq!(chain.damage(), (1, Damage::Unsigned));
    chain.lines.retain(|line| matches!(line, Line::Certificate(_)));
    assert_eq!(chain.damage(), (1, Damage::Empty));
    chain.lines.clear();
    assert_eq!(chain.damage(), (1, Damage::Empty));
    let mut chain = Chain::of(9);
    assert_eq!(chain.verify().expect("whole").unsigned_since, None);
    // One signature is enough to say whose it is, and what is after it is told apart.
    chain.append(Action::SecretRotate, None);
    chain.append(Action::SecretRotate, None);
    let summary = chain.verify().expect("whole");
    assert_eq!((summary.signed, summary.last), (9, 11));
}

#[test]
fn a_known_checkpoint_is_held_against_its_own_chain_alone() {
    let (mut chain, other) = (Chain::of(6), Chain::of(6));
    chain.sign();
    let held = |known: &SignedCheckpoint| {
        let mut verifier = Verifier::new(chain.ca.bundle.clone());
        verifier.must_meet(&known.checkpoint);
        chain.lines.iter().try_for_each(|line| verifier.take(line))?;
        verifier.finish()
    };
    held(&chain.checkpoint()).expect("it meets it");
    held(&other.checkpoint()).expect("it is none of it");
    let mut forged = chain.checkpoint();
    forged.checkpoint.hash = other.checkpoint().checkpoint.hash;
    assert_eq!(held(&forged).map_err(|fault| fault.damage), Err(Damage::Forged));
    forged.checkpoint.sequence = 7;
    assert_eq!(held(&forged).map_err(|fault| fault.damage), Err(Damage::Cut { of: 7 }));
}

#[test]
fn a_checkpoint_is_worth_what_its_key_is() {
    let mut chain = Chain::of(4);
    let mut signed = chain.checkpoint();
    signed.checkpoint.time = Timestamp::UNIX_EPOCH;
    chain.lines.push(Line::Checkpoint(signed));
    assert_eq!(chain.damage(), (4, Damage::Signature));

    // Another key of the same CA, for anything else than this chain's log, or of another CA.
    let id = ChainId::random();
    let (ca, stranger) = (Ca::new(), Ca::new());
    let purpose = || ExtendedKeyUsagePurpose::Other(KEY_PURPOSE.to_vec());
    for (key, why) in [
        (
            ca.key_for(&subject_uri(id), ExtendedKeyUsagePurpose::ClientAuth),
            InvalidAuditCertificate::NotCertified,
        ),
        (ca.key_for("secretfs://operator/eve", purpose()), InvalidAuditCertificate::OtherChain),
        (ca.key(ChainId::random()), InvalidAuditCertificate::OtherChain),
        (stranger.key(id), InvalidAuditCertificate::NotCertified),
    ] {
        let fingerprint = key.certificate.fingerprint();
        let lines = vec![Line::Certificate(key.certificate.clone())];
        let ca = Ca { bundle: ca.bundle.clone(), issuer: Ca::new().issuer };
        let mut chain = Chain { ca, id, key, lines, last: 0, hash: None };
        chain.append(Action::AuditBegin, Some(fingerprint));
        assert_eq!(chain.damage(), (1, Damage::Certificate(fingerprint, why)));
    }
    let mut chain = Chain::of(4);
    let key = chain.key.certificate.fingerprint();
    chain.lines.remove(0);
    assert_eq!(chain.damage(), (1, Damage::NoCertificate(key)));
}

#[test]
fn a_new_key_signs_once_the_old_one_says_so() {
    let mut chain = Chain::of(4);
    let next = chain.ca.key(chain.id);
    chain.lines.insert(0, Line::Certificate(next.certificate.clone()));
    chain.append(Action::AuditRotate, Some(next.certificate.fingerprint()));
    assert_eq!(chain.damage(), (5, Damage::UnsignedKey));
    let old = chain.checkpoint();
    let before = std::mem::replace(&mut chain.key, next);
    // The new one for itself.
    chain.lines.push(Line::Checkpoint(chain.checkpoint()));
    assert!(matches!(chain.damage(), (5, Damage::WrongKey(_))));
    chain.lines.pop();
    chain.lines.push(Line::Checkpoint(old));
    chain.append(Action::SecretRotate, None);
    chain.sign();
    let summary = chain.verify().expect("whole");
    assert_eq!(summary.keys, [before.certificate.fingerprint(), chain.key.certificate.fingerprint()]);
    // The old one is of no use any more.
    chain.append(Action::SecretRotate, None);
    chain.key = before;
    chain.sign();
    assert!(matches!(chain.damage(), (7, Damage::WrongKey(_))));
}

#[test]
fn a_checkpoint_that_was_kept_elsewhere_is_gone_on_from() {
    let mut chain = Chain::of(5);
    let kept = chain.checkpoint();
    chain.append(Action::SecretRotate, None);
    let lines = chain.lines.split_off(chain.at(5));
    let go_on = |lines: &[Line]| {
        let certificate = &chain.key.certificate;
        let mut verifier = Verifier::from_checkpoint(chain.ca.bundle.clone(), certificate, &kept)?;
        lines.iter().try_for_each(|line| verifier.take(line))?;
        verifier.finish()
    };
    let summary = go_on(&lines).expect("it goes on");
    assert_eq!((summary.first, summary.last), (5, 6));
    assert_eq!(go_on(&[]).map_err(|fault| fault.damage), Err(Damage::Cut { of: 5 }));
    let other = Chain::of(5);
    let mut forged = lines.clone();
    forged[0] = other.lines[other.at(5)].clone();
    assert_eq!(go_on(&forged).map_err(|fault| fault.damage), Err(Damage::OtherChain));
}

#[test]
fn there_is_one_form_of_a_record() {
    let chain = Chain::of(2);
    let Line::Record(written) = &chain.lines[2] else { panic!("a record") };
    Record::read(&written.text).expect("a record");
    assert_eq!(Record::read(&written.text.replace(',', ", ")), Err(RecordError::Form));
    let mut event = Event::new(Action::FileLost, Outcome::Failed, Actor::Manager);
    event.count = Some((1 << 53) - 1);
    let mut record = Record {
        chain: chain.id,
        sequence: 1,
        time: Timestamp::now(),
        previous: None,
        event,
        key: None,
        follows: None,
    };
    assert_eq!(Record::read(&record.write().expect("written").text).as_ref(), Ok(&record));
    record.event.count = Some(1 << 53);
    assert_eq!(record.write(), Err(RecordError::Number));
}

proptest! {
    #[test]
    fn any_bit_that_is_flipped_in_an_export_is_found(place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        thread_local! {
            static CHAIN: (CaBundle, Vec<u8>) = {
                let chain = Chain::of(7);
                (chain.ca.bundle.clone(), chain.export())
            };
        }
        CHAIN.with(|(bundle, export)| {
            prop_assert!(verify_export(bundle, export).is_ok());
            let mut flipped = export.clone();
            flipped[place.index(export.len())] ^= 1 << bit;
            prop_assert!(verify_export(bundle, &flipped).is_err());
            Ok(())
        })?;
    }
}
