//! The keys of encrypted sessions, sealed: KMS alone can open them.

use sqlx::Row;

use super::{Registry, RegistryError};
use crate::session::SessionId;

/// A session's data key as KMS sealed it, and what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// The KMS key that it was made with, as the target named it.
    pub kms_key_id: String,
    /// The target's challenge, bound to it beside session and machine.
    pub challenge: Option<String>,
    /// What KMS opens; no secret.
    pub sealed: Vec<u8>,
}

impl Registry {
    /// Notes that a session is encrypted, and with what.
    ///
    /// Whoever takes the session over would not know it otherwise, and
    /// record what nobody can read.
    pub async fn add_session_key(&self, id: &SessionId, key: &SealedKey) -> Result<(), RegistryError> {
        let statement =
            "INSERT INTO session_keys (session_id, kms_key_id, challenge, sealed) VALUES ($1, $2, $3, $4)";
        sqlx::query(statement)
            .bind(id.as_str())
            .bind(&key.kms_key_id)
            .bind(&key.challenge)
            .bind(&key.sealed)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// A session's key; none if the session is not encrypted.
    pub async fn session_key(&self, id: &SessionId) -> Result<Option<SealedKey>, RegistryError> {
        let statement = "SELECT kms_key_id, challenge, sealed FROM session_keys WHERE session_id = $1";
        let row = sqlx::query(statement).bind(id.as_str()).fetch_optional(&self.reader).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(SealedKey {
            kms_key_id: row.try_get("kms_key_id")?,
            challenge: row.try_get("challenge")?,
            sealed: row.try_get("sealed")?,
        }))
    }
}
