//! Browsers that are signed in, known on every node until they sign out.

use std::collections::HashSet;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::sessions::{json, parse, signed, unsigned};
use super::{Registry, RegistryError};
use crate::session::Principal;

/// Browsers of one person at once; the oldest is signed out for another.
const VISITS_PER_PRINCIPAL: i64 = 20;
/// How long it is known of a browser whose time is over that nobody signed it
/// out: a shell that it opened may still run.
const KNOWN_MS: u64 = 25 * 3600 * 1000;
/// Codes that wait to be used, of everybody; the oldest makes room.
const CODES_MAX: i64 = 1000;

/// Somebody signed in, in one browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// Who.
    pub principal: Principal,
    /// Until when, ms since the Unix epoch.
    pub until_ms: u64,
}

impl Registry {
    /// Keeps a code that signs a browser in once.
    pub async fn add_visit_code(
        &self,
        id: &str,
        visit: &Visit,
        good_until_ms: u64,
    ) -> Result<(), RegistryError> {
        let mut transaction = self.writer.begin().await?;
        let oldest = "DELETE FROM visit_codes WHERE id NOT IN \
             (SELECT id FROM visit_codes ORDER BY good_until_ms DESC, id LIMIT $1)";
        sqlx::query(oldest).bind(CODES_MAX - 1).execute(&mut *transaction).await?;
        let statement =
            "INSERT INTO visit_codes (id, principal, good_until_ms, until_ms) VALUES ($1, $2, $3, $4)";
        sqlx::query(statement)
            .bind(id)
            .bind(json(&visit.principal))
            .bind(signed(good_until_ms))
            .bind(signed(visit.until_ms))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Whose a code is, which is not spent by this.
    pub async fn visit_code(&self, id: &str, now_ms: u64) -> Result<Option<Visit>, RegistryError> {
        let statement = "SELECT principal, until_ms FROM visit_codes WHERE id = $1 AND good_until_ms > $2";
        let row = sqlx::query(statement).bind(id).bind(signed(now_ms)).fetch_optional(&self.reader).await?;
        row.as_ref().map(|row| read(row, id)).transpose()
    }

    /// Spends a code; none if it is unknown, used or too old.
    pub async fn take_visit_code(&self, id: &str, now_ms: u64) -> Result<Option<Visit>, RegistryError> {
        let statement = "DELETE FROM visit_codes WHERE id = $1 \
             RETURNING principal, until_ms, good_until_ms";
        let row = sqlx::query(statement).bind(id).fetch_optional(&self.writer).await?;
        let Some(row) = row else { return Ok(None) };
        let good_until_ms = unsigned(row.try_get("good_until_ms")?);
        let visit = read(&row, id)?;
        Ok((now_ms < good_until_ms).then_some(visit))
    }

    /// Signs a browser in, and forgets those whose time is long over.
    pub async fn begin_visit(&self, id: &str, visit: &Visit, now_ms: u64) -> Result<(), RegistryError> {
        let mut transaction = self.writer.begin().await?;
        let over = "DELETE FROM visits WHERE until_ms <= $1";
        sqlx::query(over).bind(signed(now_ms.saturating_sub(KNOWN_MS))).execute(&mut *transaction).await?;
        let oldest = "DELETE FROM visits WHERE principal_id = $1 AND id NOT IN \
             (SELECT id FROM visits WHERE principal_id = $1 ORDER BY began_ms DESC, id LIMIT $2)";
        sqlx::query(oldest)
            .bind(&visit.principal.id)
            .bind(VISITS_PER_PRINCIPAL - 1)
            .execute(&mut *transaction)
            .await?;
        let statement = "INSERT INTO visits (id, principal, principal_id, began_ms, until_ms) \
             VALUES ($1, $2, $3, $4, $5)";
        sqlx::query(statement)
            .bind(id)
            .bind(json(&visit.principal))
            .bind(&visit.principal.id)
            .bind(signed(now_ms))
            .bind(signed(visit.until_ms))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Who is signed in there; none after the end.
    pub async fn visit(&self, id: &str, now_ms: u64) -> Result<Option<Visit>, RegistryError> {
        let statement = "SELECT principal, until_ms FROM visits WHERE id = $1 AND until_ms > $2";
        let row = sqlx::query(statement).bind(id).bind(signed(now_ms)).fetch_optional(&self.reader).await?;
        row.as_ref().map(|row| read(row, id)).transpose()
    }

    /// Which of these browsers nobody signed out, though their time may be over.
    pub async fn not_signed_out(&self, ids: &[String]) -> Result<HashSet<String>, RegistryError> {
        let statement = "SELECT id FROM visits WHERE id IN (SELECT value FROM json_each($1))";
        let rows = sqlx::query_scalar(statement).bind(json(&ids)).fetch_all(&self.reader).await?;
        Ok(rows.into_iter().collect())
    }

    /// Signs one browser out, on every node.
    pub async fn end_visit(&self, id: &str) -> Result<(), RegistryError> {
        sqlx::query("DELETE FROM visits WHERE id = $1").bind(id).execute(&self.writer).await?;
        self.has_changed();
        Ok(())
    }

    /// Signs all browsers of a person out, on every node.
    pub async fn end_visits_of(&self, principal_id: &str) -> Result<(), RegistryError> {
        let statement = "DELETE FROM visits WHERE principal_id = $1";
        sqlx::query(statement).bind(principal_id).execute(&self.writer).await?;
        self.has_changed();
        Ok(())
    }
}

fn read(row: &SqliteRow, id: &str) -> Result<Visit, RegistryError> {
    let principal = parse(&row.try_get::<String, _>("principal")?, id, "principal")?;
    Ok(Visit { principal, until_ms: unsigned(row.try_get("until_ms")?) })
}
