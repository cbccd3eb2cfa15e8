use async_trait::async_trait;
use secretfs_wire::EnvironmentName;
use secretfs_wire::api::Environment;
use sqlx::sqlite::SqliteRow;

use super::columns::Columns as _;
use super::keys::claim_key;
use super::{Sqlite, inserting, require_environment};
use crate::store::{Environments, StoreError};

#[async_trait]
impl Environments for Sqlite {
    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM environments LIMIT 1").fetch_optional(&self.pool).await?;
        Ok(())
    }

    async fn environments(&self) -> Result<Vec<Environment>, StoreError> {
        let rows = sqlx::query("SELECT name, key_backend, key_name, created FROM environments ORDER BY name")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(environment).collect()
    }

    async fn environment(&self, name: &EnvironmentName) -> Result<Environment, StoreError> {
        let row = sqlx::query("SELECT name, key_backend, key_name, created FROM environments WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await?;
        environment(&row.ok_or_else(|| StoreError::missing("environment", name))?)
    }

    async fn create_environment(&self, new: &Environment) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let key_used = sqlx::query("SELECT 1 FROM environments WHERE key_name = ? AND name <> ?")
            .bind(new.key.name.as_str())
            .bind(new.name.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        if key_used.is_some() {
            return Err(StoreError::exists("an environment with key", &new.key));
        }
        sqlx::query("INSERT INTO environments (name, key_backend, key_name, created) VALUES (?, ?, ?, ?)")
            .bind(new.name.as_str())
            .bind(new.key.backend.as_str())
            .bind(new.key.name.as_str())
            .bind(new.created.as_microsecond())
            .execute(&mut *transaction)
            .await
            .map_err(inserting("environment", &new.name))?;
        claim_key(&mut transaction, &new.name, &new.key).await?;
        Ok(transaction.commit().await?)
    }

    async fn remove_environment(&self, name: &EnvironmentName) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        require_environment(&mut transaction, name).await?;
        for (what, query) in [
            ("secrets", "SELECT 1 FROM secrets WHERE environment = ? LIMIT 1"),
            ("services", "SELECT 1 FROM services WHERE environment = ? LIMIT 1"),
            ("nodes", "SELECT 1 FROM nodes WHERE environment = ? LIMIT 1"),
        ] {
            let left = sqlx::query(query).bind(name.as_str()).fetch_optional(&mut *transaction).await?;
            if left.is_some() {
                return Err(StoreError::NotEmpty { name: name.to_string(), what });
            }
        }
        sqlx::query("DELETE FROM environments WHERE name = ?")
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}

fn environment(row: &SqliteRow) -> Result<Environment, StoreError> {
    Ok(Environment { name: row.parsed("name")?, key: row.key()?, created: row.time("created")? })
}
