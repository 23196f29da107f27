//! Recordings: searched, verified and taken away as files.

use std::io::{self, Write};
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::Shared;
use super::answer::{Answer, ConsoleError, bytes};
use super::replays::{Opened, unreadable};
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
/// Pieces of a download that wait for the browser.
const PIECES: usize = 4;

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
    let found = on_thread(move || {
        let mut timeline = Timeline::open(&opened.path)?;
        find_lines(&mut timeline, &text, FOUND_MAX)
    });
    let found = found.await?.map_err(|error| unreadable(&error))?;
    Ok(Json(json!({"lines": found, "more": found.len() == FOUND_MAX})))
}

/// `GET sessions/{id}/connections`: what a port session carried at last.
pub(super) async fn connections(State(console): Shared, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let opened = console.opened(&visitor, &noun(SessionId::parse(&id))?).await?;
    let table = on_thread(move || {
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
    let report = on_thread(move || check(&opened.path, &keys)).await?;
    Ok(Json(match report {
        Ok(Report::Sealed(evidence)) => json!({
            "result": "sealed", "key": evidence.key_id, "segments": evidence.segments.len(),
            "lines_sha256": evidence.lines_sha256, "end": evidence.end.reason,
            "recovered": evidence.end.recovered,
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
    // What is taken away is on record each time.
    console.lifecycle.admitted_to_replay(&visitor.asker, &id).await?;
    let opened = console.opened(&visitor, &id).await?;
    let body = match format {
        None => {
            let file = tokio::fs::File::open(&opened.path).await;
            chunks(file.map_err(|_| ApiError::gateway("the gateway could not open the recording"))?)
        }
        Some(format) => written(opened, format),
    };
    // A session id holds no quote and no control character.
    let disposition = format!("attachment; filename=\"{id}.{name}\"");
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, body).into_response())
}

/// The recording in another format, as fast as the browser takes it.
fn written(opened: Arc<Opened>, format: Format) -> Body {
    let (pieces, taken) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut out = Pieces(pieces.clone());
        let done =
            Timeline::open(&opened.path).and_then(|mut timeline| export(&mut timeline, format, &mut out));
        if let Err(error) = done {
            tracing::warn!(%error, "a download broke off");
            // The browser sees a broken download, not a short one.
            let _ = pieces.blocking_send(Err(io::Error::other("the recording could not be read")));
        }
    });
    Body::from_stream(futures_util::stream::unfold(taken, |mut taken| async move {
        let piece = taken.recv().await?;
        Some((piece, taken))
    }))
}

struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::gateway("the recording could not be read"))
}
