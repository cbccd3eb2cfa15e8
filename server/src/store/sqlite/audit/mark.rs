use async_trait::async_trait;
use secretfs_wire::ChainId;

use crate::store::sqlite::Sqlite;
use crate::store::sqlite::columns::{Columns as _, integer};
use crate::store::{AuditMark, StoreError};

#[async_trait]
impl AuditMark for Sqlite {
    async fn audit_chain(&self) -> Result<Option<ChainId>, StoreError> {
        let row = sqlx::query("SELECT chain FROM audit_chain").fetch_optional(&self.pool).await?;
        row.map(|row| row.id("chain", ChainId::from_u64)).transpose()
    }

    async fn set_audit_chain(&self, chain: ChainId) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO audit_chain (one, chain) VALUES (1, ?) ON CONFLICT DO UPDATE SET chain = excluded.chain")
            .bind(integer(chain.as_u64()))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn forget_audit_chain(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM audit_chain").execute(&self.pool).await?;
        Ok(())
    }
}
