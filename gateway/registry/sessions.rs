//! The sessions: added, moved from state to state, found again.

use std::collections::HashSet;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::{QueryBuilder, Row};

use super::page::{Cut, Page};
use super::{Registry, RegistryError, SessionRecord, State};
use crate::session::{Document, SessionId, Target, sanitised_name};

/// Ids looked up in one statement; SQLite takes some thousands.
pub(super) const IDS_AT_ONCE: usize = 500;

/// Which sessions `DescribeSessions` lists: its two `State` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Those that are not over.
    Active,
    /// Those that are.
    History,
}

/// What the sessions looked for have in common; empty finds all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Active ones or past ones.
    pub span: Option<Span>,
    /// Started at or after, ms since the Unix epoch.
    pub invoked_after_ms: Option<u64>,
    /// Started before, ms since the Unix epoch.
    pub invoked_before_ms: Option<u64>,
    /// On this machine.
    pub target: Option<Target>,
    /// By the principal with this ARN.
    pub owner: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// With this id.
    pub id: Option<SessionId>,
}

/// What a session moved and where its proof is, known at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// SHA-256 of the sealed recording, hex.
    pub recording_sha256: Option<String>,
    /// Payload bytes from the client.
    pub bytes_in: u64,
    /// Payload bytes to the client.
    pub bytes_out: u64,
}

impl Registry {
    /// Records a session; its decision must be recorded already.
    pub async fn add_session(&self, session: &SessionRecord) -> Result<(), RegistryError> {
        insert(session).execute(&self.writer).await?;
        self.has_changed();
        Ok(())
    }

    /// Moves a session; false if it is unknown or already over.
    ///
    /// A reason is kept only with an ending state, and the first one stays:
    /// what set the end in motion says more than what followed.
    pub async fn set_state(
        &self,
        id: &SessionId,
        state: State,
        at_ms: u64,
        reason: Option<&str>,
    ) -> Result<bool, RegistryError> {
        let statement = "UPDATE sessions SET state = $2, \
             state_ms = CASE WHEN state = $2 THEN COALESCE(state_ms, $4) ELSE $4 END, \
             ended_ms = CASE WHEN $3 THEN $4 ELSE ended_ms END, \
             end_reason = COALESCE(end_reason, $5) \
             WHERE id = $1 AND state NOT IN ('Terminated', 'Failed')";
        let done = sqlx::query(statement)
            .bind(id.as_str())
            .bind(state.as_str())
            .bind(state.is_over())
            .bind(signed(at_ms))
            .bind(reason.filter(|_| state.is_ending()))
            .execute(&self.writer)
            .await?;
        self.has_changed();
        Ok(done.rows_affected() == 1)
    }

    /// Notes the session's id at AWS.
    pub async fn set_upstream(&self, id: &SessionId, upstream_id: &str) -> Result<bool, RegistryError> {
        let done = sqlx::query("UPDATE sessions SET upstream_id = $2 WHERE id = $1")
            .bind(id.as_str())
            .bind(upstream_id)
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Those of these ids at AWS that are of our sessions.
    pub async fn upstream_ids(&self, ids: &[String]) -> Result<HashSet<String>, RegistryError> {
        let mut found = HashSet::new();
        for some in ids.chunks(IDS_AT_ONCE) {
            let mut query = QueryBuilder::new("SELECT upstream_id FROM sessions WHERE upstream_id");
            among(&mut query, some);
            let rows = query.build_query_scalar::<String>().fetch_all(&self.reader).await?;
            found.extend(rows);
        }
        Ok(found)
    }

    /// Notes what a session moved and the digest of its recording.
    pub async fn set_traffic(&self, id: &SessionId, traffic: &Traffic) -> Result<bool, RegistryError> {
        let statement = "UPDATE sessions SET recording_sha256 = COALESCE($2, recording_sha256), \
             bytes_in = $3, bytes_out = $4 WHERE id = $1";
        let done = sqlx::query(statement)
            .bind(id.as_str())
            .bind(&traffic.recording_sha256)
            .bind(signed(traffic.bytes_in))
            .bind(signed(traffic.bytes_out))
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes the digest of a session's recording that was sealed late.
    pub async fn set_sealed(&self, id: &SessionId, sha256: &str) -> Result<bool, RegistryError> {
        let statement = "UPDATE sessions SET recording_sha256 = $2 WHERE id = $1";
        let done = sqlx::query(statement).bind(id.as_str()).bind(sha256).execute(&self.writer).await?;
        Ok(done.rows_affected() == 1)
    }

    /// The session of that id.
    pub async fn session(&self, id: &SessionId) -> Result<Option<SessionRecord>, RegistryError> {
        let row = sqlx::query("SELECT * FROM sessions WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// A page of sessions, newest first; at most 200 rows.
    pub async fn sessions(
        &self,
        filter: &Filter,
        limit: usize,
        token: Option<&str>,
    ) -> Result<Page<SessionRecord>, RegistryError> {
        let cut = Cut::new(limit, token)?;
        let mut query = select(filter);
        cut.push(&mut query, "started_ms");
        let rows = query.build().fetch_all(&self.reader).await?;
        let rows = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(cut.page(rows, |row| (row.started_ms, row.id.as_str())))
    }

    /// The sessions that an id of any kind leads to, newest first.
    ///
    /// It may be the gateway's or AWS's session id, the digest of a
    /// recording, the id of the decision that let it begin, or a source
    /// identity, which may have many.
    pub async fn sessions_by(&self, id: &str, most: u32) -> Result<Vec<SessionRecord>, RegistryError> {
        let statement = "SELECT * FROM sessions WHERE id IN ( \
             SELECT id FROM sessions WHERE id = $1 UNION SELECT id FROM sessions WHERE upstream_id = $1 \
             UNION SELECT id FROM sessions WHERE recording_sha256 = $1 \
             UNION SELECT id FROM sessions WHERE decision_id = $1 \
             UNION SELECT id FROM sessions WHERE source_identity = $1) \
             ORDER BY started_ms DESC, id DESC LIMIT $2";
        let rows = sqlx::query(statement).bind(id).bind(i64::from(most)).fetch_all(&self.reader).await?;
        rows.iter().map(read).collect()
    }

    /// How many sessions are not over.
    pub async fn active(&self) -> Result<u64, RegistryError> {
        let statement = "SELECT COUNT(*) FROM sessions WHERE state NOT IN ('Terminated', 'Failed')";
        let count: i64 = sqlx::query_scalar(statement).fetch_one(&self.reader).await?;
        Ok(unsigned(count))
    }
}

/// Ends a condition with that its column is one of these words.
pub(super) fn among(query: &mut QueryBuilder<Sqlite>, words: &[String]) {
    query.push(" IN (");
    let mut list = query.separated(", ");
    for word in words {
        list.push_bind(word.clone());
    }
    query.push(")");
}

/// The statement that adds a session.
pub(super) fn insert(session: &SessionRecord) -> Query<'_, Sqlite, SqliteArguments> {
    let statement = "INSERT INTO sessions (id, principal, owner, target, document, kind, reason, state, \
         started_ms, ended_ms, end_reason, upstream_id, decision_id, node, recording_sha256, bytes_in, \
         bytes_out, instance, state_ms, source_identity) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, \
         $11, $12, $13, $14, $15, $16, $17, $18, $9, $19)";
    sqlx::query(statement)
        .bind(session.id.as_str())
        .bind(json(&session.principal))
        .bind(&session.principal.arn)
        .bind(session.target.as_str())
        .bind(session.document.as_str())
        .bind(json(&session.kind))
        .bind(&session.reason)
        .bind(session.state.as_str())
        .bind(signed(session.started_ms))
        .bind(session.ended_ms.map(signed))
        .bind(&session.end_reason)
        .bind(&session.upstream_id)
        .bind(&session.decision_id)
        .bind(&session.node)
        .bind(&session.recording_sha256)
        .bind(signed(session.bytes_in))
        .bind(signed(session.bytes_out))
        .bind(json(&session.instance))
        .bind(sanitised_name(&session.principal.name))
}

fn select(filter: &Filter) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT * FROM sessions WHERE 1 = 1");
    match filter.span {
        Some(Span::Active) => query.push(" AND state NOT IN ('Terminated', 'Failed')"),
        Some(Span::History) => query.push(" AND state IN ('Terminated', 'Failed')"),
        None => &mut query,
    };
    if let Some(after) = filter.invoked_after_ms {
        query.push(" AND started_ms >= ").push_bind(signed(after));
    }
    if let Some(before) = filter.invoked_before_ms {
        query.push(" AND started_ms < ").push_bind(signed(before));
    }
    if let Some(target) = &filter.target {
        query.push(" AND target = ").push_bind(target.as_str().to_owned());
    }
    if let Some(owner) = &filter.owner {
        query.push(" AND owner = ").push_bind(owner.clone());
    }
    if let Some(state) = filter.state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    if let Some(id) = &filter.id {
        query.push(" AND id = ").push_bind(id.as_str().to_owned());
    }
    query
}

pub(super) fn read(row: &SqliteRow) -> Result<SessionRecord, RegistryError> {
    let id: String = row.try_get("id")?;
    let text = |column: &str| row.try_get::<String, _>(column);
    let optional = |column: &str| row.try_get::<Option<String>, _>(column);
    let number = |column: &str| row.try_get::<i64, _>(column).map(unsigned);
    Ok(SessionRecord {
        principal: parse(&text("principal")?, &id, "principal")?,
        target: noun(Target::parse(&text("target")?), &id, "target")?,
        instance: parse(&text("instance")?, &id, "instance")?,
        document: noun(Document::parse(&text("document")?), &id, "document")?,
        kind: parse(&text("kind")?, &id, "kind")?,
        reason: optional("reason")?,
        state: State::parse(&text("state")?)
            .ok_or_else(|| RegistryError::Damaged { id: id.clone(), column: "state" })?,
        started_ms: number("started_ms")?,
        ended_ms: row.try_get::<Option<i64>, _>("ended_ms")?.map(unsigned),
        end_reason: optional("end_reason")?,
        upstream_id: optional("upstream_id")?,
        decision_id: text("decision_id")?,
        node: text("node")?,
        recording_sha256: optional("recording_sha256")?,
        bytes_in: number("bytes_in")?,
        bytes_out: number("bytes_out")?,
        id: noun(SessionId::parse(&id), &id, "id")?,
    })
}

/// A value as JSON text; our own plain types always have one.
pub(super) fn json<T: Serialize + Debug>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A value from the JSON text of a column.
pub(super) fn parse<T: DeserializeOwned>(
    text: &str,
    id: &str,
    column: &'static str,
) -> Result<T, RegistryError> {
    serde_json::from_str(text).map_err(|_| RegistryError::Damaged { id: id.to_owned(), column })
}

/// A noun from a column, or which column is damaged.
pub(super) fn noun<T, E>(parsed: Result<T, E>, id: &str, column: &'static str) -> Result<T, RegistryError> {
    parsed.map_err(|_| RegistryError::Damaged { id: id.to_owned(), column })
}

/// For the database, which knows signed numbers only.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// From the database; a negative number was never written.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
