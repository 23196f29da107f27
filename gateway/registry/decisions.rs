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
}

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
        let query = sqlx::query("SELECT * FROM decisions WHERE id = $1").bind(id);
        let row = query.fetch_optional(&self.reader).await?;
        row.as_ref().map(read).transpose()
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
         session_id, allowed, policies, sentence, policy_digest, source_ip) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
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
}

fn select(filter: &DecisionFilter) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT * FROM decisions WHERE 1 = 1");
    if let Some(session) = &filter.session {
        query.push(" AND session_id = ").push_bind(session.as_str().to_owned());
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
        id,
    })
}
