//! Sessions: started, resumed, listed, shown and ended.

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, ConsoleError, body};
use super::visitor::Visitor;
use super::{Console, Shared};
use crate::error::{ApiError, Code};
use crate::front_door::{noun, one_session, session_json, session_request, span};
use crate::lifecycle::{SessionQuery, Ticket};
use crate::registry::{Filter, SessionRecord, State as Stage};
use crate::session::{SessionId, Target, clean_reason};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    state: Option<String>,
    status: Option<String>,
    target: Option<String>,
    owner: Option<String>,
    limit: Option<usize>,
    token: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct End {
    reason: Option<String>,
}

/// `GET sessions`: those that the person may see, newest first.
pub(super) async fn sessions(
    State(console): Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Answer {
    Ok(Json(page(&console, &visitor, wanted.query()?).await?))
}

impl Wanted {
    pub(super) fn query(self) -> Result<SessionQuery, ConsoleError> {
        let invalid = |sentence: &str| ConsoleError::from(ApiError::client(Code::Validation, sentence));
        let span = span(self.state.as_deref())?;
        let state = match self.status.as_deref() {
            None => None,
            Some(word) => Some(Stage::parse(word).ok_or_else(|| invalid("the status is not one of SSM's"))?),
        };
        let target = self.target.as_deref().map(Target::parse).transpose();
        let filter = Filter { span, state, target: noun(target)?, owner: self.owner, ..Filter::default() };
        Ok(SessionQuery { filter, limit: self.limit.unwrap_or(50), token: self.token })
    }
}

/// One page of the list.
pub(super) async fn page(
    console: &Console,
    visitor: &Visitor,
    query: SessionQuery,
) -> Result<Value, ConsoleError> {
    let page = console.lifecycle.sessions(&visitor.asker, query).await?;
    let rows: Vec<Value> = page.rows.iter().map(|record| row(console, record, visitor)).collect();
    Ok(json!({"sessions": rows, "next": page.next}))
}

/// `GET sessions/{id}`: all that is known of one.
pub(super) async fn session(State(console): Shared, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let record = console.lifecycle.session(&visitor.asker, &noun(SessionId::parse(&id))?).await?;
    let mut json = one_session(&console.lifecycle, &record).await?;
    add(&mut json, &console, (&record, &visitor));
    Ok(Json(json))
}

/// `POST sessions`: as StartSession, with the same words.
pub(super) async fn start(State(console): Shared, visitor: Visitor, request: Request) -> Answer {
    let request = session_request(body(request).await?)?;
    let ticket = console.lifecycle.start(&visitor.asker, request, None).await?;
    Ok(Json(ticket_json(Some(&ticket))))
}

/// `POST sessions/{id}/resume`: a fresh token, none if it is over; and
/// whether there was a client before.
pub(super) async fn resume(State(console): Shared, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let id = noun(SessionId::parse(&id))?;
    let ticket = console.lifecycle.resume(&visitor.asker, &id).await?;
    let mut json = ticket_json(ticket.as_ref());
    if let Some(object) = json.as_object_mut() {
        object.insert("attached".to_owned(), console.lifecycle.was_attached(&id).into());
    }
    Ok(Json(json))
}

/// `POST sessions/{id}/end`: ends it, with the person's reason.
pub(super) async fn end(
    State(console): Shared,
    visitor: Visitor,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let id = noun(SessionId::parse(&id))?;
    let End { reason } = body(request).await?;
    let reason = reason.map(|reason| clean_reason(&reason)).filter(|reason| !reason.is_empty());
    console.lifecycle.end(&visitor.asker, &id, reason.as_deref()).await?;
    Ok(Json(json!({"session": id, "ended": true})))
}

fn row(console: &Console, record: &SessionRecord, visitor: &Visitor) -> Value {
    let mut json = session_json(record);
    add(&mut json, console, (record, visitor));
    json
}

fn add(json: &mut Value, console: &Console, (record, visitor): (&SessionRecord, &Visitor)) {
    if let Some(object) = json.as_object_mut() {
        object.insert("idle_ms".to_owned(), json!(console.lifecycle.idle_ms(&record.id)));
        object.insert("target_name".to_owned(), json!(record.instance.name));
        object.insert("mine".to_owned(), (record.principal.id == visitor.asker.principal.id).into());
    }
}

fn ticket_json(ticket: Option<&Ticket>) -> Value {
    match ticket {
        Some(ticket) => {
            json!({"session": ticket.session, "token": ticket.token, "stream_url": ticket.stream_url})
        }
        None => json!({"session": null}),
    }
}
