//! The audit log in a database of its own, so that what it does delays nobody else, and what it fails
//! with is told apart.

mod append;
mod mark;
mod read;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::{BUSY_TIMEOUT, Sqlite};
use crate::store::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/audit");

/// Beside the one that writes.
const READERS: u32 = 3;

/// An audit log in one SQLite database.
pub(crate) struct SqliteAudit {
    writer: SqlitePool,
    readers: SqlitePool,
    is_in_file: bool,
    /// Whether the one that writes waits for the disk.
    is_durable: AtomicBool,
}

impl SqliteAudit {
    /// Opens the log in a file that exists, and migrates it.
    pub(crate) async fn open(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            // A private key that is removed is gone from the file.
            .pragma("secure_delete", "ON")
            .synchronous(SqliteSynchronous::Full);
        let pool = |connections| {
            let pool = SqlitePoolOptions::new().max_connections(connections).test_before_acquire(false);
            pool.acquire_timeout(BUSY_TIMEOUT)
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        MIGRATIONS.run(&writer).await.map_err(|error| StoreError::Database(Box::new(error)))?;
        let readers = pool(READERS).connect_with(options).await?;
        Ok(Self { writer, readers, is_in_file: true, is_durable: AtomicBool::new(true) })
    }

    /// A log that is gone when this is dropped.
    pub(crate) async fn in_memory() -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(true);
        let pool = SqlitePoolOptions::new().min_connections(1).max_connections(1);
        let pool = pool.idle_timeout(None).max_lifetime(None).test_before_acquire(false);
        let pool = pool.acquire_timeout(BUSY_TIMEOUT).connect_with(options).await?;
        MIGRATIONS.run(&pool).await.map_err(|error| StoreError::Database(Box::new(error)))?;
        Ok(Self { writer: pool.clone(), readers: pool, is_in_file: false, is_durable: AtomicBool::new(true) })
    }

    /// Ends all chains of a log that came from a backup, so that whoever opens it begins a new one.
    pub(crate) async fn end_chains(file: &Path) -> Result<(), StoreError> {
        use sqlx::Connection as _;
        let mut connection = Sqlite::inspect(file).await?;
        sqlx::query("UPDATE chains SET ended = 1").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Writes everything to the file and lets it go.
    #[cfg(test)]
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Lets the database have no more than it has, and so many pages.
    #[cfg(test)]
    pub(crate) async fn limit_pages(&self, more: u32) {
        use sqlx::Row as _;
        let row = sqlx::query("PRAGMA page_count").fetch_one(&self.writer).await.expect("a count");
        let pages = row.get::<i64, _>(0) + i64::from(more);
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(limit).execute(&self.writer).await.expect("limited");
    }
}
