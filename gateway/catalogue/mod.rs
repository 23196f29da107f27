//! Which recording says X? An index of lines and commands, in SQLite.
//!
//! Lines lie in blocks of some 16 KiB, compressed; an FTS5 index tells in
//! which blocks each run of three characters occurs. A search asks it for
//! the blocks that may hold the text, newest first, and then looks at their
//! lines. The index may be thrown away: recordings are what counts.

mod block;
mod index;
mod query;
mod search;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

pub use query::{Pattern, Query};
pub use search::{Found, Hit, Recorded, Search};

use crate::replay::ReplayError;
use crate::session::SessionId;

/// What the file is called, beside the recordings.
pub const FILE_NAME: &str = "catalogue.db";
/// How long a statement waits for another process's write, then fails.
const BUSY: Duration = Duration::from_secs(5);
/// How long a call waits for a free connection, then fails.
const ACQUIRE: Duration = Duration::from_secs(30);
/// Searches at once; more of them wait for each other.
const READERS: u32 = 4;
/// Changes with the tables; another number makes the file anew.
const VERSION: i64 = 2;

/// `detail=none` keeps block numbers only; which line it is, a look tells.
const TABLES: &[&str] = &[
    "CREATE TABLE recordings (
        id INTEGER PRIMARY KEY,
        session TEXT NOT NULL UNIQUE,
        principal TEXT NOT NULL,
        target TEXT NOT NULL,
        started_ms BIGINT NOT NULL,
        duration_ms BIGINT NOT NULL,
        whole BOOLEAN NOT NULL)",
    "CREATE TABLE blocks (
        id INTEGER PRIMARY KEY,
        recording INTEGER NOT NULL REFERENCES recordings (id),
        times BLOB NOT NULL,
        text BLOB NOT NULL)",
    "CREATE INDEX blocks_of ON blocks (recording)",
    "CREATE TABLE commands (
        id INTEGER PRIMARY KEY,
        recording INTEGER NOT NULL REFERENCES recordings (id),
        time_ms BIGINT NOT NULL,
        source TEXT NOT NULL,
        text TEXT NOT NULL)",
    "CREATE INDEX commands_of ON commands (recording)",
    "CREATE TABLE outlines (
        recording INTEGER PRIMARY KEY REFERENCES recordings (id),
        packed BLOB NOT NULL)",
    "CREATE VIRTUAL TABLE words USING fts5 (text, content='', contentless_delete=1, \
        detail='none', tokenize='trigram')",
];

/// Why the catalogue does not answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The file cannot be made or its mode set.
    #[error("{path}: {source}")]
    File {
        /// The catalogue's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite said no.
    #[error("the catalogue: {0}")]
    Database(#[from] sqlx::Error),
    /// A block cannot be unpacked.
    #[error("the catalogue is damaged: {0}; `postern index` makes it anew")]
    Damaged(String),
    /// A recording cannot be read.
    #[error("the recording of session {session} cannot be indexed: {why}")]
    Recording {
        /// The session.
        session: SessionId,
        /// Why.
        why: ReplayError,
    },
    /// What is searched for cannot be.
    #[error("{0}")]
    Pattern(String),
    /// A page's token is not one of ours.
    #[error("the page token is not one of this catalogue's")]
    Token,
}

/// The index of a folder's recordings; cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalogue {
    writer: SqlitePool,
    reader: SqlitePool,
}

impl Catalogue {
    /// Opens the catalogue; makes it if it is missing or of other tables.
    pub async fn open(path: &Path) -> Result<Self, CatalogueError> {
        make_private(path)?;
        let options = options().filename(path).journal_mode(SqliteJournalMode::Wal);
        let writer = pool(1).connect_with(options.clone()).await?;
        make_tables(&writer, false).await?;
        let reader = pool(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, reader })
    }

    /// A catalogue that is gone when it is dropped.
    pub async fn in_memory() -> Result<Self, CatalogueError> {
        let writer = pool(1).connect_with(options().in_memory(true)).await?;
        make_tables(&writer, false).await?;
        Ok(Self { reader: writer.clone(), writer })
    }

    /// Forgets everything.
    pub async fn begin_anew(&self) -> Result<(), CatalogueError> {
        make_tables(&self.writer, true).await
    }

    /// Waits for what is under way and closes every connection.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Whether it is closed, or about to be.
    pub fn is_closed(&self) -> bool {
        self.writer.is_closed() || self.reader.is_closed()
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE);
    // What is in memory goes with its connection.
    pool.idle_timeout(None).max_lifetime(None)
}

fn options() -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new().busy_timeout(BUSY).foreign_keys(true);
    // What a power cut takes is indexed again at the next start.
    options.synchronous(SqliteSynchronous::Normal).disable_statement_logging()
}

async fn make_tables(pool: &SqlitePool, anew: bool) -> Result<(), CatalogueError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await?;
    if anew || found != VERSION {
        for table in ["words", "commands", "outlines", "blocks", "recordings"] {
            let drop = sqlx::AssertSqlSafe(format!("DROP TABLE IF EXISTS {table}"));
            sqlx::query(drop).execute(&mut *transaction).await?;
        }
        for statement in TABLES {
            sqlx::query(*statement).execute(&mut *transaction).await?;
        }
        let version = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {VERSION}"));
        sqlx::query(version).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}

/// Makes the file, readable for nobody else; SQLite copies the mode.
fn make_private(path: &Path) -> Result<(), CatalogueError> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let failed = |source| CatalogueError::File { path: path.to_owned(), source };
    let mut open = std::fs::OpenOptions::new();
    let file = open.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)
}
