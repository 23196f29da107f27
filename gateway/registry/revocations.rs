//! Who and what is shut out at once, on every node, until it is lifted.

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::sessions::{parse, signed, unsigned};
use super::{Registry, RegistryError};

/// What is shut out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", content = "which", rename_all = "snake_case")]
pub enum Revoked {
    /// A person: the ARN or unique id of IAM, or the verified address.
    Principal(String),
    /// A role: its ARN without path, or its name in any account.
    Role(String),
    /// One session.
    Session(String),
    /// A machine.
    Target(String),
}

/// One revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its id, a UUID.
    pub id: String,
    /// What it shuts out.
    #[serde(flatten)]
    pub revoked: Revoked,
    /// Why, in the words of who did it.
    pub reason: String,
    /// The ARN of who did it.
    pub by: String,
    /// Since when, ms since the Unix epoch.
    pub at_ms: u64,
    /// Until when, ms since the Unix epoch; until lifted if absent.
    pub until_ms: Option<u64>,
}

impl Registry {
    /// Records a revocation.
    pub async fn revoke(&self, revocation: &Revocation) -> Result<(), RegistryError> {
        let statement = "INSERT INTO revocations (id, revoked, reason, revoked_by, at_ms, until_ms) \
             VALUES ($1, $2, $3, $4, $5, $6)";
        sqlx::query(statement)
            .bind(&revocation.id)
            .bind(super::sessions::json(&revocation.revoked))
            .bind(&revocation.reason)
            .bind(&revocation.by)
            .bind(signed(revocation.at_ms))
            .bind(revocation.until_ms.map(signed))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Lifts one; false if there is none of that id in force.
    pub async fn lift(&self, id: &str, by: &str, now_ms: u64) -> Result<bool, RegistryError> {
        let statement = "UPDATE revocations SET lifted_ms = $1, lifted_by = $2 \
             WHERE id = $3 AND lifted_ms IS NULL";
        let done =
            sqlx::query(statement).bind(signed(now_ms)).bind(by).bind(id).execute(&self.writer).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Those in force, oldest first.
    pub async fn revocations(&self, now_ms: u64) -> Result<Vec<Revocation>, RegistryError> {
        let statement = "SELECT * FROM revocations WHERE lifted_ms IS NULL \
             AND (until_ms IS NULL OR until_ms > $1) ORDER BY at_ms, id";
        let rows = sqlx::query(statement).bind(signed(now_ms)).fetch_all(&self.reader).await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &SqliteRow) -> Result<Revocation, RegistryError> {
    let id: String = row.try_get("id")?;
    Ok(Revocation {
        revoked: parse(&row.try_get::<String, _>("revoked")?, &id, "revoked")?,
        reason: row.try_get("reason")?,
        by: row.try_get("revoked_by")?,
        at_ms: unsigned(row.try_get("at_ms")?),
        until_ms: row.try_get::<Option<i64>, _>("until_ms")?.map(unsigned),
        id,
    })
}
