//! The decision ledger, and the chain from a person to a recording.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::answer::Answer;
use super::visitor::Visitor;
use crate::front_door::noun;
use crate::registry::{DecisionFilter, DecisionRecord};
use crate::session::{SessionId, Target};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    session: Option<String>,
    owner: Option<String>,
    target: Option<String>,
    allowed: Option<bool>,
    limit: Option<usize>,
    token: Option<String>,
}

/// `GET decisions`: those that the person may know of, newest first.
pub(super) async fn decisions(
    State(console): Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let filter = DecisionFilter {
        session: noun(wanted.session.as_deref().map(SessionId::parse).transpose())?,
        owner: wanted.owner,
        target: noun(wanted.target.as_deref().map(Target::parse).transpose())?,
        allowed: wanted.allowed,
        ..DecisionFilter::default()
    };
    let page = (wanted.limit.unwrap_or(50), wanted.token);
    let (page, all) = console.lifecycle.decisions(&visitor.asker, &filter, page).await?;
    let rows: Vec<Value> = page.rows.iter().map(decision_json).collect();
    Ok(Json(json!({"decisions": rows, "next": page.next, "all": all})))
}

/// `GET sessions/{id}/chain`: who, by which decision, as whom, recorded where.
pub(super) async fn chain(State(console): Shared, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let record = console.lifecycle.session(&visitor.asker, &noun(SessionId::parse(&id))?).await?;
    let decision = console.lifecycle.decision_of(&record).await?;
    let kept = console.lifecycle.kept(&record.id).await?;
    Ok(Json(json!({
        "principal": {"arn": record.principal.arn, "id": record.principal.id,
            "method": record.principal.method, "authenticated_at": record.principal.authenticated_at},
        "decision": decision.as_ref().map(decision_json),
        "source_identity": crate::session::sanitised_name(&record.principal.name),
        "upstream_id": record.upstream_id,
        "session": record.id,
        "recording_sha256": record.recording_sha256,
        "archived": kept.archived.map(|archived| json!({"at_ms": archived.at_ms, "sha256": archived.sha256})),
    })))
}

fn decision_json(decision: &DecisionRecord) -> Value {
    json!({
        "id": decision.id,
        "at_ms": decision.at_ms,
        "principal": decision.principal.arn,
        "name": decision.principal.name,
        "action": decision.action,
        "target": decision.target,
        "document": decision.document,
        "session": decision.session,
        "allowed": decision.allowed,
        "policies": decision.policies,
        "sentence": decision.sentence,
        "policy_digest": decision.policy_digest,
        "source_ip": decision.source_ip,
    })
}
