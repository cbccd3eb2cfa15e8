use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::{Assignment, AttachedTo, Secret, SecretDetails, SecretVersion};
use secretfs_wire::{EnvironmentName, NodeId, SecretName, ServiceName, TargetName, VersionId};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::columns::{Columns as _, integer};
use super::keys::require_usable;
use super::{Sqlite, inserting, require_environment};
use crate::keys::{SealedVersion, WrappedKey};
#[cfg(test)]
use crate::store::CurrentVersion;
use crate::store::{Delivery, NewSecret, NewVersion, Secrets, StoreError, chooses};

#[async_trait]
impl Secrets for Sqlite {
    async fn secrets(&self, environment: &EnvironmentName) -> Result<Vec<Secret>, StoreError> {
        let mut transaction = self.read().await?;
        require_environment(&mut transaction, environment).await?;
        let rows = sqlx::query(
            "SELECT name, current, labels, created, changed,
                 (SELECT count(*) FROM versions WHERE secret = secrets.id) AS versions
             FROM secrets WHERE environment = ? ORDER BY name",
        )
        .bind(environment.as_str())
        .fetch_all(&mut *transaction)
        .await?;
        rows.iter().map(secret).collect()
    }

    async fn secret(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
    ) -> Result<SecretDetails, StoreError> {
        let mut transaction = self.read().await?;
        let id = secret_row_id(&mut transaction, environment, name).await?;
        let secret = load(&mut transaction, id).await?;
        let history = sqlx::query(
            "SELECT number, created, key_backend, key_name, key_version FROM versions
             WHERE secret = ? ORDER BY number DESC",
        )
        .bind(id)
        .fetch_all(&mut *transaction)
        .await?;
        let version = |row: &SqliteRow| {
            let number = row.unsigned("number")?;
            Ok(SecretVersion {
                version: number,
                current: number == secret.current,
                created: row.time("created")?,
                key: format!("{}:{}", row.key()?, row.unsigned("key_version")?),
            })
        };
        Ok(SecretDetails {
            history: history.iter().map(version).collect::<Result<_, StoreError>>()?,
            attached: attached(&mut transaction, id).await?,
            usage: Vec::new(),
            secret,
        })
    }

    async fn create_secret(
        &self,
        environment: &EnvironmentName,
        new: NewSecret,
    ) -> Result<Secret, StoreError> {
        let mut transaction = self.write().await?;
        require_environment(&mut transaction, environment).await?;
        let id = sqlx::query(
            "INSERT INTO secrets (environment, name, labels, current, created, changed) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(environment.as_str())
        .bind(new.name.as_str())
        .bind(new.labels.to_string())
        .bind(integer(new.version.number))
        .bind(new.version.created.as_microsecond())
        .bind(new.version.created.as_microsecond())
        .execute(&mut *transaction)
        .await
        .map_err(inserting("secret", &new.name))?
        .last_insert_rowid();
        insert_version(&mut transaction, id, &new.name, &new.version).await?;
        let secret = load(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(secret)
    }

    #[cfg(test)]
    async fn current(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
    ) -> Result<CurrentVersion, StoreError> {
        let mut transaction = self.read().await?;
        let id = secret_row_id(&mut transaction, environment, name).await?;
        let row = sqlx::query(
            "SELECT v.number, v.key_backend, v.key_name, v.key_version, v.wrapped_key, v.sealed
             FROM secrets s JOIN versions v ON v.secret = s.id AND v.number = s.current WHERE s.id = ?",
        )
        .bind(id)
        .fetch_one(&mut *transaction)
        .await?;
        Ok(CurrentVersion { number: row.unsigned("number")?, sealed: sealed(&row)? })
    }

    async fn numbers(
        &self,
        environment: &EnvironmentName,
        ids: &[VersionId],
    ) -> Result<HashMap<VersionId, (SecretName, u64)>, StoreError> {
        let ids: Vec<_> = ids.iter().map(|id| integer(id.as_u64())).collect();
        let rows = sqlx::query(
            "SELECT v.id, v.number, s.name FROM json_each(?) asked
             JOIN versions v ON v.id = asked.value JOIN secrets s ON s.id = v.secret
             WHERE s.environment = ?",
        )
        .bind(serde_json::json!(ids).to_string())
        .bind(environment.as_str())
        .fetch_all(&self.pool)
        .await?;
        let number = |row: &SqliteRow| {
            Ok((row.id("id", VersionId::from_u64)?, (row.parsed("name")?, row.unsigned("number")?)))
        };
        rows.iter().map(number).collect()
    }

    async fn add_version(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
        version: NewVersion,
    ) -> Result<Secret, StoreError> {
        let mut transaction = self.write().await?;
        let id = secret_row_id(&mut transaction, environment, name).await?;
        let newest = sqlx::query("SELECT max(number) AS newest FROM versions WHERE secret = ?")
            .bind(id)
            .fetch_one(&mut *transaction)
            .await?
            .unsigned("newest")?;
        if version.number != newest + 1 {
            return Err(StoreError::Raced { name: name.to_string() });
        }
        insert_version(&mut transaction, id, name, &version).await?;
        point_at(&mut transaction, id, version.number, version.created).await?;
        let secret = load(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(secret)
    }

    async fn make_current(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
        number: Option<u64>,
        now: Timestamp,
    ) -> Result<(Secret, bool), StoreError> {
        let mut transaction = self.write().await?;
        let id = secret_row_id(&mut transaction, environment, name).await?;
        let before = load(&mut transaction, id).await?;
        let to = match number {
            Some(number) => sqlx::query("SELECT number FROM versions WHERE secret = ? AND number = ?")
                .bind(id)
                .bind(integer(number))
                .fetch_optional(&mut *transaction)
                .await?
                .ok_or_else(|| StoreError::missing("version", format!("{number} of secret {name}")))?,
            None => sqlx::query(
                "SELECT number FROM versions WHERE secret = ? AND number < ? ORDER BY number DESC LIMIT 1",
            )
            .bind(id)
            .bind(integer(before.current))
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| StoreError::NoEarlierVersion { name: name.to_string() })?,
        }
        .unsigned("number")?;
        if to == before.current {
            return Ok((before, false));
        }
        point_at(&mut transaction, id, to, now).await?;
        let secret = load(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok((secret, true))
    }

    async fn remove_secret(
        &self,
        environment: &EnvironmentName,
        name: &SecretName,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let id = secret_row_id(&mut transaction, environment, name).await?;
        let mut by: Vec<ServiceName> =
            attached(&mut transaction, id).await?.into_iter().map(|place| place.service).collect();
        by.dedup();
        if !by.is_empty() {
            return Err(StoreError::Attached { name: name.to_string(), by });
        }
        sqlx::query("DELETE FROM secrets WHERE id = ?").bind(id).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    async fn version_places(
        &self,
        environment: &EnvironmentName,
        versions: &BTreeSet<VersionId>,
    ) -> Result<BTreeMap<VersionId, (SecretName, u64)>, StoreError> {
        let ids: Vec<_> = versions.iter().map(|id| integer(id.as_u64())).collect();
        let ids = serde_json::to_string(&ids).map_err(|_| StoreError::Corrupt { column: "id" })?;
        let rows = sqlx::query(
            "SELECT v.id, s.name AS secret, v.number FROM json_each(?) AS asked
             JOIN versions v ON v.id = asked.value JOIN secrets s ON s.id = v.secret
             WHERE s.environment = ?",
        )
        .bind(ids)
        .bind(environment.as_str())
        .fetch_all(&self.pool)
        .await?;
        let place = |row: &SqliteRow| {
            let id = row.id("id", VersionId::from_u64)?;
            Ok((id, (row.parsed("secret")?, row.unsigned("number")?)))
        };
        rows.iter().map(place).collect()
    }

    async fn delivery(
        &self,
        environment: &EnvironmentName,
        node: NodeId,
        service: &ServiceName,
        target: &TargetName,
    ) -> Result<Option<Delivery>, StoreError> {
        // One statement, since a cold read waits for it: it sees one state of the database by itself.
        let row = sqlx::query(
            "SELECT n.name AS node, n.labels,
                 (SELECT json_group_array(json_object(kind, chosen)) FROM assignments
                  WHERE service = e.id) AS assignments,
                 s.name AS secret, v.id, v.number, a.uid, a.gid, a.mode,
                 v.key_backend, v.key_name, v.key_version, v.wrapped_key, v.sealed
             FROM nodes n
             JOIN services e ON e.environment = n.environment AND e.name = ?
             JOIN attachments a ON a.service = e.id AND a.target = ?
             JOIN secrets s ON s.id = a.secret
             JOIN versions v ON v.secret = s.id AND v.number = s.current
             WHERE n.id = ? AND n.environment = ? AND n.state = 'active'",
        )
        .bind(service.as_str())
        .bind(target.as_str())
        .bind(integer(node.as_u64()))
        .bind(environment.as_str())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let assignments: Vec<Assignment> = row.json("assignments")?;
        let (node, labels) = (row.parsed("node")?, row.parsed("labels")?);
        let assigned = assignments.iter().any(|assignment| chooses(assignment, &node, &labels));
        assigned.then(|| delivery(&row)).transpose()
    }
}

fn secret(row: &SqliteRow) -> Result<Secret, StoreError> {
    Ok(Secret {
        name: row.parsed("name")?,
        current: row.unsigned("current")?,
        versions: row.unsigned("versions")?,
        labels: row.parsed("labels")?,
        created: row.time("created")?,
        changed: row.time("changed")?,
    })
}

fn delivery(row: &SqliteRow) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        secret: row.parsed("secret")?,
        id: row.id("id", VersionId::from_u64)?,
        number: row.unsigned("number")?,
        ownership: row.ownership()?,
        sealed: sealed(row)?,
    })
}

fn sealed(row: &SqliteRow) -> Result<SealedVersion, StoreError> {
    Ok(SealedVersion { data_key: row.wrapped_key()?, ciphertext: row.bytes("sealed")? })
}

pub(super) async fn secret_row_id(
    connection: &mut SqliteConnection,
    environment: &EnvironmentName,
    name: &SecretName,
) -> Result<i64, StoreError> {
    require_environment(connection, environment).await?;
    let row = sqlx::query("SELECT id FROM secrets WHERE environment = ? AND name = ?")
        .bind(environment.as_str())
        .bind(name.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.ok_or_else(|| StoreError::missing("secret", name))?.try_get("id")?)
}

async fn load(connection: &mut SqliteConnection, id: i64) -> Result<Secret, StoreError> {
    let row = sqlx::query(
        "SELECT name, current, labels, created, changed,
             (SELECT count(*) FROM versions WHERE secret = secrets.id) AS versions
         FROM secrets WHERE id = ?",
    )
    .bind(id)
    .fetch_one(connection)
    .await?;
    secret(&row)
}

async fn attached(connection: &mut SqliteConnection, id: i64) -> Result<Vec<AttachedTo>, StoreError> {
    let rows = sqlx::query(
        "SELECT e.name AS service, a.target FROM attachments a JOIN services e ON e.id = a.service
         WHERE a.secret = ? ORDER BY e.name, a.target",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    let place =
        |row: &SqliteRow| Ok(AttachedTo { service: row.parsed("service")?, target: row.parsed("target")? });
    rows.iter().map(place).collect()
}

async fn insert_version(
    connection: &mut SqliteConnection,
    secret: i64,
    name: &SecretName,
    version: &NewVersion,
) -> Result<(), StoreError> {
    let WrappedKey { key, wrapped } = &version.sealed.data_key;
    require_usable(connection, &version.sealed.data_key).await?;
    sqlx::query(
        "INSERT INTO versions
             (id, secret, number, size, created, key_backend, key_name, key_version, wrapped_key, sealed)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(integer(version.id.as_u64()))
    .bind(secret)
    .bind(integer(version.number))
    .bind(integer(version.size))
    .bind(version.created.as_microsecond())
    .bind(key.backend.as_str())
    .bind(key.name.as_str())
    .bind(integer(wrapped.version))
    .bind(wrapped.bytes.as_slice())
    .bind(version.sealed.ciphertext.as_slice())
    .execute(connection)
    .await
    .map_err(inserting("version of secret", name))?;
    Ok(())
}

async fn point_at(
    connection: &mut SqliteConnection,
    secret: i64,
    number: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE secrets SET current = ?, changed = ? WHERE id = ?")
        .bind(integer(number))
        .bind(now.as_microsecond())
        .bind(secret)
        .execute(connection)
        .await?;
    Ok(())
}
