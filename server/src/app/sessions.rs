//! The session keys under which envelopes are sealed. They live here only, and not for long.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secretfs_wire::envelope::SessionKey;
use secretfs_wire::{NodeId, SessionId};

/// A worker, its standby, and the two that replace them in an upgrade.
const SESSIONS_PER_NODE: usize = 4;

/// All sessions at this manager, a few for each node.
pub(super) struct Sessions {
    lifetime: Duration,
    /// Each node's sessions, the oldest first. Never held across an await.
    nodes: Mutex<HashMap<NodeId, VecDeque<Session>>>,
}

struct Session {
    id: SessionId,
    key: Arc<SessionKey>,
    ends: Instant,
}

impl Sessions {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, nodes: Mutex::default() }
    }

    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Keeps a new session; the node's oldest makes room for it.
    pub(super) fn open(&self, node: NodeId, key: SessionKey, now: Instant) -> SessionId {
        let id = SessionId::random();
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|_, sessions| {
            sessions.retain(|session| session.ends > now);
            !sessions.is_empty()
        });
        let sessions = nodes.entry(node).or_default();
        if sessions.len() == SESSIONS_PER_NODE {
            sessions.pop_front();
        }
        sessions.push_back(Session { id, key: Arc::new(key), ends: now + self.lifetime });
        id
    }

    /// The key of a session that this node opened and that has not ended.
    pub(super) fn key(&self, node: NodeId, id: SessionId, now: Instant) -> Option<Arc<SessionKey>> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let session = nodes.get(&node)?.iter().find(|session| session.id == id)?;
        (session.ends > now).then(|| Arc::clone(&session.key))
    }

    /// Forgets a node that is no longer served.
    pub(super) fn close_all(&self, node: NodeId) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SessionKey {
        SessionKey::generate().expect("a key")
    }

    #[test]
    fn a_session_ends_and_belongs_to_its_node() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let (mine, theirs, began) = (NodeId::random(), NodeId::random(), Instant::now());
        let session = sessions.open(mine, key(), began);
        assert!(sessions.key(theirs, session, began).is_none());
        assert!(sessions.key(mine, session, began + Duration::from_secs(59)).is_some());
        assert!(sessions.key(mine, session, began + Duration::from_secs(60)).is_none());
    }

    #[test]
    fn a_node_keeps_a_few_the_oldest_goes_first() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let (node, now) = (NodeId::random(), Instant::now());
        let opened: Vec<_> = (0..=SESSIONS_PER_NODE).map(|_| sessions.open(node, key(), now)).collect();
        let kept: Vec<_> = opened.iter().map(|id| sessions.key(node, *id, now).is_some()).collect();
        assert_eq!(kept, [false, true, true, true, true]);
        sessions.close_all(node);
        assert!(opened.iter().all(|id| sessions.key(node, *id, now).is_none()));
    }
}
