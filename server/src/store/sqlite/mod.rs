//! The embedded default: SQLite in WAL mode. The only module that names sqlx.

mod audit;
mod columns;
mod environments;
mod keys;
mod nodes;
mod operators;
mod publication;
mod secrets;
mod services;
mod templates;
mod tokens;

use std::path::Path;
use std::time::Duration;

use secretfs_wire::EnvironmentName;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Connection as _, Row as _, Sqlite as Driver, Transaction};

use super::StoreError;

pub(crate) use audit::SqliteAudit;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long a writer waits for another, and a request for a connection, before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// SQLITE_BUSY and SQLITE_FULL.
const BUSY: i32 = 5;
const FULL: i32 = 13;
/// SQLite has one writer at a time; the others read beside it.
const CONNECTIONS: u32 = 4;

/// A store in one SQLite database.
pub(crate) struct Sqlite {
    pool: SqlitePool,
}

impl Sqlite {
    /// Opens the database in a file that exists, and migrates it. One that is missing is an error, and
    /// not a manager that has forgotten everything.
    pub(crate) async fn open(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            // WAL with NORMAL may lose the last commits when the power fails; a lost revocation is
            // not worth the speed.
            .synchronous(SqliteSynchronous::Full);
        // A connection to a file does not go stale, so there is nothing to test before each use.
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).test_before_acquire(false);
        Self::connect(options, pool).await
    }

    /// A database that is gone when this is dropped. It lives in its one connection, which is
    /// therefore never given up.
    pub(crate) async fn in_memory() -> Result<Self, StoreError> {
        let pool = SqlitePoolOptions::new().min_connections(1).max_connections(1);
        let pool = pool.idle_timeout(None).max_lifetime(None).test_before_acquire(false);
        Self::connect(SqliteConnectOptions::new().in_memory(true), pool).await
    }

    async fn connect(options: SqliteConnectOptions, pool: SqlitePoolOptions) -> Result<Self, StoreError> {
        let options = options.foreign_keys(true).busy_timeout(BUSY_TIMEOUT);
        let pool = pool.acquire_timeout(BUSY_TIMEOUT).connect_with(options).await?;
        MIGRATIONS.run(&pool).await.map_err(|error| StoreError::Database(Box::new(error)))?;
        Ok(Self { pool })
    }

    /// Copies a database that a manager may be using, as it is at one moment, into a file that is not
    /// there yet.
    pub(crate) async fn copy(file: &Path, into: &Path) -> Result<(), StoreError> {
        let into = into.to_str().ok_or(StoreError::Corrupt { column: "the path of the copy" })?;
        let mut connection = Self::inspect(file).await?;
        sqlx::query("VACUUM INTO ?").bind(into).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Whether a database that nobody uses is whole.
    pub(crate) async fn check(file: &Path) -> Result<(), StoreError> {
        let mut connection = Self::inspect(file).await?;
        let row = sqlx::query("PRAGMA integrity_check(1)").fetch_one(&mut connection).await?;
        let verdict: String = row.try_get(0)?;
        connection.close().await?;
        if verdict == "ok" { Ok(()) } else { Err(StoreError::Corrupt { column: "of the store" }) }
    }

    /// One connection to a database as it is, whatever version has made it.
    async fn inspect(file: &Path) -> Result<SqliteConnection, StoreError> {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(false);
        Ok(SqliteConnection::connect_with(&options.busy_timeout(BUSY_TIMEOUT)).await?)
    }

    /// Writes everything to the file and lets it go.
    pub(crate) async fn close(self) {
        self.pool.close().await;
    }

    /// A transaction that only reads, and sees one state of the database.
    async fn read(&self) -> Result<Transaction<'static, Driver>, StoreError> {
        Ok(self.pool.begin().await?)
    }

    /// A transaction that writes. It takes the write lock at once: one that only takes it when it
    /// first writes fails, instead of waiting, when another has written since it read.
    async fn write(&self) -> Result<Transaction<'static, Driver>, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}

async fn require_environment(
    connection: &mut SqliteConnection,
    name: &EnvironmentName,
) -> Result<(), StoreError> {
    sqlx::query("SELECT 1 FROM environments WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await?
        .map(|_| ())
        .ok_or_else(|| StoreError::missing("environment", name))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // The low byte is the code, and the others are its extensions.
        let code = match &error {
            sqlx::Error::PoolTimedOut => Some(BUSY),
            sqlx::Error::Database(database) => {
                database.code().and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff)
            }
            _ => None,
        };
        match code {
            Some(BUSY) => Self::Busy(Box::new(error)),
            Some(FULL) => Self::Full(Box::new(error)),
            _ => Self::Database(Box::new(error)),
        }
    }
}

/// What a failed insert means: the row exists already, or the database failed.
fn inserting(kind: &'static str, name: impl ToString) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |error| match error.as_database_error() {
        Some(database) if database.is_unique_violation() => StoreError::exists(kind, name),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sqlite_in_memory_conforms() {
        let store = Sqlite::in_memory().await.expect("a store");
        crate::store::conformance::check(&store).await;
    }

    #[tokio::test]
    async fn sqlite_in_a_file_conforms_and_remembers() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("store.db");
        assert!(Sqlite::open(&file).await.is_err(), "there is none");
        std::fs::File::create(&file).expect("an empty file");
        let store = Sqlite::open(&file).await.expect("a store");
        crate::store::conformance::check(&store).await;
        store.close().await;

        use crate::store::Environments as _;
        let store = Sqlite::open(&file).await.expect("the store again");
        assert!(!store.environments().await.expect("environments").is_empty());
    }
}
