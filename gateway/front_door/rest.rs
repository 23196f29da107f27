//! Postern's own calls: what the SSM API has no word for. Signed like it.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Front;
use super::call::{Answer, Call, Told, asked, json as answer, noun};
use super::operations::parse;
use crate::error::{ApiError, Code};
use crate::lifecycle::{Kept, Lifecycle, SessionQuery};
use crate::registry::{Filter, SessionRecord, Span};
use crate::session::{Document, SessionId, SessionRequest, Target, clean_reason};

/// The query of `GET /v1/sessions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionsQuery {
    state: Option<String>,
    limit: Option<usize>,
    token: Option<String>,
}

/// The query of `GET /v1/access`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessQuery {
    target: String,
    document: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct EndBody {
    reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HoldBody {
    reason: Option<String>,
    release: bool,
}

type Shared = State<Arc<Front>>;

/// `GET /v1/access?target=`: would StartSession be allowed? Opens nothing.
pub(super) async fn access(
    State(front): Shared,
    query: Result<Query<AccessQuery>, QueryRejection>,
    call: Call,
) -> Answer {
    let query = asked(query)?;
    let request = SessionRequest {
        target: noun(Target::parse(&query.target))?,
        document: noun(query.document.as_deref().map_or_else(|| Ok(Document::shell()), Document::parse))?,
        parameters: std::collections::BTreeMap::new(),
        reason: query.reason.map(|reason| clean_reason(&reason)),
    };
    let (decision, hints) = front.lifecycle.would_admit_or_hint(&call.asker, &request).await?;
    Ok(Told(json!({
        "hints": hints,
        "allowed": decision.allowed,
        "sentence": decision.sentence,
        "policies": decision.policies,
        "target": request.target,
    })))
}

/// `GET /v1/sessions`: the sessions the caller may see.
pub(super) async fn sessions(
    State(front): Shared,
    query: Result<Query<SessionsQuery>, QueryRejection>,
    call: Call,
) -> Answer {
    let query = asked(query)?;
    let filter = Filter { span: span(query.state.as_deref())?, ..Filter::default() };
    let wanted = SessionQuery { filter, limit: query.limit.unwrap_or(50), token: query.token };
    let page = front.lifecycle.sessions(&call.asker, wanted).await?;
    let rows: Vec<Value> = page.rows.iter().map(session_json).collect();
    Ok(Told(json!({"sessions": rows, "next": page.next})))
}

/// `GET /v1/sessions/{id}`: one session with all that is known.
pub(super) async fn session(State(front): Shared, Path(session): Path<String>, call: Call) -> Answer {
    let record = front.lifecycle.session(&call.asker, &noun(SessionId::parse(&session))?).await?;
    Ok(Told(one_session(&front.lifecycle, &record).await?))
}

/// All that is known of one session, for who may see it.
pub async fn one_session(lifecycle: &Lifecycle, record: &SessionRecord) -> Result<Value, ApiError> {
    let mut json = session_json(record);
    let Some(object) = json.as_object_mut() else { return Ok(json) };
    if let Some(key) = lifecycle.kms_key_of(record).await? {
        object.insert("kms_key_id".to_owned(), Value::String(key));
    }
    insert_kept(object, &lifecycle.kept(&record.id).await?);
    if let Some(port) = lifecycle.live_port(&record.id) {
        object.insert("host".to_owned(), port.destination.host().into());
        object.insert("port".to_owned(), port.destination.port().into());
        object.insert("connections".to_owned(), port.connections.into());
        object.insert("connections_open".to_owned(), port.connections_open.into());
    }
    Ok(json)
}

/// `POST /v1/sessions/{id}/end`: ends it, with the caller's reason.
pub(super) async fn end(State(front): Shared, Path(session): Path<String>, call: Call) -> Answer {
    let body: EndBody = parse(&call.body)?;
    let id = noun(SessionId::parse(&session))?;
    let reason = body.reason.map(|reason| clean_reason(&reason)).filter(|reason| !reason.is_empty());
    front.lifecycle.end(&call.asker, &id, reason.as_deref()).await?;
    Ok(Told(json!({"session": id, "ended": true})))
}

/// `GET /v1/recording-keys`: the public keys that seals are checked with.
pub(super) async fn recording_keys(State(front): Shared) -> Response {
    answer(StatusCode::OK, &front.recording_keys)
}

/// `POST /v1/sessions/{id}/hold`: a legal hold on its recording, or its end.
pub(super) async fn hold(State(front): Shared, Path(session): Path<String>, call: Call) -> Answer {
    let body: HoldBody = parse(&call.body)?;
    let id = noun(SessionId::parse(&session))?;
    let hold = (!body.release).then_some(body.reason);
    let kept = front.lifecycle.hold(&call.asker, &id, hold).await?;
    let mut json = serde_json::Map::from_iter([("session".to_owned(), json!(id))]);
    insert_kept(&mut json, &kept);
    Ok(Told(Value::Object(json)))
}

fn insert_kept(json: &mut serde_json::Map<String, Value>, kept: &Kept) {
    if let Some(archived) = &kept.archived {
        json.insert("archived_ms".to_owned(), archived.at_ms.into());
    }
    if let Some(hold) = &kept.hold {
        let hold = json!({"since_ms": hold.at_ms, "by": hold.by, "reason": hold.reason});
        json.insert("hold".to_owned(), hold);
    }
}

/// One session as a row of a list.
pub fn session_json(record: &SessionRecord) -> Value {
    json!({
        "id": record.id,
        "principal": record.principal.arn,
        "name": record.principal.name,
        "target": record.target,
        "document": record.document,
        "kind": record.kind,
        "reason": record.reason,
        "state": record.state.as_str(),
        "started_ms": record.started_ms,
        "ended_ms": record.ended_ms,
        "end_reason": record.end_reason,
        "upstream_id": record.upstream_id,
        "decision_id": record.decision_id,
        "node": record.node,
        "recording_sha256": record.recording_sha256,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
    })
}

/// Which part of the list a query asks for; all of it, if none.
pub fn span(word: Option<&str>) -> Result<Option<Span>, ApiError> {
    match word {
        None => Ok(None),
        Some("active") => Ok(Some(Span::Active)),
        Some("history") => Ok(Some(Span::History)),
        Some(_) => Err(ApiError::client(Code::Validation, "state must be active or history")),
    }
}
