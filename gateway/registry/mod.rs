//! What is going on, and what went on? Sessions and decisions in SQLite.
//!
//! The statements are standard SQL, so that PostgreSQL can stand behind
//! the same queries. A session's row refers to the decision that let it
//! begin: without a recorded decision the database takes no session.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use sqlx::ConnectOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::watch;

mod alerts;
mod decisions;
mod error;
mod keys;
mod kept;
mod given;
mod page;
mod proofs;
mod record;
mod revocations;
mod schema;
mod sessions;
#[cfg(test)]
mod tests;
mod visits;

pub use alerts::{ALERTS_MAX, WaitingAlert};
pub use decisions::DecisionFilter;
pub use error::RegistryError;
pub use given::{Given, Unfinished};
pub use kept::{Archived, Hold};
pub use keys::SealedKey;
pub use page::Page;
pub use proofs::Proof;
pub use record::{DecisionRecord, SessionRecord, State};
pub use revocations::{Revocation, Revoked};
pub use sessions::{Filter, Span, Traffic};
pub use visits::Visit;

/// How long a statement waits for another process's write, then fails.
const BUSY: Duration = Duration::from_secs(5);
/// How long a call waits for a free connection, then fails.
const ACQUIRE: Duration = Duration::from_secs(5);
/// SQLite has one writer at a time; a second would only wait on a lock.
const WRITERS: u32 = 1;
/// Readers never wait in WAL mode; four keep lists off each other.
const READERS: u32 = 4;

/// Where the registry keeps its rows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// `sqlite:<path of a file>`; the file is made if it is missing.
    pub url: String,
}

/// The record of sessions and decisions; cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    writer: SqlitePool,
    reader: SqlitePool,
    /// How often sessions or who is signed in changed by this node.
    changes: Arc<watch::Sender<u64>>,
}

impl Registry {
    /// Opens the database, makes it if missing, brings it up to date.
    pub async fn open(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let path = sqlite_path(&config.url)?;
        make_private(&path)?;
        let options = options(&path);
        let writer = pool(WRITERS).connect_with(options.clone()).await?;
        schema::migrate(&writer).await?;
        let reader = pool(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, reader, changes: Arc::default() })
    }

    /// Tells of every change of sessions and of who is signed in.
    ///
    /// Only of those that this node makes: others have to be looked for.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn has_changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whether a write would be taken now; `/readyz` asks this.
    pub async fn healthy(&self) -> Result<(), RegistryError> {
        sqlx::query("UPDATE schema_version SET version = version").execute(&self.writer).await?;
        Ok(())
    }

    /// Waits for what is under way and closes every connection.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // A decision is evidence: it outlives a power cut, not only a crash.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .foreign_keys(true)
        .disable_statement_logging()
}

fn sqlite_path(url: &str) -> Result<PathBuf, RegistryError> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
    match path {
        Some(path) if !path.is_empty() && !path.starts_with(':') => Ok(PathBuf::from(path)),
        _ => Err(RegistryError::Url),
    }
}

/// Makes the file, readable for nobody else; SQLite copies the mode.
fn make_private(path: &Path) -> Result<(), RegistryError> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let failed = |source| RegistryError::File { path: path.to_owned(), source };
    let mut open = std::fs::OpenOptions::new();
    let file = open.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)
}
