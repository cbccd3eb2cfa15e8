//! The change stream: how a node's manifest follows its manager.
//!
//! A node says what it has, as a [`Digest`] of each service; the first message makes that whole, and
//! each one after it changes what the one before has left. So a node that was away for a second or a
//! month is brought up by the difference, and what it has already is never sent again.
//!
//! Messages are numbered, and a [`Cursor`] lets none pass that is not the next: whoever misses one
//! begins a new stream and gets the difference.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::ServiceName;
use crate::manifest::{RawManifest, RawService};

/// How many services a node names at most when it begins a stream. The others are sent to it whole.
const HAVE_AT_MOST: usize = 500;

/// A node's first words of a stream: what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Follow {
    /// The services that the node has, each with its digest.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub have: BTreeMap<ServiceName, Digest>,
}

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamMessage {
    /// Its place in the stream, from 0.
    pub sequence: u64,
    /// The state of the environment that it was taken from. Within a stream it never falls.
    pub revision: u64,
    /// What has changed; in the first message, against what the node has, and nothing if that is all
    /// there is. Without it the message says that nothing has changed and the manager lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

/// A difference between two manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// Services that are new or not what they were, whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<RawService>,
    /// Services that the node sees no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// The SHA-256 of a service as it travels, by which two sides know that they have the same.
///
/// Sides of different versions may write a service differently; it is then sent again, and no harm
/// is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl RawService {
    /// Its digest.
    #[allow(clippy::missing_panics_doc, clippy::expect_used, reason = "a service is plain data")]
    pub fn digest(&self) -> Digest {
        let text = serde_json::to_vec(self).expect("a service serializes");
        Digest(STANDARD_NO_PAD.encode(digest(&SHA256, &text)))
    }
}

/// A node's copy of its manifest.
#[derive(Debug, Default)]
pub struct Replica {
    revision: u64,
    services: BTreeMap<String, RawService>,
}

/// A place in a stream.
#[derive(Debug, Default)]
pub struct Cursor {
    /// The number of the message that may come next.
    next: u64,
    /// The revision of the one before it.
    revision: u64,
    /// What was named at the beginning, until the first message.
    named: BTreeSet<String>,
}

/// What became of a [`Replica`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is what it was.
    Unchanged,
    /// It is another manifest now.
    Changed,
}

/// A message that is not the next one. Only a new stream helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfOrder {
    /// Messages are missing, or one came twice.
    #[error("the change stream has a gap: message {got} came where {expected} was expected")]
    Gap {
        /// The number that was the next.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// It was taken from an older state than the one before it.
    #[error("the change stream went back from revision {from} to {to}")]
    Older {
        /// The revision that was reached.
        from: u64,
        /// The revision of the message.
        to: u64,
    },
}

impl Replica {
    /// A copy that begins with what is known already.
    pub fn new(manifest: RawManifest) -> Self {
        let services = manifest.services.into_iter().map(|service| (service.name.clone(), service));
        Self { revision: manifest.revision, services: services.collect() }
    }

    /// What to say first in a stream, and the place where it begins.
    pub fn begin(&self) -> (Follow, Cursor) {
        let named = self.services.values().filter_map(|service| {
            let name = ServiceName::try_from(service.name.clone()).ok()?;
            Some((name, service.digest()))
        });
        let have: BTreeMap<_, _> = named.take(HAVE_AT_MOST).collect();
        let named = have.keys().map(ToString::to_string).collect();
        (Follow { have }, Cursor { named, ..Cursor::default() })
    }

    /// Takes a message of the stream that `cursor` is a place in.
    ///
    /// # Errors
    /// When it is not the next one; then it has changed nothing.
    pub fn receive(&mut self, cursor: &mut Cursor, message: StreamMessage) -> Result<Received, OutOfOrder> {
        let StreamMessage { sequence, revision, change } = message;
        let is_first = cursor.next == 0;
        if sequence != cursor.next {
            return Err(OutOfOrder::Gap { expected: cursor.next, got: sequence });
        }
        // From one stream to the next it may fall: the manager may have been restored from a backup.
        if revision < cursor.revision {
            return Err(OutOfOrder::Older { from: cursor.revision, to: revision });
        }
        (cursor.next, cursor.revision) = (sequence + 1, revision);
        self.revision = revision;
        let Some(change) = change else { return Ok(Received::Unchanged) };
        let mut changed = !change.services.is_empty();
        if is_first {
            // What was not named is sent whole, if it is still there.
            let before = self.services.len();
            let named = std::mem::take(&mut cursor.named);
            self.services.retain(|name, _| named.contains(name));
            changed |= self.services.len() < before;
        }
        for name in change.removed {
            changed |= self.services.remove(&name).is_some();
        }
        // Of two with one name the first counts, as everywhere in a manifest.
        for service in change.services.into_iter().rev() {
            self.services.insert(service.name.clone(), service);
        }
        Ok(if changed { Received::Changed } else { Received::Unchanged })
    }

    /// Forgets everything. Tells whether there was anything.
    pub fn clear(&mut self) -> Received {
        let had_any = !std::mem::take(&mut self.services).is_empty();
        if had_any { Received::Changed } else { Received::Unchanged }
    }

    /// The manifest.
    pub fn manifest(&self) -> RawManifest {
        RawManifest { revision: self.revision, services: self.services.values().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::audit::AuditMode;
    use crate::manifest::RawTarget;

    fn service(name: &str, version: u64) -> RawService {
        let target = RawTarget {
            target: "t".to_owned(),
            secret: "s".to_owned(),
            version,
            version_id: version.to_string(),
            size: 1,
            uid: 0,
            gid: 0,
            mode: 0o444,
            modified: Timestamp::UNIX_EPOCH,
            audit: AuditMode::Buffered,
        };
        RawService { name: name.to_owned(), targets: vec![target], templates: vec![] }
    }

    fn manifest(services: &BTreeMap<String, u64>) -> Vec<RawService> {
        services.iter().map(|(name, version)| service(name, *version)).collect()
    }

    /// What an honest manager sends, written a second time and in another way.
    fn answer(follow: &Follow, now: &[RawService]) -> Change {
        let mut change = Change::default();
        for service in now {
            let name: ServiceName = service.name.parse().expect("a name");
            if follow.have.get(&name) != Some(&service.digest()) {
                change.services.push(service.clone());
            }
        }
        let gone = follow.have.keys().filter(|name| !now.iter().any(|service| service.name == name.as_str()));
        change.removed = gone.map(ToString::to_string).collect();
        change
    }

    fn message(sequence: u64, revision: u64, change: Option<Change>) -> StreamMessage {
        StreamMessage { sequence, revision, change }
    }

    proptest! {
        #[test]
        fn whatever_a_node_has_it_ends_with_what_the_manager_has(
            before in proptest::collection::btree_map("[a-f]", 1..4u64, 0..6),
            now in proptest::collection::btree_map("[a-f]", 1..4u64, 0..6),
        ) {
            let raw = RawManifest { revision: 9, services: manifest(&before) };
            let mut replica = Replica::new(raw);
            let (follow, mut cursor) = replica.begin();
            let change = answer(&follow, &manifest(&now));
            let received = replica.receive(&mut cursor, message(0, 3, Some(change)));
            let expected = if before == now { Received::Unchanged } else { Received::Changed };
            prop_assert_eq!(received, Ok(expected));
            prop_assert_eq!(replica.manifest(), RawManifest { revision: 3, services: manifest(&now) });
        }
    }

    #[test]
    fn more_than_can_be_named_comes_whole() {
        let many: BTreeMap<_, _> = (0..HAVE_AT_MOST + 7).map(|n| (format!("s{n:04}"), 1)).collect();
        let raw = RawManifest { revision: 1, services: manifest(&many) };
        let mut replica = Replica::new(raw.clone());
        let (follow, mut cursor) = replica.begin();
        assert_eq!(follow.have.len(), HAVE_AT_MOST);
        let change = answer(&follow, &raw.services);
        assert_eq!(change.services.len(), 7);
        assert_eq!(replica.receive(&mut cursor, message(0, 1, Some(change))), Ok(Received::Changed));
        assert_eq!(replica.manifest(), raw);
    }

    #[test]
    fn what_is_not_the_next_message_is_not_taken() {
        let mut replica = Replica::default();
        let (_, mut cursor) = replica.begin();
        let one = Change { services: vec![service("a", 1)], removed: vec![] };
        let two = || Some(Change { services: vec![service("a", 2)], removed: vec![] });
        let mut receive = |message| replica.receive(&mut cursor, message);
        assert_eq!(receive(message(0, 5, Some(one))), Ok(Received::Changed));
        assert_eq!(receive(message(1, 5, None)), Ok(Received::Unchanged));
        assert_eq!(
            receive(message(3, 7, two())),
            Err(OutOfOrder::Gap { expected: 2, got: 3 }),
            "one is missing"
        );
        assert_eq!(receive(message(1, 7, two())), Err(OutOfOrder::Gap { expected: 2, got: 1 }), "sent twice");
        assert_eq!(receive(message(2, 4, two())), Err(OutOfOrder::Older { from: 5, to: 4 }));
        assert_eq!(replica.manifest().services, [service("a", 1)]);
        assert_eq!(replica.receive(&mut cursor, message(2, 6, two())), Ok(Received::Changed));

        let (follow, mut cursor) = replica.begin();
        assert_eq!(follow.have.len(), 1);
        let same = message(0, 2, Some(Change::default()));
        assert_eq!(replica.receive(&mut cursor, same), Ok(Received::Unchanged), "from a restored backup");
        assert_eq!(replica.manifest().revision, 2);
    }
}
