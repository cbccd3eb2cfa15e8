//! Which versions the nodes have, as they report it: by it one knows when an old value is in use
//! nowhere any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use secretfs_wire::api::{
    NodeState, REPORT_MAX_VERSIONS, SecretDetails, SecretUsage, UsageReport, VersionInUse,
};
use secretfs_wire::{EnvironmentName, NodeId, SecretName, VersionId};

use super::{App, now};
use crate::authn::NodeIdentity;
use crate::error::Error;
use crate::store::NodeRecord;

/// The last reports. In memory only: who follows reports anew when the manager was restarted.
#[derive(Default)]
pub(super) struct Usage {
    /// Never held across an await.
    nodes: Mutex<HashMap<NodeId, Reported>>,
}

/// What one node has reported. It names only versions that exist, so it is as large as the store at
/// most.
struct Reported {
    environment: EnvironmentName,
    at: Timestamp,
    served: HashMap<SecretName, u64>,
    held: HashMap<SecretName, BTreeMap<u64, u64>>,
}

/// The versions that a report names.
type Known = HashMap<VersionId, (SecretName, u64)>;

impl Usage {
    /// Ids that are not known are passed over: their secret has been removed.
    fn apply(&self, node: &NodeIdentity, report: &UsageReport, known: &Known, at: Timestamp) {
        let mut nodes = self.lock();
        let reported = nodes.entry(node.id).or_insert_with(|| Reported::new(&node.environment, at));
        if report.whole {
            *reported = Reported::new(&node.environment, at);
        }
        reported.at = at;
        for held in &report.held {
            if let Some((secret, number)) = known.get(&held.version_id) {
                reported.hold(secret, *number, held.handles);
            }
        }
        for (secret, number) in report.gone.iter().filter_map(|id| known.get(id)) {
            if reported.served.get(secret) == Some(number) {
                reported.served.remove(secret);
            }
        }
        let served = report.served.iter().filter_map(|id| known.get(id).cloned());
        reported.served.extend(served);
    }

    /// Forgets a node that is no longer served.
    pub(super) fn forget(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    /// Forgets a secret that is removed: one that is made under its name counts from 1 again.
    pub(super) fn forget_secret(&self, environment: &EnvironmentName, secret: &SecretName) {
        let mut nodes = self.lock();
        for reported in nodes.values_mut().filter(|reported| reported.environment == *environment) {
            reported.served.remove(secret);
            reported.held.remove(secret);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Reported>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reported {
    fn new(environment: &EnvironmentName, at: Timestamp) -> Self {
        Self { environment: environment.clone(), at, served: HashMap::new(), held: HashMap::new() }
    }

    fn hold(&mut self, secret: &SecretName, number: u64, handles: u64) {
        let versions = self.held.entry(secret.clone()).or_default();
        match handles {
            0 => versions.remove(&number),
            handles => versions.insert(number, handles),
        };
        if versions.is_empty() {
            self.held.remove(secret);
        }
    }
}

impl App {
    /// Takes a node's report of what itself has.
    pub(crate) async fn report_usage(&self, node: &NodeIdentity, report: &UsageReport) -> Result<(), Error> {
        if report.versions() > REPORT_MAX_VERSIONS {
            return Err(Error::Invalid(format!("a report names {REPORT_MAX_VERSIONS} versions at most")));
        }
        let held = report.held.iter().map(|held| held.version_id);
        let ids: Vec<_> = held.chain(report.gone.iter().chain(&report.served).copied()).collect();
        let known = match ids.is_empty() {
            true => Known::new(),
            false => self.store.numbers(&node.environment, &ids).await?,
        };
        self.usage.apply(node, report, &known, now());
        Ok(())
    }

    /// What each node has of a secret that is served it, or that still has something of it open.
    pub(super) async fn usage_of(
        &self,
        environment: &EnvironmentName,
        details: &SecretDetails,
    ) -> Result<Vec<SecretUsage>, Error> {
        let records = self.store.nodes(environment).await?;
        let nodes = self.usage.lock();
        let active = records.iter().filter(|record| record.state == NodeState::Active);
        let used = active.filter_map(|record| self.usage_by(record, nodes.get(&record.id), details));
        Ok(used.collect())
    }

    fn usage_by(
        &self,
        record: &NodeRecord,
        reported: Option<&Reported>,
        details: &SecretDetails,
    ) -> Option<SecretUsage> {
        let secret = &details.secret;
        let version = reported.and_then(|reported| reported.served.get(&secret.name).copied());
        let held = reported.and_then(|reported| reported.held.get(&secret.name)).into_iter().flatten();
        let old = held.filter(|(number, _)| **number != secret.current);
        let usage = SecretUsage {
            node: record.name.clone(),
            assigned: details.attached.iter().any(|place| record.services.contains(&place.service)),
            connected: self.presence.is_connected(record.id),
            reported: reported.map(|reported| reported.at),
            version,
            old: old
                .map(|(version, handles)| VersionInUse { version: *version, handles: *handles })
                .collect(),
        };
        (usage.assigned || usage.version.is_some() || !usage.old.is_empty()).then_some(usage)
    }
}
