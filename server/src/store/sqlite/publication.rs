use std::collections::BTreeMap;

use async_trait::async_trait;
use secretfs_wire::manifest::{RawService, RawTarget};
use secretfs_wire::{EnvironmentName, Labels, NodeId, ServiceName, VersionId};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::columns::{Columns as _, integer};
use super::{Sqlite, templates};
use crate::store::{Assignments, Publication, Published, StoreError};

#[async_trait]
impl Publication for Sqlite {
    async fn published(&self, environment: &EnvironmentName) -> Result<Published, StoreError> {
        let mut transaction = self.read().await?;
        let revision = sqlx::query("SELECT revision FROM environments WHERE name = ?")
            .bind(environment.as_str())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| StoreError::missing("environment", environment))?
            .unsigned("revision")?;
        let services = services(&mut transaction, environment).await?;
        let assignments = assignments(&mut transaction, environment).await?;
        Ok(Published { revision, services, assignments })
    }

    async fn node_labels(
        &self,
        environment: &EnvironmentName,
        id: NodeId,
    ) -> Result<Option<Labels>, StoreError> {
        let row =
            sqlx::query("SELECT labels FROM nodes WHERE id = ? AND environment = ? AND state = 'active'")
                .bind(integer(id.as_u64()))
                .bind(environment.as_str())
                .fetch_optional(&self.pool)
                .await?;
        row.map(|row| row.parsed("labels")).transpose()
    }
}

/// All assignments of an environment.
pub(super) async fn assignments(
    connection: &mut SqliteConnection,
    environment: &EnvironmentName,
) -> Result<Assignments, StoreError> {
    let rows = sqlx::query(
        "SELECT s.name AS service, a.kind, a.chosen
         FROM assignments a JOIN services s ON s.id = a.service WHERE s.environment = ?
         ORDER BY s.name, a.kind, a.chosen",
    )
    .bind(environment.as_str())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.parsed("service")?, row.assignment()?))).collect()
}

async fn services(
    connection: &mut SqliteConnection,
    environment: &EnvironmentName,
) -> Result<Vec<RawService>, StoreError> {
    let names = sqlx::query("SELECT name FROM services WHERE environment = ?")
        .bind(environment.as_str())
        .fetch_all(&mut *connection)
        .await?;
    let mut services: BTreeMap<ServiceName, Vec<RawTarget>> =
        names.iter().map(|row| Ok((row.parsed("name")?, Vec::new()))).collect::<Result<_, StoreError>>()?;
    let rows = sqlx::query(
        "SELECT e.name AS service, a.target, s.name AS secret, v.number, v.id, v.size,
             a.uid, a.gid, a.mode, a.audit, max(s.changed, a.changed) AS modified
         FROM attachments a
         JOIN services e ON e.id = a.service
         JOIN secrets s ON s.id = a.secret
         JOIN versions v ON v.secret = s.id AND v.number = s.current
         WHERE e.environment = ? ORDER BY a.target",
    )
    .bind(environment.as_str())
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let service: ServiceName = row.parsed("service")?;
        if let Some(targets) = services.get_mut(&service) {
            targets.push(target(row)?);
        }
    }
    let mut templates = templates::in_manifest(connection, environment).await?;
    let services = services.into_iter().map(|(name, targets)| RawService {
        templates: templates.remove(&name).unwrap_or_default(),
        name: name.into(),
        targets,
    });
    Ok(services.collect())
}

fn target(row: &SqliteRow) -> Result<RawTarget, StoreError> {
    let ownership = row.ownership()?;
    Ok(RawTarget {
        target: row.try_get("target")?,
        secret: row.try_get("secret")?,
        version: row.unsigned("number")?,
        version_id: row.id("id", VersionId::from_u64)?.to_string(),
        size: row.unsigned("size")?,
        uid: ownership.uid,
        gid: ownership.gid,
        mode: ownership.mode.bits(),
        modified: row.time("modified")?,
        audit: row.parsed("audit")?,
    })
}
