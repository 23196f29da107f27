//! Recordings: searched, verified and taken away as files.

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::answer::{Answer, ConsoleError, bytes};
use super::replays::unreadable;
use super::threads::{keeping, written};
use super::visitor::Visitor;
use crate::error::ApiError;
use crate::front_door::{chunks, noun, search_page};
use crate::recorder::{Report, verify as check};
use crate::replay::{Format, Timeline, export, find as find_lines, flow_table, holds_flows};
use crate::session::SessionId;

/// Lines that a search in one recording gives at the most.
const FOUND_MAX: usize = 200;
/// Connections of a port session that are shown: the last ones.
const CONNECTIONS_MAX: usize = 500;
/// Longest text that is looked for in one, bytes.
const TEXT_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Text {
    text: String,
}

/// `POST search`: lines and commands of all recordings one may replay.
pub(super) async fn search(State(console): Shared, visitor: Visitor, request: Request) -> Answer {
    let body = bytes(request).await?;
    Ok(Json(search_page(&console.lifecycle, &visitor.asker, &body).await?))
}

/// `GET sessions/{id}/find`: lines of one recording, with their moments.
pub(super) async fn find(
    State(console): Shared,
    visitor: Visitor,
    Path(id): Path<String>,
    Query(Text { text }): Query<Text>,
) -> Answer {
    let opened = console.opened(&visitor, &noun(SessionId::parse(&id))?).await?;
    let text: String = text.chars().take(TEXT_MAX).collect();
    let found = console.threads.read(&visitor.asker.principal, move || {
        let mut timeline = Timeline::open(&opened.path)?;
        find_lines(&mut timeline, &text, FOUND_MAX)
    });
    let found = found.await?.map_err(|error| unreadable(&error))?;
    Ok(Json(json!({"lines": found, "more": found.len() == FOUND_MAX})))
}

/// `GET sessions/{id}/connections`: what a port session carried at last.
pub(super) async fn connections(State(console): Shared, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let opened = console.opened(&visitor, &noun(SessionId::parse(&id))?).await?;
    let table = console.threads.read(&visitor.asker.principal, move || {
        let mut timeline = Timeline::open(&opened.path)?;
        match holds_flows(timeline.header()) {
            true => flow_table(&mut timeline).map(|(mut table, _)| {
                let early = table.connections.len().saturating_sub(CONNECTIONS_MAX);
                table.omitted += table.connections.drain(..early).count() as u64;
                Some(table)
            }),
            false => Ok(None),
        }
    });
    Ok(Json(json!({"table": table.await?.map_err(|error| unreadable(&error))?})))
}

/// `GET sessions/{id}/verify`: whole and unaltered, and by whose key.
pub(super) async fn verify(State(console): Shared, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let opened = console.opened(&visitor, &noun(SessionId::parse(&id))?).await?;
    let keys = console.keys.clone();
    let report = console.threads.read(&visitor.asker.principal, move || check(&opened.path, &keys)).await?;
    Ok(Json(match report {
        Ok(Report::Sealed(evidence)) => json!({
            "result": "sealed", "key": evidence.key_id, "segments": evidence.segments.len(),
            "lines_sha256": evidence.lines_sha256, "end": evidence.end.reason,
            "recovered": evidence.end.recovered, "doubts": evidence.doubts(),
        }),
        Ok(Report::Unsealed { lines, duration_ms, proved }) => json!({
            "result": "unsealed", "lines": lines, "duration_ms": duration_ms, "proved": proved,
        }),
        Err(damage) => json!({"result": "damaged", "what": damage.to_string()}),
    }))
}

/// `GET sessions/{id}/download/{format}`: `cast`, `zst`, `txt` or `pcapng`.
pub(super) async fn download(
    State(console): Shared,
    visitor: Visitor,
    Path((id, format)): Path<(String, String)>,
) -> Result<Response, ConsoleError> {
    let id = noun(SessionId::parse(&id))?;
    let (name, kind, format) = match format.as_str() {
        "zst" => ("cast.zst", "application/zstd", None),
        "cast" => ("cast", "application/x-asciicast", Some(Format::V2)),
        "txt" => ("txt", "text/plain; charset=utf-8", Some(Format::Text)),
        "pcapng" => ("pcapng", "application/octet-stream", Some(Format::Pcapng)),
        _ => return Err(ConsoleError::NotFound),
    };
    let turn = console.threads.download(&visitor.asker.principal)?;
    // What is taken away is on record each time.
    console.lifecycle.admitted_to_replay(&visitor.asker, &id).await?;
    let opened = console.opened(&visitor, &id).await?;
    let body = match format {
        None => {
            let file = tokio::fs::File::open(&opened.path).await;
            let file = file.map_err(|_| ApiError::gateway("the gateway could not open the recording"))?;
            keeping(chunks(file), (turn, opened))
        }
        Some(format) => written(turn, move |out| {
            Timeline::open(&opened.path).and_then(|mut timeline| export(&mut timeline, format, out)).map(drop)
        }),
    };
    // A session id holds no quote and no control character.
    let disposition = format!("attachment; filename=\"{id}.{name}\"");
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, body).into_response())
}
