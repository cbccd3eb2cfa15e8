use std::sync::atomic::Ordering::Relaxed;

use secretfs_wire::ChainId;
use secretfs_wire::audit::RecordHash;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection as _, QueryBuilder, Row as _, Sqlite as Driver};

use super::SqliteAudit;
use crate::store::sqlite::columns::{Columns as _, integer};
use crate::store::{AppendError, AuditBatch, AuditKeyRecord, Head, StoreError, StoredRecord};

/// Rows that one statement inserts; each has four parameters.
const ROWS: usize = 200;

impl SqliteAudit {
    pub(super) async fn write(&self, chain: ChainId, batch: AuditBatch) -> Result<(), AppendError> {
        let mut connection = self.writer.acquire().await.map_err(StoreError::from)?;
        let written = match self.make_durable(&mut connection, batch.durable).await {
            Ok(()) => write(&mut connection, chain, batch).await,
            Err(error) => Err(error.into()),
        };
        if matches!(written, Err(AppendError::Store(_))) && self.is_in_file {
            // After a commit that failed it is not known whether its transaction is over.
            let _ = connection.close().await;
        }
        written
    }

    /// Has what is committed from now on survive a power cut, or only the end of the process.
    async fn make_durable(&self, connection: &mut SqliteConnection, durable: bool) -> Result<(), StoreError> {
        // A connection that took the place of another begins as durable, which is never too little.
        if self.is_durable.load(Relaxed) == durable {
            return Ok(());
        }
        // In effect from the next transaction on; inside of one it cannot be changed.
        let synchronous = match durable {
            true => "PRAGMA synchronous = FULL",
            false => "PRAGMA synchronous = NORMAL",
        };
        sqlx::query(synchronous).execute(connection).await?;
        self.is_durable.store(durable, Relaxed);
        Ok(())
    }
}

async fn write(
    connection: &mut SqliteConnection,
    chain: ChainId,
    batch: AuditBatch,
) -> Result<(), AppendError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::from)?;
    let found = head(&mut transaction, chain).await?;
    if found != batch.after {
        let number = |head: Option<Head>| head.map_or(0, |head| head.sequence);
        return Err(AppendError::Moved { expected: number(batch.after), found: number(found) });
    }
    if found.is_none() {
        begin(&mut transaction, chain).await?;
    }
    for rows in batch.records.chunks(ROWS) {
        insert(&mut transaction, chain, rows).await?;
    }
    if let Some(signed) = &batch.checkpoint {
        let text = serde_json::to_string(signed).map_err(|_| StoreError::Corrupt { column: "checkpoint" })?;
        // Of two at the same place the first says as much.
        sqlx::query(
            "INSERT INTO checkpoints (chain, sequence, checkpoint) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(integer(chain.as_u64()))
        .bind(integer(signed.checkpoint.sequence))
        .bind(text)
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::from)?;
    }
    if let Some(key) = &batch.key {
        replace_key(&mut transaction, chain, key).await?;
    }
    Ok(transaction.commit().await.map_err(StoreError::from)?)
}

/// The last record of a chain.
pub(super) async fn head(
    connection: &mut SqliteConnection,
    chain: ChainId,
) -> Result<Option<Head>, StoreError> {
    let row =
        sqlx::query("SELECT sequence, hash FROM records WHERE chain = ? ORDER BY sequence DESC LIMIT 1")
            .bind(integer(chain.as_u64()))
            .fetch_optional(connection)
            .await?;
    row.map(|row| Ok(Head { sequence: row.unsigned("sequence")?, hash: hash(&row) })).transpose()
}

/// What stands as a record's hash; what is none at all is one that no record has.
pub(super) fn hash(row: &SqliteRow) -> RecordHash {
    const NONE: [u8; 32] = [0; 32];
    let bytes = row.try_get("hash").ok();
    bytes.and_then(RecordHash::from_bytes).unwrap_or(RecordHash::new(NONE))
}

async fn begin(connection: &mut SqliteConnection, chain: ChainId) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO chains (id, place) SELECT ?, coalesce(max(place), 0) + 1 FROM chains")
        .bind(integer(chain.as_u64()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert(
    connection: &mut SqliteConnection,
    chain: ChainId,
    rows: &[StoredRecord],
) -> Result<(), StoreError> {
    let mut query: QueryBuilder<Driver> =
        QueryBuilder::new("INSERT INTO records (chain, sequence, record, hash) ");
    query.push_values(rows, |mut row, record| {
        row.push_bind(integer(chain.as_u64()))
            .push_bind(integer(record.sequence))
            .push_bind(record.written.text.clone())
            .push_bind(record.written.hash.as_bytes().to_vec());
    });
    query.build().execute(connection).await?;
    Ok(())
}

async fn replace_key(
    connection: &mut SqliteConnection,
    chain: ChainId,
    key: &AuditKeyRecord,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE keys SET sealed = NULL").execute(&mut *connection).await?;
    sqlx::query("INSERT INTO keys (fingerprint, chain, certificate, made, sealed) VALUES (?, ?, ?, ?, ?)")
        .bind(key.certificate.fingerprint().as_bytes().to_vec())
        .bind(integer(chain.as_u64()))
        .bind(key.certificate.as_der().to_vec())
        .bind(key.made.as_microsecond())
        .bind(key.sealed.clone())
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_for_the_disk_when_it_is_to_and_never_less() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let log = SqliteAudit::open(file.path()).await.expect("a log");
        let mode = async |durable| {
            let mut connection = log.writer.acquire().await.expect("a connection");
            log.make_durable(&mut connection, durable).await.expect("made");
            let row = sqlx::query("PRAGMA synchronous").fetch_one(&mut *connection).await.expect("a mode");
            row.get::<i64, _>(0)
        };
        // FULL is 2 and NORMAL is 1 (https://www.sqlite.org/pragma.html#pragma_synchronous).
        for (durable, expected) in [(true, 2), (false, 1), (false, 1), (true, 2), (false, 1)] {
            assert_eq!(mode(durable).await, expected);
        }
        log.writer.acquire().await.expect("a connection").close().await.expect("closed");
        assert_eq!((mode(false).await, mode(true).await), (2, 2), "another connection begins durable");
    }
}
