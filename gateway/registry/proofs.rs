//! Until when somebody is proved to be who they are, on whichever node.

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row};

use super::sessions::{IDS_AT_ONCE, among, json, parse, signed, unsigned};
use super::{Registry, RegistryError};
use crate::session::Principal;

/// How long a proof that is over is kept: sessions may outlive theirs by a
/// day, and what began meanwhile is to find it. Milliseconds.
const KEPT_MS: u64 = 2 * 24 * 60 * 60 * 1000;

/// Somebody proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Who, with what is known since.
    pub principal: Principal,
    /// Until when it counts, ms since the Unix epoch.
    pub until_ms: u64,
}

impl Registry {
    /// Keeps a proof; of one person the one that counts longest.
    pub async fn add_proof(&self, proof: &Proof, now_ms: u64) -> Result<(), RegistryError> {
        let mut transaction = self.writer.begin().await?;
        sqlx::query("DELETE FROM proofs WHERE until_ms < $1")
            .bind(signed(now_ms.saturating_sub(KEPT_MS)))
            .execute(&mut *transaction)
            .await?;
        let statement = "INSERT INTO proofs (principal_id, principal, until_ms) VALUES ($1, $2, $3) \
             ON CONFLICT (principal_id) DO UPDATE SET principal = $2, until_ms = $3 \
             WHERE proofs.until_ms <= $3";
        sqlx::query(statement)
            .bind(&proof.principal.id)
            .bind(json(&proof.principal))
            .bind(signed(proof.until_ms))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The proofs of these people; who has none is left out.
    pub async fn proofs(&self, principal_ids: &[String]) -> Result<Vec<Proof>, RegistryError> {
        let mut found = Vec::new();
        for some in principal_ids.chunks(IDS_AT_ONCE) {
            let mut query = QueryBuilder::new("SELECT * FROM proofs WHERE principal_id");
            among(&mut query, some);
            let rows = query.build().fetch_all(&self.reader).await?;
            for row in &rows {
                found.push(read(row)?);
            }
        }
        Ok(found)
    }
}

fn read(row: &SqliteRow) -> Result<Proof, RegistryError> {
    let id: String = row.try_get("principal_id")?;
    let principal = parse(&row.try_get::<String, _>("principal")?, &id, "principal")?;
    Ok(Proof { principal, until_ms: unsigned(row.try_get("until_ms")?) })
}
