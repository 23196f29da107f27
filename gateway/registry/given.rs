//! What a session was given at its start, for a process that takes it over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::sessions::{insert, json, parse, read, unsigned};
use super::{Registry, RegistryError, SessionRecord};

/// What the session's row does not say and a later process needs.
///
/// There is no secret in it: keys and tokens are taken anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The address that the session was started from.
    pub source_ip: String,
    /// Until when its person counts as proved, ms since the Unix epoch;
    /// `None` if an older version started it.
    #[serde(default)]
    pub proved_until_ms: Option<u64>,
    /// What the document was given: `command`, `host`, `portNumber`.
    #[serde(default)]
    pub parameters: BTreeMap<String, Vec<String>>,
    /// What the policy obliged the gateway to, in the policy's own form.
    #[serde(default)]
    pub obligations: serde_json::Value,
    /// What the gateway calls itself on the data channel upstream.
    pub client_id: String,
    /// The version it gives there.
    pub client_version: String,
}

/// A session that was not over when its node's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its row.
    pub record: SessionRecord,
    /// What it was given; `None` if an older version started it.
    pub given: Option<Given>,
    /// Since when it is in its state, ms since the Unix epoch.
    pub since_ms: Option<u64>,
}

impl Registry {
    /// Records a session with what it was given.
    pub async fn add_started(&self, session: &SessionRecord, given: &Given) -> Result<(), RegistryError> {
        let mut transaction = self.writer.begin().await?;
        insert(session).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO session_starts (session_id, given) VALUES ($1, $2)")
            .bind(session.id.as_str())
            .bind(json(given))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        self.has_changed();
        Ok(())
    }

    /// The sessions of a node that are not over, oldest first.
    pub async fn unfinished(&self, node: &str) -> Result<Vec<Unfinished>, RegistryError> {
        let statement = "SELECT sessions.*, session_starts.given FROM sessions \
             LEFT JOIN session_starts ON session_starts.session_id = sessions.id \
             WHERE node = $1 AND state NOT IN ('Terminated', 'Failed') ORDER BY started_ms, id";
        let rows = sqlx::query(statement).bind(node).fetch_all(&self.reader).await?;
        let unfinished = |row| {
            let record = read(row)?;
            let given: Option<String> = row.try_get("given")?;
            let given = given.map(|text| parse(&text, record.id.as_str(), "given")).transpose()?;
            let since_ms = row.try_get::<Option<i64>, _>("state_ms")?.map(unsigned);
            Ok(Unfinished { record, given, since_ms })
        };
        rows.iter().map(unfinished).collect()
    }
}
