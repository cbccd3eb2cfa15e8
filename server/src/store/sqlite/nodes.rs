use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::{ChangeLabels, Duplicate, NodeState};
use secretfs_wire::{EnvironmentName, KeyFingerprint, Labels, NodeId, NodeName};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::columns::{Columns as _, integer, json_text, state_text};
use super::publication::assignments;
use super::{Sqlite, inserting, require_environment};
use crate::store::{Assignments, NewNode, NodeRecord, Nodes, StoreError};

#[async_trait]
impl Nodes for Sqlite {
    async fn join(&self, digest: &[u8; 32], node: NewNode, now: Timestamp) -> Result<NodeRecord, StoreError> {
        let mut transaction = self.write().await?;
        let token = sqlx::query(
            "UPDATE tokens SET used_by = ?1
             WHERE digest = ?2 AND used_by IS NULL AND expires > ?3 AND (name IS NULL OR name = ?1)
             RETURNING environment, approval, labels",
        )
        .bind(node.name.as_str())
        .bind(digest.as_slice())
        .bind(now.as_microsecond())
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(StoreError::TokenRefused)?;
        let environment: EnvironmentName = token.parsed("environment")?;
        let state = if token.try_get("approval")? { NodeState::Pending } else { NodeState::Active };

        sqlx::query("DELETE FROM nodes WHERE environment = ? AND name = ? AND state = 'revoked'")
            .bind(environment.as_str())
            .bind(node.name.as_str())
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO nodes
                 (id, environment, name, state, labels, envelope_key, joined, certificate_expires, address, host)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(integer(node.id.as_u64()))
        .bind(environment.as_str())
        .bind(node.name.as_str())
        .bind(state_text(state))
        .bind(token.try_get::<String, _>("labels")?)
        .bind(node.envelope_key.as_slice())
        .bind(now.as_microsecond())
        .bind(node.certificate_expires.as_microsecond())
        .bind(node.address.map(|address| address.to_string()))
        .bind(json_text(&node.host)?)
        .execute(&mut *transaction)
        .await
        .map_err(inserting("node", &node.name))?;
        let record = load(&mut transaction, &environment, &node.name).await?;
        transaction.commit().await?;
        Ok(record)
    }

    async fn nodes(&self, environment: &EnvironmentName) -> Result<Vec<NodeRecord>, StoreError> {
        let mut transaction = self.read().await?;
        require_environment(&mut transaction, environment).await?;
        let assignments = assignments(&mut transaction, environment).await?;
        let rows = sqlx::query("SELECT * FROM nodes WHERE environment = ? ORDER BY name")
            .bind(environment.as_str())
            .fetch_all(&mut *transaction)
            .await?;
        rows.iter().map(|row| record(row, &assignments)).collect()
    }

    async fn node(&self, environment: &EnvironmentName, name: &NodeName) -> Result<NodeRecord, StoreError> {
        let mut transaction = self.read().await?;
        load(&mut transaction, environment, name).await
    }

    async fn node_state(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
        id: NodeId,
    ) -> Result<Option<NodeState>, StoreError> {
        let row = sqlx::query("SELECT state FROM nodes WHERE id = ? AND environment = ? AND name = ?")
            .bind(integer(id.as_u64()))
            .bind(environment.as_str())
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| row.node_state()).transpose()
    }

    async fn envelope_key(&self, id: NodeId) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT envelope_key FROM nodes WHERE id = ?")
            .bind(integer(id.as_u64()))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| row.bytes("envelope_key")).transpose()
    }

    async fn approve(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
        fingerprint: Option<KeyFingerprint>,
        now: Timestamp,
    ) -> Result<NodeRecord, StoreError> {
        let mut transaction = self.write().await?;
        let before = load(&mut transaction, environment, name).await?;
        if before.state == NodeState::Revoked {
            return Err(StoreError::Revoked { name: name.to_string() });
        }
        if fingerprint.is_some_and(|expected| expected != before.fingerprint) {
            let fingerprint = before.fingerprint;
            return Err(StoreError::OtherFingerprint { name: name.to_string(), fingerprint });
        }
        if before.state == NodeState::Pending && before.certificate_expires <= now {
            return Err(StoreError::CertificateEnded { name: name.to_string() });
        }
        set_state(&mut transaction, before.id, NodeState::Active).await?;
        set_duplicate(&mut transaction, before.id, None).await?;
        transaction.commit().await?;
        Ok(NodeRecord { state: NodeState::Active, duplicate: None, ..before })
    }

    async fn flag_duplicate(&self, id: NodeId, found: &Duplicate) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let known = sqlx::query("SELECT duplicate FROM nodes WHERE id = ?")
            .bind(integer(id.as_u64()))
            .fetch_optional(&mut *transaction)
            .await?;
        // Removed meanwhile: there is nothing left to flag.
        let Some(known) = known else { return Ok(()) };
        let since = duplicate(&known)?.map_or(found.since, |known| known.since);
        let found = Duplicate { since, ..found.clone() };
        set_duplicate(&mut transaction, id, Some(&found)).await?;
        Ok(transaction.commit().await?)
    }

    async fn duplicate_nodes(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT count(*) AS nodes FROM nodes WHERE duplicate IS NOT NULL AND state != 'revoked'",
        )
        .fetch_one(&self.pool)
        .await?;
        row.unsigned("nodes")
    }

    async fn revoke(&self, environment: &EnvironmentName, name: &NodeName) -> Result<NodeRecord, StoreError> {
        let mut transaction = self.write().await?;
        let before = load(&mut transaction, environment, name).await?;
        set_state(&mut transaction, before.id, NodeState::Revoked).await?;
        transaction.commit().await?;
        Ok(NodeRecord { state: NodeState::Revoked, ..before })
    }

    async fn remove_node(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
    ) -> Result<NodeId, StoreError> {
        let mut transaction = self.write().await?;
        let node = load(&mut transaction, environment, name).await?;
        sqlx::query("DELETE FROM nodes WHERE id = ?")
            .bind(integer(node.id.as_u64()))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(node.id)
    }

    async fn change_labels(
        &self,
        environment: &EnvironmentName,
        name: &NodeName,
        change: &ChangeLabels,
    ) -> Result<NodeRecord, StoreError> {
        let mut transaction = self.write().await?;
        let before = load(&mut transaction, environment, name).await?;
        let mut labels = before.labels;
        for (key, value) in change.set.iter() {
            labels.set(key, value).map_err(|_| StoreError::Corrupt { column: "labels" })?;
        }
        for key in &change.remove {
            labels.remove(key);
        }
        sqlx::query("UPDATE nodes SET labels = ? WHERE id = ?")
            .bind(labels.to_string())
            .bind(integer(before.id.as_u64()))
            .execute(&mut *transaction)
            .await?;
        let record = load(&mut transaction, environment, name).await?;
        transaction.commit().await?;
        Ok(record)
    }

    async fn renewed(&self, id: NodeId, certificate_expires: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE nodes SET certificate_expires = ? WHERE id = ?")
            .bind(certificate_expires.as_microsecond())
            .bind(integer(id.as_u64()))
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

async fn load(
    connection: &mut SqliteConnection,
    environment: &EnvironmentName,
    name: &NodeName,
) -> Result<NodeRecord, StoreError> {
    require_environment(connection, environment).await?;
    let row = sqlx::query("SELECT * FROM nodes WHERE environment = ? AND name = ?")
        .bind(environment.as_str())
        .bind(name.as_str())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or_else(|| StoreError::missing("node", name))?;
    record(&row, &assignments(connection, environment).await?)
}

async fn set_state(
    connection: &mut SqliteConnection,
    id: NodeId,
    state: NodeState,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE nodes SET state = ? WHERE id = ?")
        .bind(state_text(state))
        .bind(integer(id.as_u64()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn set_duplicate(
    connection: &mut SqliteConnection,
    id: NodeId,
    found: Option<&Duplicate>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE nodes SET duplicate = ? WHERE id = ?")
        .bind(found.map(json_text).transpose()?)
        .bind(integer(id.as_u64()))
        .execute(connection)
        .await?;
    Ok(())
}

fn duplicate(row: &SqliteRow) -> Result<Option<Duplicate>, StoreError> {
    match row.try_get::<Option<&str>, _>("duplicate")? {
        None => Ok(None),
        Some(_) => row.json("duplicate").map(Some),
    }
}

fn record(row: &SqliteRow, assignments: &Assignments) -> Result<NodeRecord, StoreError> {
    let (name, labels): (NodeName, Labels) = (row.parsed("name")?, row.parsed("labels")?);
    Ok(NodeRecord {
        id: row.id("id", NodeId::from_u64)?,
        environment: row.parsed("environment")?,
        state: row.node_state()?,
        services: assignments.of(&name, &labels).into_iter().collect(),
        joined: row.time("joined")?,
        certificate_expires: row.time("certificate_expires")?,
        fingerprint: KeyFingerprint::of_der(&row.bytes("envelope_key")?),
        address: row.optional("address")?,
        host: row.json("host")?,
        duplicate: duplicate(row)?,
        name,
        labels,
    })
}
