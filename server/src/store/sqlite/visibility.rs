//! Which node sees which service: the one place where assignments are matched.

use std::collections::BTreeSet;

use secretfs_wire::api::Assignment;
use secretfs_wire::{EnvironmentName, Labels, NodeName, ServiceName};
use sqlx::sqlite::SqliteConnection;

use super::columns::Columns as _;
use crate::store::StoreError;

/// All assignments of an environment.
pub(super) struct Assignments(Vec<(ServiceName, Assignment)>);

impl Assignments {
    pub(super) async fn load(
        connection: &mut SqliteConnection,
        environment: &EnvironmentName,
    ) -> Result<Self, StoreError> {
        let rows = sqlx::query(
            "SELECT s.name AS service, a.kind, a.chosen
             FROM assignments a JOIN services s ON s.id = a.service WHERE s.environment = ?",
        )
        .bind(environment.as_str())
        .fetch_all(connection)
        .await?;
        let pairs = rows.iter().map(|row| Ok((row.parsed("service")?, row.assignment()?)));
        pairs.collect::<Result<_, StoreError>>().map(Self)
    }

    /// The services that run on a node, by name.
    pub(super) fn of(&self, node: &NodeName, labels: &Labels) -> BTreeSet<ServiceName> {
        let chosen = self.0.iter().filter(|(_, assignment)| chooses(assignment, node, labels));
        chosen.map(|(service, _)| service.clone()).collect()
    }
}

/// Whether an assignment means this node.
pub(super) fn chooses(assignment: &Assignment, node: &NodeName, labels: &Labels) -> bool {
    match assignment {
        Assignment::Node(name) => name == node,
        Assignment::Selector(selector) => selector.matches(labels),
    }
}
