//! `POST /v1/search`: lines and commands of recordings the caller may read.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Front;
use super::call::{Answer, Call, Told};
use super::operations::parse;
use crate::catalogue::{CatalogueError, Pattern, Query};
use crate::error::{ApiError, Code};
use crate::lifecycle::{Asker, FoundHit, Lifecycle};

/// Hits of one page, if the caller does not say.
const LIMIT: usize = 100;

/// What a search can be told.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SearchBody {
    text: Option<String>,
    regex: Option<String>,
    commands: bool,
    principal: Option<String>,
    target: Option<String>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
    limit: Option<usize>,
    token: Option<String>,
}

/// Answers a page of hits, newest recordings first.
pub(super) async fn search(State(front): State<Arc<Front>>, call: Call) -> Answer {
    Ok(Told(search_page(&front.lifecycle, &call.asker, &call.body).await?))
}

/// A page of hits for the JSON of a search.
pub async fn search_page(lifecycle: &Lifecycle, asker: &Asker, body: &Bytes) -> Result<Value, ApiError> {
    let body: SearchBody = parse(body)?;
    let query = query(&body)?;
    let page = lifecycle.search(asker, query, (body.limit.unwrap_or(LIMIT), body.token.as_deref())).await?;
    let hits: Vec<Value> = page.rows.iter().map(hit_json).collect();
    Ok(json!({"hits": hits, "next": page.next}))
}

fn query(body: &SearchBody) -> Result<Query, ApiError> {
    let pattern = match (&body.text, &body.regex) {
        (Some(text), None) => Pattern::text(text),
        (None, Some(regex)) => Pattern::regex(regex),
        _ => return Err(ApiError::client(Code::Validation, "give either text or regex")),
    };
    let wrong = |error: CatalogueError| ApiError::client(Code::Validation, error.to_string());
    Ok(Query {
        pattern: pattern.map_err(wrong)?,
        commands: body.commands,
        principal: body.principal.clone(),
        target: body.target.clone(),
        since_ms: body.since_ms,
        until_ms: body.until_ms,
    })
}

fn hit_json(found: &FoundHit) -> Value {
    json!({
        "session": found.recording.session,
        "principal": found.recording.principal,
        "target": found.recording.target,
        "started_ms": found.recording.started_ms,
        "time_ms": found.hit.time_ms,
        "text": found.hit.text,
        "source": found.hit.source,
    })
}
