//! Which daemons speak as a node. Several at once are one identity in several places: a state directory
//! that was copied, or a machine that was cloned.

mod detector;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use secretfs_wire::Action;
use secretfs_wire::api::Duplicate;
use secretfs_wire::audit::{Event, Outcome};
use secretfs_wire::{InstanceId, NodeId};

use self::detector::{Detector, Finding, Word};
use super::{App, now};
use crate::authn::NodeIdentity;
use crate::listener::PeerConnection;

/// Which daemon of a node asks, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    pub(crate) instance: Option<InstanceId>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) connection: PeerConnection,
}

/// The daemons of all nodes that were heard since the manager was started.
#[derive(Default)]
pub(super) struct Instances {
    /// Never held across an await.
    nodes: Mutex<HashMap<NodeId, Detector>>,
}

impl Instances {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Detector>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets who spoke as this node.
    pub(super) fn forget(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    /// Whether a daemon that has never been heard has come since this connection was made, so that its
    /// peer is to show on another one that it lives.
    pub(super) fn is_replaced(&self, node: NodeId, speaker: &Speaker) -> bool {
        let nodes = self.lock();
        let detector = nodes.get(&node);
        detector.is_some_and(|detector| detector.is_replaced(speaker.instance, speaker.connection.accepted))
    }

    /// Brings up to date when and where each of them was heard last.
    pub(super) fn refresh(&self, node: NodeId, duplicate: &mut Duplicate) {
        let nodes = self.lock();
        let Some(detector) = nodes.get(&node) else { return };
        for heard in detector.duplicates() {
            let known = duplicate.instances.iter_mut().find(|known| known.instance == heard.instance);
            if let Some(known) = known {
                *known = heard;
            }
        }
    }
}

impl App {
    /// Takes note that a daemon speaks as a node, before it is answered.
    pub(crate) async fn hear(&self, node: &NodeIdentity, speaker: &Speaker) {
        let Speaker { instance, address, connection } = speaker;
        let word = Word {
            instance: *instance,
            address: *address,
            accepted: connection.accepted,
            now: Instant::now(),
            at: now(),
        };
        let (finding, duplicates) = {
            let mut nodes = self.instances.lock();
            let detector = nodes.entry(node.id).or_default();
            let finding = detector.hear(&word);
            (finding, detector.duplicates().collect())
        };
        match finding {
            Finding::Nothing => {}
            // Those who only listen find out as well: who lives comes again at once.
            Finding::Newcomer => self.presence.end_others(node.id, *instance),
            Finding::Late => connection.leave.cancel(),
            Finding::Conflict => {
                let found = Duplicate { since: word.at, instances: duplicates };
                self.identity_conflict(node, &found).await;
            }
        }
    }

    /// Two daemons or more speak as one node.
    async fn identity_conflict(&self, node: &NodeIdentity, found: &Duplicate) {
        self.metrics.identity_conflicts.inc();
        let NodeIdentity { environment, name, id } = node;
        let instances: Vec<_> = found.instances.iter().map(ToString::to_string).collect();
        tracing::warn!(
            %environment, node = %name, %id, instances = instances.join(", "),
            "several daemons speak as one node: was its state directory or its machine copied?"
        );
        let mut event = Event::new(Action::NodeDuplicate, Outcome::Failed, node.actor());
        event.environment = Some(environment.clone());
        event.object.node = Some(name.clone());
        event.reason = Some(instances.join(", "));
        self.note(event).await;
        match self.store.flag_duplicate(*id, found).await {
            Ok(()) => drop(self.instances.lock().get_mut(id).map(Detector::saved)),
            // It is found again with the node's next word.
            Err(error) => tracing::error!(%error, node = %name, "a duplicate node is not kept"),
        }
    }
}
