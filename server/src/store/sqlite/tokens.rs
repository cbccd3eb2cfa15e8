use async_trait::async_trait;
use jiff::Timestamp;
use secretfs_wire::api::{Token, TokenState};
use secretfs_wire::{EnvironmentName, NodeName, OperatorName, TokenId};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::columns::Columns as _;
use super::{Sqlite, require_environment};
use crate::store::{NewToken, OpenToken, StoreError, Tokens};

/// 30 days: how long listings tell what became of a token after its end.
const KEPT_MICROSECONDS: i64 = 30 * 24 * 60 * 60 * 1_000_000;

#[async_trait]
impl Tokens for Sqlite {
    async fn tokens(&self, environment: &EnvironmentName, now: Timestamp) -> Result<Vec<Token>, StoreError> {
        let mut transaction = self.read().await?;
        require_environment(&mut transaction, environment).await?;
        let rows = sqlx::query("SELECT * FROM tokens WHERE environment = ? ORDER BY created DESC, digest")
            .bind(environment.as_str())
            .fetch_all(&mut *transaction)
            .await?;
        rows.iter().map(|row| token(row, now)).collect()
    }

    async fn create_token(&self, environment: &EnvironmentName, new: NewToken) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        require_environment(&mut transaction, environment).await?;
        sqlx::query("SELECT 1 FROM operators WHERE name = ?")
            .bind(new.created_by.as_str())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| StoreError::missing("operator", &new.created_by))?;
        sqlx::query("DELETE FROM tokens WHERE expires < ?")
            .bind(new.created.as_microsecond() - KEPT_MICROSECONDS)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO tokens (digest, environment, approval, labels, name, created, created_by, expires)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(new.digest.as_slice())
        .bind(environment.as_str())
        .bind(new.approval)
        .bind(new.labels.to_string())
        .bind(new.name.as_ref().map(NodeName::as_str))
        .bind(new.created.as_microsecond())
        .bind(new.created_by.as_str())
        .bind(new.expires.as_microsecond())
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    async fn remove_token(&self, environment: &EnvironmentName, id: TokenId) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        require_environment(&mut transaction, environment).await?;
        let row =
            sqlx::query("SELECT used_by FROM tokens WHERE environment = ? AND substr(digest, 1, 6) = ?")
                .bind(environment.as_str())
                .bind(id.as_bytes())
                .fetch_optional(&mut *transaction)
                .await?
                .ok_or_else(|| StoreError::missing("token", id))?;
        if let Some(node) = row.try_get("used_by")? {
            return Err(StoreError::TokenUsed { id, node });
        }
        sqlx::query("DELETE FROM tokens WHERE environment = ? AND substr(digest, 1, 6) = ?")
            .bind(environment.as_str())
            .bind(id.as_bytes())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    async fn open_token(&self, digest: &[u8; 32], now: Timestamp) -> Result<OpenToken, StoreError> {
        let row = sqlx::query(
            "SELECT environment, name FROM tokens WHERE digest = ? AND used_by IS NULL AND expires > ?",
        )
        .bind(digest.as_slice())
        .bind(now.as_microsecond())
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::TokenRefused)?;
        Ok(OpenToken { environment: row.parsed("environment")?, name: row.optional("name")? })
    }
}

/// Forgets the open tokens that an operator has made, in one environment or in all, and says how many these
/// were.
pub(super) async fn withdraw_tokens_of(
    connection: &mut SqliteConnection,
    maker: &OperatorName,
    environment: Option<&EnvironmentName>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let withdrawn = sqlx::query(
        "DELETE FROM tokens
         WHERE created_by = ? AND environment = coalesce(?, environment) AND used_by IS NULL AND expires > ?",
    )
    .bind(maker.as_str())
    .bind(environment.map(EnvironmentName::as_str))
    .bind(now.as_microsecond())
    .execute(connection)
    .await?;
    Ok(withdrawn.rows_affected())
}

fn token(row: &SqliteRow, now: Timestamp) -> Result<Token, StoreError> {
    let digest = row.bytes("digest")?.try_into().map_err(|_| StoreError::Corrupt { column: "digest" })?;
    let expires = row.time("expires")?;
    let used_by: Option<NodeName> = row.optional("used_by")?;
    let state = match &used_by {
        Some(_) => TokenState::Used,
        None if expires <= now => TokenState::Expired,
        None => TokenState::Open,
    };
    Ok(Token {
        id: TokenId::of_digest(&digest),
        state,
        approval: row.try_get("approval")?,
        labels: row.parsed("labels")?,
        name: row.optional("name")?,
        created: row.time("created")?,
        created_by: row.optional("created_by")?,
        expires,
        used_by,
    })
}
