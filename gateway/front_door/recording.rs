//! `GET /v1/sessions/{id}/recording`: the file, or its lines as they come.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::fs::File;

use super::Front;
use super::call::{Call, Refusal, asked, noun, unix_ms};
use crate::archive::Reading;
use crate::error::ApiError;
use crate::lifecycle::{Following, Lifecycle, RecordingFile};
use crate::session::SessionId;

/// Bytes of a recording read and sent at a time.
const CHUNK: usize = 64 * 1024;

/// Says that what is sent is not from the archive, which has it damaged.
const ARCHIVE_DAMAGED: &str = "x-postern-archive-damaged";

/// The query of `GET /v1/sessions/{id}/recording`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordingQuery {
    /// Lines of asciicast, and on until the session ends.
    #[serde(default)]
    follow: bool,
}

/// The `.cast.zst`, also while running; or with `follow` its lines.
pub(super) async fn recording(
    State(front): State<Arc<Front>>,
    Path(session): Path<String>,
    query: Result<Query<RecordingQuery>, QueryRejection>,
    call: Call,
) -> Result<Response, Refusal> {
    let query = asked(query)?;
    let id = noun(SessionId::parse(&session))?;
    if query.follow {
        let until_ms = unix_ms(call.caller.expires_at);
        return Ok(lines(front.lifecycle.follow(&call.asker, &id, until_ms).await?));
    }
    let mut archive_is_damaged = false;
    let (sealed, body) = match front.lifecycle.recording(&call.asker, &id).await? {
        RecordingFile::Here { path, sealed } => (sealed, chunks(open(&path).await?)),
        RecordingFile::Archived(reading) => (true, archived(reading, front.lifecycle.clone(), id)),
        // The copy goes when it is open: nobody else needs its name.
        RecordingFile::ReadBack { copy, archive_damaged } => {
            archive_is_damaged = archive_damaged;
            (copy.sealed, chunks(open(&copy.path).await?))
        }
    };
    let mut answer = answer("application/zstd", sealed, body);
    if archive_is_damaged {
        let name = header::HeaderName::from_static(ARCHIVE_DAMAGED);
        answer.headers_mut().insert(name, header::HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// Where a long recording can be entered, packed; no content if it is short
/// or not indexed yet: a pass through it finds that, too.
pub(super) async fn outline(
    State(front): State<Arc<Front>>,
    Path(session): Path<String>,
    call: Call,
) -> Result<Response, Refusal> {
    let id = noun(SessionId::parse(&session))?;
    Ok(match front.lifecycle.packed_outline(&call.asker, &id).await? {
        Some(packed) => answer("application/zstd", true, Body::from(packed)),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

async fn open(path: &std::path::Path) -> Result<File, ApiError> {
    File::open(path).await.map_err(|error| {
        tracing::error!(%error, "a recording could not be opened");
        ApiError::gateway("the gateway could not open the recording")
    })
}

fn answer(kind: &'static str, sealed: bool, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-postern-sealed"), if sealed { "true" } else { "false" }),
    ];
    (StatusCode::OK, headers, body).into_response()
}

/// The file in chunks, as fast as the client takes them.
pub fn chunks(file: File) -> Body {
    let chunks = unfold(file, |mut file| async move {
        use tokio::io::AsyncReadExt;
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
        match file.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(chunk.freeze()), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    Body::from_stream(chunks)
}

/// The same of an archived one; it breaks off where the archive does.
fn archived(reading: Reading, lifecycle: Arc<Lifecycle>, id: SessionId) -> Body {
    let chunks = unfold((reading, lifecycle, id), |(mut reading, lifecycle, id)| async move {
        let chunk = reading.next().await?;
        if let Err(error) = &chunk {
            tracing::error!(session = %id, "an archived recording breaks off");
            lifecycle.archive_broke_off(&id, error);
        }
        Some((chunk, (reading, lifecycle, id)))
    });
    Body::from_stream(chunks)
}

fn lines(following: Following) -> Response {
    answer("application/x-asciicast", false, lines_of(following))
}

/// The lines that a watcher gets, as they come.
pub fn lines_of(following: Following) -> Body {
    Body::from_stream(unfold(following, |mut following| async move {
        let lines = following.next().await?;
        Some((lines, following))
    }))
}
