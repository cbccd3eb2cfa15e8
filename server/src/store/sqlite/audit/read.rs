use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use secretfs_wire::audit::{
    AuditCertificate, CertificateFingerprint, Event, SignedCheckpoint, WrittenRecord,
};
use secretfs_wire::{ChainId, EnvironmentName};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::SqliteAudit;
use super::append::{hash, head};
use crate::store::sqlite::columns::{Columns as _, integer};
use crate::store::{
    AppendError, AuditBatch, AuditKeyRecord, AuditLog, LossSource, MOST_OF_ONE_ID, ReportId, StoreError,
    StoredChain, StoredCheckpoint, StoredRecord,
};

/// Of the records that are verified and no others, which would be found in the same index.
const VERIFIED: &str = " AND sequence > 0 AND chain IN (SELECT id FROM chains)";

#[async_trait]
impl AuditLog for SqliteAudit {
    async fn chains(&self) -> Result<Vec<StoredChain>, StoreError> {
        let mut connection = self.readers.acquire().await?;
        let rows =
            sqlx::query("SELECT id, ended FROM chains ORDER BY place").fetch_all(&mut *connection).await?;
        let mut chains = Vec::new();
        for row in rows {
            let id = row.id("id", ChainId::from_u64)?;
            let ended = row.unsigned("ended")? != 0;
            chains.push(StoredChain { id, ended, head: head(&mut connection, id).await? });
        }
        Ok(chains)
    }

    async fn append(&self, chain: ChainId, batch: AuditBatch) -> Result<(), AppendError> {
        self.write(chain, batch).await
    }

    async fn recorded(&self, ids: &BTreeSet<ReportId>) -> Result<BTreeMap<ReportId, Vec<Event>>, StoreError> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let by_text: BTreeMap<_, _> = ids.iter().map(|id| (report_text(id), *id)).collect();
        let texts = by_text.keys().collect::<Vec<_>>();
        let texts = serde_json::to_string(&texts).map_err(|_| StoreError::Corrupt { column: "reported" })?;
        let found = format!(
            "SELECT asked.value AS reported,
                 (SELECT json_group_array(json_extract(record, '$.event')) FROM
                     (SELECT record FROM records WHERE reported = asked.value{VERIFIED} LIMIT ?)) AS events
             FROM json_each(?) AS asked
             WHERE EXISTS (SELECT 1 FROM records WHERE reported = asked.value{VERIFIED})",
        );
        let query = sqlx::query(AssertSqlSafe(found)).bind(MOST_OF_ONE_ID).bind(texts);
        let rows = query.fetch_all(&self.readers).await?;
        let found = |row: &SqliteRow| {
            let text: &str = row.try_get("reported")?;
            let id = by_text.get(text).ok_or(StoreError::Corrupt { column: "reported" })?;
            Ok((*id, row.json("events")?))
        };
        rows.iter().map(found).collect()
    }

    async fn records(
        &self,
        chain: ChainId,
        from: u64,
        environment: Option<&EnvironmentName>,
        limit: u32,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        let query = match environment {
            None => sqlx::query(
                "SELECT sequence, record, hash FROM records WHERE chain = ? AND sequence >= ?
                 ORDER BY sequence LIMIT ?",
            ),
            Some(_) => sqlx::query(
                "SELECT sequence, record, hash FROM records INDEXED BY records_by_environment
                 WHERE chain = ? AND sequence >= ? AND environment = ? ORDER BY sequence LIMIT ?",
            ),
        };
        let query = query.bind(integer(chain.as_u64())).bind(integer(from));
        let query = match environment {
            None => query,
            Some(name) => query.bind(name.as_str()),
        };
        let rows = query.bind(limit).fetch_all(&self.readers).await?;
        rows.iter().map(record).collect()
    }

    async fn tail(
        &self,
        chain: ChainId,
        environment: Option<&EnvironmentName>,
        count: u32,
    ) -> Result<u64, StoreError> {
        let query = match environment {
            None => sqlx::query(
                "SELECT coalesce(min(sequence), 1) AS first FROM
                 (SELECT sequence FROM records WHERE chain = ? ORDER BY sequence DESC LIMIT ?)",
            )
            .bind(integer(chain.as_u64())),
            Some(name) => sqlx::query(
                "SELECT coalesce(min(sequence), 1) AS first FROM
                 (SELECT sequence FROM records INDEXED BY records_by_environment
                  WHERE chain = ? AND environment = ? ORDER BY sequence DESC LIMIT ?)",
            )
            .bind(integer(chain.as_u64()))
            .bind(name.as_str()),
        };
        query.bind(count).fetch_one(&self.readers).await?.unsigned("first")
    }

    async fn checkpoints(
        &self,
        chain: ChainId,
        from: u64,
        limit: u32,
    ) -> Result<Vec<StoredCheckpoint>, StoreError> {
        let rows = sqlx::query(
            "SELECT sequence, checkpoint FROM checkpoints WHERE chain = ? AND sequence >= ?
             ORDER BY sequence LIMIT ?",
        )
        .bind(integer(chain.as_u64()))
        .bind(integer(from))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let checkpoint = |row: &SqliteRow| {
            let signed = row.json("checkpoint").map_err(|_| text(row, "checkpoint"));
            Ok(StoredCheckpoint { sequence: row.unsigned("sequence")?, signed })
        };
        rows.iter().map(checkpoint).collect()
    }

    async fn last_checkpoint(&self, chain: ChainId) -> Result<Option<SignedCheckpoint>, StoreError> {
        let row =
            sqlx::query("SELECT checkpoint FROM checkpoints WHERE chain = ? ORDER BY sequence DESC LIMIT 1")
                .bind(integer(chain.as_u64()))
                .fetch_optional(&self.readers)
                .await?;
        row.map(|row| row.json("checkpoint")).transpose()
    }

    async fn audit_keys(
        &self,
        chain: ChainId,
    ) -> Result<Vec<(CertificateFingerprint, AuditKeyRecord)>, StoreError> {
        let rows = sqlx::query(
            "SELECT fingerprint, certificate, made, sealed FROM keys WHERE chain = ? ORDER BY made DESC",
        )
        .bind(integer(chain.as_u64()))
        .fetch_all(&self.readers)
        .await?;
        let key = |row: &SqliteRow| {
            let fingerprint: &[u8] = row.try_get("fingerprint")?;
            let fingerprint = CertificateFingerprint::from_bytes(fingerprint)
                .ok_or(StoreError::Corrupt { column: "fingerprint" })?;
            let record = AuditKeyRecord {
                certificate: AuditCertificate::from_der(row.bytes("certificate")?),
                made: row.time("made")?,
                sealed: row.try_get("sealed")?,
            };
            Ok((fingerprint, record))
        };
        rows.iter().map(key).collect()
    }

    async fn losses(&self, (node, log): LossSource) -> Result<u64, StoreError> {
        let total = format!("SELECT coalesce(max(lost), 0) AS total FROM records WHERE loser = ?{VERIFIED}");
        let query = sqlx::query(AssertSqlSafe(total)).bind(format!("{node}/{log}"));
        query.fetch_one(&self.readers).await?.unsigned("total")
    }
}

/// A record as it stands there, whatever that is: who verifies says what is wrong with it.
fn record(row: &SqliteRow) -> Result<StoredRecord, StoreError> {
    let written = WrittenRecord { text: text(row, "record"), hash: hash(row) };
    Ok(StoredRecord { sequence: row.unsigned("sequence")?, written })
}

/// What stands in a column for texts, as far as it is one.
fn text(row: &SqliteRow, column: &'static str) -> String {
    let bytes: &[u8] = row.try_get(column).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// The text by which what a node reported is found again.
fn report_text(ReportId { node, event }: &ReportId) -> String {
    format!("{node}/{}/{}", event.log, event.number)
}
