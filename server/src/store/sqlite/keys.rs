use async_trait::async_trait;
use secretfs_wire::{EnvironmentName, KeyReference, VersionId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::columns::{Columns as _, integer};
use super::{Sqlite, inserting, require_environment};
use crate::keys::{Wrapped, WrappedKey};
use crate::store::{KeyRecord, KeyUse, Keys, OutdatedKey, Rewrap, StoreError};

#[async_trait]
impl Keys for Sqlite {
    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT backend AS key_backend, name AS key_name, environment, floor FROM keys
             ORDER BY environment, backend, name",
        )
        .fetch_all(&self.pool)
        .await?;
        let record = |row: &SqliteRow| {
            Ok(KeyRecord {
                key: row.key()?,
                environment: row.parsed("environment")?,
                floor: row.unsigned("floor")?,
            })
        };
        rows.iter().map(record).collect()
    }

    async fn key_uses(&self) -> Result<Vec<KeyUse>, StoreError> {
        let rows = sqlx::query(
            "SELECT s.environment, v.key_backend, v.key_name, v.key_version, count(*) AS data_keys
             FROM versions v JOIN secrets s ON s.id = v.secret
             GROUP BY s.environment, v.key_backend, v.key_name, v.key_version
             ORDER BY s.environment, v.key_backend, v.key_name, v.key_version",
        )
        .fetch_all(&self.pool)
        .await?;
        let used = |row: &SqliteRow| {
            Ok(KeyUse {
                environment: row.parsed("environment")?,
                key: row.key()?,
                version: row.unsigned("key_version")?,
                data_keys: row.unsigned("data_keys")?,
            })
        };
        rows.iter().map(used).collect()
    }

    async fn set_key(&self, environment: &EnvironmentName, key: &KeyReference) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        require_environment(&mut transaction, environment).await?;
        claim_key(&mut transaction, environment, key).await?;
        sqlx::query("UPDATE environments SET key_backend = ?, key_name = ? WHERE name = ?")
            .bind(key.backend.as_str())
            .bind(key.name.as_str())
            .bind(environment.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(inserting("an environment with key", key))?;
        Ok(transaction.commit().await?)
    }

    async fn outdated_keys(
        &self,
        environment: &EnvironmentName,
        key: &KeyReference,
        version: u64,
        after: Option<VersionId>,
        limit: u32,
    ) -> Result<Vec<OutdatedKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT v.id, s.name AS secret, v.number, v.key_backend, v.key_name, v.key_version, v.wrapped_key
             FROM versions v JOIN secrets s ON s.id = v.secret
             WHERE s.environment = ? AND v.id > ?
                 AND (v.key_backend, v.key_name, v.key_version) <> (?, ?, ?)
             ORDER BY v.id LIMIT ?",
        )
        .bind(environment.as_str())
        .bind(after.map_or(-1, |id| integer(id.as_u64())))
        .bind(key.backend.as_str())
        .bind(key.name.as_str())
        .bind(integer(version))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        let outdated = |row: &SqliteRow| {
            Ok(OutdatedKey {
                id: row.id("id", VersionId::from_u64)?,
                secret: row.parsed("secret")?,
                number: row.unsigned("number")?,
                data_key: row.wrapped_key()?,
            })
        };
        rows.iter().map(outdated).collect()
    }

    async fn count_outdated_keys(
        &self,
        environment: &EnvironmentName,
        key: &KeyReference,
        version: u64,
    ) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT count(*) AS data_keys FROM versions v JOIN secrets s ON s.id = v.secret
             WHERE s.environment = ? AND (v.key_backend, v.key_name, v.key_version) <> (?, ?, ?)",
        )
        .bind(environment.as_str())
        .bind(key.backend.as_str())
        .bind(key.name.as_str())
        .bind(integer(version))
        .fetch_one(&self.pool)
        .await?;
        row.unsigned("data_keys")
    }

    async fn rewrap(&self, moves: &[Rewrap]) -> Result<u64, StoreError> {
        let mut transaction = self.write().await?;
        let mut moved = 0;
        for Rewrap { id, from, to } in moves {
            require_usable(&mut transaction, to).await?;
            let updated = sqlx::query(
                "UPDATE versions SET key_backend = ?, key_name = ?, key_version = ?, wrapped_key = ?
                 WHERE id = ? AND wrapped_key = ?",
            )
            .bind(to.key.backend.as_str())
            .bind(to.key.name.as_str())
            .bind(integer(to.wrapped.version))
            .bind(to.wrapped.bytes.as_slice())
            .bind(integer(id.as_u64()))
            .bind(from.as_slice())
            .execute(&mut *transaction)
            .await?;
            moved += updated.rows_affected();
        }
        transaction.commit().await?;
        Ok(moved)
    }

    async fn retire_key(&self, key: &KeyReference, below: u64) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        require_unused(&mut transaction, key, below).await?;
        sqlx::query("UPDATE keys SET floor = max(floor, ?) WHERE backend = ? AND name = ?")
            .bind(integer(below))
            .bind(key.backend.as_str())
            .bind(key.name.as_str())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    async fn forget_key(&self, key: &KeyReference) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        require_unused(&mut transaction, key, u64::MAX).await?;
        sqlx::query(
            "DELETE FROM keys WHERE backend = ? AND name = ? AND NOT EXISTS
                 (SELECT 1 FROM environments WHERE key_backend = keys.backend AND key_name = keys.name)",
        )
        .bind(key.backend.as_str())
        .bind(key.name.as_str())
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }
}

/// Makes a key one of this environment's, if it is not another's.
pub(super) async fn claim_key(
    connection: &mut SqliteConnection,
    environment: &EnvironmentName,
    key: &KeyReference,
) -> Result<(), StoreError> {
    let owner = sqlx::query("SELECT environment FROM keys WHERE backend = ? AND name = ?")
        .bind(key.backend.as_str())
        .bind(key.name.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    match owner {
        Some(row) if row.parsed::<EnvironmentName>("environment")? == *environment => Ok(()),
        Some(_) => Err(StoreError::exists("an environment with key", key)),
        None => {
            sqlx::query("INSERT INTO keys (backend, name, environment) VALUES (?, ?, ?)")
                .bind(key.backend.as_str())
                .bind(key.name.as_str())
                .bind(environment.as_str())
                .execute(connection)
                .await?;
            Ok(())
        }
    }
}

/// Refuses what was wrapped under a version that has been retired since.
pub(super) async fn require_usable(
    connection: &mut SqliteConnection,
    data_key: &WrappedKey,
) -> Result<(), StoreError> {
    let WrappedKey { key, wrapped: Wrapped { version, .. } } = data_key;
    let usable = sqlx::query("SELECT 1 FROM keys WHERE backend = ? AND name = ? AND floor <= ?")
        .bind(key.backend.as_str())
        .bind(key.name.as_str())
        .bind(integer(*version))
        .fetch_optional(connection)
        .await?;
    usable.map(|_| ()).ok_or_else(|| StoreError::KeyRetired { key: key.clone(), version: *version })
}

async fn require_unused(
    connection: &mut SqliteConnection,
    key: &KeyReference,
    below: u64,
) -> Result<(), StoreError> {
    let data_keys = sqlx::query(
        "SELECT count(*) AS data_keys FROM versions
         WHERE key_backend = ? AND key_name = ? AND key_version < ?",
    )
    .bind(key.backend.as_str())
    .bind(key.name.as_str())
    .bind(integer(below))
    .fetch_one(connection)
    .await?
    .unsigned("data_keys")?;
    if data_keys == 0 { Ok(()) } else { Err(StoreError::KeyInUse { key: key.clone(), data_keys }) }
}
