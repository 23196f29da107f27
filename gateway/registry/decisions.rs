//! The decisions: recorded before they are acted upon, found again.

use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::{QueryBuilder, Row};

use super::page::{Cut, Page};
use super::sessions::{json, noun, parse, signed, unsigned};
use super::{DecisionRecord, Registry, RegistryError};
use crate::session::{Document, SessionId, Target};

/// What the decisions looked for have in common; empty finds all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecisionFilter {
    /// For this session.
    pub session: Option<SessionId>,
    /// Asked by the principal with this ARN.
    pub owner: Option<String>,
    /// On this machine.
    pub target: Option<Target>,
    /// With this answer.
    pub allowed: Option<bool>,
    /// At or after, ms since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Before, ms since the Unix epoch.
    pub until_ms: Option<u64>,
}

/// The session that a decision let begin, as a column.
const STARTED: &str =
    "(SELECT sessions.id FROM sessions WHERE sessions.decision_id = decisions.id LIMIT 1) AS started";

impl Registry {
    /// Records a decision.
    pub async fn add_decision(&self, decision: &DecisionRecord) -> Result<(), RegistryError> {
        insert(decision).execute(&self.writer).await?;
        Ok(())
    }

    /// Records many at once, all or none.
    pub async fn add_decisions(&self, decisions: &[DecisionRecord]) -> Result<(), RegistryError> {
        let mut transaction = self.writer.begin().await?;
        for decision in decisions {
            insert(decision).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The decision of that id.
    pub async fn decision(&self, id: &str) -> Result<Option<DecisionRecord>, RegistryError> {
        let statement = format!("SELECT *, {STARTED} FROM decisions WHERE id = $1");
        let query = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id);
        let row = query.fetch_optional(&self.reader).await?;
        row.as_ref().map(read).transpose()
    }

    /// Decisions of a node that are not shipped yet, oldest first.
    pub async fn decisions_to_ship(
        &self,
        node: &str,
        most: u32,
    ) -> Result<Vec<DecisionRecord>, RegistryError> {
        let statement = format!(
            "SELECT *, {STARTED} FROM decisions WHERE node = $1 AND shipped_ms IS NULL \
             ORDER BY at_ms, id LIMIT $2"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(node).bind(i64::from(most));
        let rows = query.fetch_all(&self.reader).await?;
        rows.iter().map(read).collect()
    }

    /// Notes that decisions are shipped, all or none.
    ///
    /// In one statement: whoever asks for a session waits for the same writer.
    pub async fn decisions_shipped(&self, ids: &[String], at_ms: u64) -> Result<(), RegistryError> {
        let mut query = QueryBuilder::<Sqlite>::new("UPDATE decisions SET shipped_ms = ");
        query.push_bind(signed(at_ms)).push(" WHERE id IN (");
        let mut list = query.separated(", ");
        for id in ids {
            list.push_bind(id.as_str());
        }
        list.push_unseparated(")");
        query.build().execute(&self.writer).await?;
        Ok(())
    }

    /// A page of decisions, newest first; at most 200 rows.
    pub async fn decisions(
        &self,
        filter: &DecisionFilter,
        limit: usize,
        token: Option<&str>,
    ) -> Result<Page<DecisionRecord>, RegistryError> {
        let cut = Cut::new(limit, token)?;
        let mut query = select(filter);
        cut.push(&mut query, "at_ms");
        let rows = query.build().fetch_all(&self.reader).await?;
        let rows = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(cut.page(rows, |row| (row.at_ms, row.id.as_str())))
    }
}

fn insert(decision: &DecisionRecord) -> Query<'_, Sqlite, SqliteArguments> {
    let statement = "INSERT INTO decisions (id, at_ms, principal, owner, action, target, document, \
         session_id, allowed, policies, sentence, policy_digest, source_ip, request, obligations, took_us, \
         node) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
    sqlx::query(statement)
        .bind(&decision.id)
        .bind(signed(decision.at_ms))
        .bind(json(&decision.principal))
        .bind(&decision.principal.arn)
        .bind(&decision.action)
        .bind(decision.target.as_ref().map(Target::as_str))
        .bind(decision.document.as_ref().map(Document::as_str))
        .bind(decision.session.as_ref().map(SessionId::as_str))
        .bind(decision.allowed)
        .bind(json(&decision.policies))
        .bind(&decision.sentence)
        .bind(&decision.policy_digest)
        .bind(&decision.source_ip)
        .bind(decision.request.as_ref().map(json))
        .bind(decision.obligations.as_ref().map(json))
        .bind(decision.took_us.map(signed))
        .bind(&decision.node)
}

fn select(filter: &DecisionFilter) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT *, ");
    query.push(STARTED).push(" FROM decisions WHERE 1 = 1");
    if let Some(since) = filter.since_ms {
        query.push(" AND at_ms >= ").push_bind(signed(since));
    }
    if let Some(until) = filter.until_ms {
        query.push(" AND at_ms < ").push_bind(signed(until));
    }
    if let Some(session) = &filter.session {
        query.push(" AND (session_id = ").push_bind(session.as_str().to_owned());
        query.push(" OR id = (SELECT decision_id FROM sessions WHERE id = ");
        query.push_bind(session.as_str().to_owned()).push("))");
    }
    if let Some(owner) = &filter.owner {
        query.push(" AND owner = ").push_bind(owner.clone());
    }
    if let Some(target) = &filter.target {
        query.push(" AND target = ").push_bind(target.as_str().to_owned());
    }
    if let Some(allowed) = filter.allowed {
        query.push(" AND allowed = ").push_bind(allowed);
    }
    query
}

fn read(row: &SqliteRow) -> Result<DecisionRecord, RegistryError> {
    let id: String = row.try_get("id")?;
    let text = |column: &str| row.try_get::<String, _>(column);
    let optional = |column: &str| row.try_get::<Option<String>, _>(column);
    let target = optional("target")?.map(|word| noun(Target::parse(&word), &id, "target"));
    let document = optional("document")?.map(|word| noun(Document::parse(&word), &id, "document"));
    let started = optional("started")?.map(|word| noun(SessionId::parse(&word), &id, "started"));
    let document_of = |column: &'static str| {
        let text = optional(column)?;
        text.map(|text| parse(&text, &id, column)).transpose()
    };
    let session = optional("session_id")?.map(|word| noun(SessionId::parse(&word), &id, "session_id"));
    Ok(DecisionRecord {
        at_ms: unsigned(row.try_get("at_ms")?),
        principal: parse(&text("principal")?, &id, "principal")?,
        action: text("action")?,
        target: target.transpose()?,
        document: document.transpose()?,
        session: session.transpose()?,
        allowed: row.try_get("allowed")?,
        policies: parse(&text("policies")?, &id, "policies")?,
        sentence: text("sentence")?,
        policy_digest: text("policy_digest")?,
        source_ip: optional("source_ip")?,
        request: document_of("request")?,
        obligations: document_of("obligations")?,
        took_us: row.try_get::<Option<i64>, _>("took_us")?.map(unsigned),
        node: optional("node")?,
        started: started.transpose()?,
        id,
    })
}
