//! What became of recordings: which are archived, and which are held.

use std::collections::HashSet;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::sessions::{noun, signed, unsigned};
use super::{Registry, RegistryError};
use crate::session::SessionId;

/// A recording that is in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// The session.
    pub session: SessionId,
    /// When it was archived, ms since the Unix epoch.
    pub at_ms: u64,
    /// When the session ended, ms since the Unix epoch.
    pub ended_ms: u64,
    /// Size of the object.
    pub bytes: u64,
    /// SHA-256 of the object, hex.
    pub sha256: String,
}

/// A legal hold: the recording is not deleted while it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Since when, ms since the Unix epoch.
    pub at_ms: u64,
    /// The ARN of whoever put it there.
    pub by: String,
    /// Why, in their words.
    pub reason: Option<String>,
}

impl Registry {
    /// Notes that a recording is in the archive.
    pub async fn add_archived(&self, archived: &Archived) -> Result<(), RegistryError> {
        let statement = "INSERT INTO archived (session_id, at_ms, ended_ms, bytes, sha256) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (session_id) DO UPDATE SET \
             at_ms = excluded.at_ms, ended_ms = excluded.ended_ms, bytes = excluded.bytes, \
             sha256 = excluded.sha256";
        sqlx::query(statement)
            .bind(archived.session.as_str())
            .bind(signed(archived.at_ms))
            .bind(signed(archived.ended_ms))
            .bind(signed(archived.bytes))
            .bind(&archived.sha256)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// The archived recording of a session.
    pub async fn archived(&self, id: &SessionId) -> Result<Option<Archived>, RegistryError> {
        let row = sqlx::query("SELECT * FROM archived WHERE session_id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The sessions whose recordings are archived.
    pub async fn all_archived(&self) -> Result<HashSet<String>, RegistryError> {
        let ids = sqlx::query_scalar("SELECT session_id FROM archived").fetch_all(&self.reader).await?;
        Ok(ids.into_iter().collect())
    }

    /// Archived recordings of sessions that ended before, oldest first.
    ///
    /// Those that are held are left out.
    pub async fn archived_before(&self, ended_ms: u64, most: u32) -> Result<Vec<Archived>, RegistryError> {
        let statement = "SELECT * FROM archived WHERE ended_ms < $1 \
             AND session_id NOT IN (SELECT session_id FROM holds) ORDER BY ended_ms, session_id LIMIT $2";
        let rows = sqlx::query(statement)
            .bind(signed(ended_ms))
            .bind(i64::from(most))
            .fetch_all(&self.reader)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Notes that a recording is no longer in the archive.
    pub async fn remove_archived(&self, id: &SessionId) -> Result<(), RegistryError> {
        sqlx::query("DELETE FROM archived WHERE session_id = $1")
            .bind(id.as_str())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Holds a recording; the first hold stays.
    pub async fn hold(&self, id: &SessionId, hold: &Hold) -> Result<(), RegistryError> {
        let statement = "INSERT INTO holds (session_id, at_ms, holder, reason) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (session_id) DO NOTHING";
        sqlx::query(statement)
            .bind(id.as_str())
            .bind(signed(hold.at_ms))
            .bind(&hold.by)
            .bind(&hold.reason)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Ends a hold; false if there was none.
    pub async fn release(&self, id: &SessionId) -> Result<bool, RegistryError> {
        let done = sqlx::query("DELETE FROM holds WHERE session_id = $1")
            .bind(id.as_str())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The hold on a recording, if there is one.
    pub async fn held(&self, id: &SessionId) -> Result<Option<Hold>, RegistryError> {
        // Asked of the writer: a hold that was just put there counts.
        let row = sqlx::query("SELECT at_ms, holder, reason FROM holds WHERE session_id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.writer)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let at_ms = unsigned(row.try_get("at_ms")?);
        Ok(Some(Hold { at_ms, by: row.try_get("holder")?, reason: row.try_get("reason")? }))
    }
}

fn read(row: &SqliteRow) -> Result<Archived, RegistryError> {
    let id: String = row.try_get("session_id")?;
    Ok(Archived {
        session: noun(SessionId::parse(&id), &id, "session_id")?,
        at_ms: unsigned(row.try_get("at_ms")?),
        ended_ms: unsigned(row.try_get("ended_ms")?),
        bytes: unsigned(row.try_get("bytes")?),
        sha256: row.try_get("sha256")?,
    })
}
