//! The decisions, and the chain from a person to a recording.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::json;

use super::Front;
use super::call::{Answer, Call, Told, asked, noun};
use crate::error::{ApiError, Code};
use crate::registry::DecisionFilter;
use crate::session::{SessionId, Target};

/// Decisions of one page, if the caller does not say.
const LIMIT: usize = 100;
/// Longest id that is looked up: a digest, an AWS id, an ARN's name.
const ID_MAX: usize = 256;

/// The query of `GET /v1/decisions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DecisionsQuery {
    /// The ARN of whoever asked; `me` is the caller.
    principal: Option<String>,
    target: Option<String>,
    session: Option<String>,
    result: Option<String>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
    limit: Option<usize>,
    token: Option<String>,
}

/// The query of `GET /v1/audit`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    id: String,
}

/// `GET /v1/decisions`: those that the caller may know of, newest first.
///
/// `all` tells whether that is everybody's.
pub(super) async fn decisions(
    State(front): State<Arc<Front>>,
    query: Result<Query<DecisionsQuery>, QueryRejection>,
    call: Call,
) -> Answer {
    let query = asked(query)?;
    let owner = match query.principal.as_deref() {
        Some("me") => Some(call.asker.principal.arn.clone()),
        other => other.map(str::to_owned),
    };
    let allowed = match query.result.as_deref() {
        None => None,
        Some("allow") => Some(true),
        Some("deny") => Some(false),
        Some(_) => return Err(ApiError::client(Code::Validation, "result must be allow or deny").into()),
    };
    let filter = DecisionFilter {
        session: query.session.as_deref().map(|id| noun(SessionId::parse(id))).transpose()?,
        owner,
        target: query.target.as_deref().map(|id| noun(Target::parse(id))).transpose()?,
        allowed,
        since_ms: query.since_ms,
        until_ms: query.until_ms,
    };
    let page = (query.limit.unwrap_or(LIMIT), query.token);
    let (page, all) = front.lifecycle.decisions(&call.asker, &filter, page).await?;
    Ok(Told(json!({"decisions": page.rows, "next": page.next, "all": all})))
}

/// `GET /v1/decisions/{id}`: one decision with all that was asked.
pub(super) async fn decision(State(front): State<Arc<Front>>, Path(id): Path<String>, call: Call) -> Answer {
    Ok(Told(json!(front.lifecycle.decision(&call.asker, checked(&id)?).await?)))
}

/// `GET /v1/audit?id=`: what an id of any kind leads to.
pub(super) async fn audit(
    State(front): State<Arc<Front>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
    call: Call,
) -> Answer {
    let query = asked(query)?;
    let chains = front.lifecycle.audit(&call.asker, checked(&query.id)?).await?;
    Ok(Told(json!({"chains": chains})))
}

fn checked(id: &str) -> Result<&str, ApiError> {
    let fits = !id.is_empty() && id.len() <= ID_MAX && !id.chars().any(char::is_control);
    if fits { Ok(id) } else { Err(ApiError::client(Code::Validation, "this is not an id of anything")) }
}
