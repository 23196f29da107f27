//! Watching a session: its screen as it is now, then what it shows.

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::answer::{Answer, ConsoleError};
use super::visitor::Visitor;
use crate::asciicast::{Event, EventCode, Header, Marks};
use crate::error::ApiError;
use crate::front_door::noun;
use crate::lifecycle::Following;
use crate::session::SessionId;
use crate::transcript::{parse_size, sane_size, terminal};

/// The recorder flushes every second; one that is slow is not waited for.
const FLUSHED_WITHIN: Duration = Duration::from_secs(3);
/// After this long what came before has been flushed.
const FLUSHED: Duration = Duration::from_millis(1200);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(150);

/// `GET sessions/{id}/watch`: lines of JSON, the screen first.
///
/// It takes the rights to watch the session and to replay its recording;
/// they are asked for again while it goes on.
pub(super) async fn watch(
    State(console): Shared,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, ConsoleError> {
    let id = noun(SessionId::parse(&id))?;
    let mut following = console.lifecycle.follow(&visitor.asker, &id, visitor.visit.until_ms).await?;
    let mut screen = None;
    read_so_far(&mut following, &mut screen, i64::MAX).await?;
    let first = screen.map(|screen| format!("{}\n", screen.json())).unwrap_or_default();
    let (console, kept) = (console, visitor.kept);
    // Whoever signs out, in whichever tab, sees no more of it.
    let lines = unfold((first, following), move |(first, mut following): (String, Following)| {
        let (console, kept) = (std::sync::Arc::clone(&console), kept.clone());
        async move {
            if !first.is_empty() {
                return Some((Ok(Bytes::from(first)), (String::new(), following)));
            }
            let lines = following.next().await?;
            console.lifecycle.visitor(&kept).await.ok().flatten()?;
            Some((lines, (String::new(), following)))
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Before {
    before: Option<i64>,
}

/// `GET sessions/{id}/screen`: what it showed before an output message.
///
/// A page that was loaded anew knows which message it expects, not what its
/// terminal showed. The recording has everything that was acknowledged, and a
/// second later it can be read. A page that knows nothing, because the one
/// before was closed, is told what that one had acknowledged, and which numbers
/// come next.
pub(super) async fn screen(
    State(console): Shared,
    visitor: Visitor,
    Path(id): Path<String>,
    Query(Before { before }): Query<Before>,
) -> Answer {
    let id = noun(SessionId::parse(&id))?;
    let mut following = console.lifecycle.follow(&visitor.asker, &id, visitor.visit.until_ms).await?;
    let mut screen = None;
    let (next_output, next_input) = console.lifecycle.next_numbers(&id);
    let before = before.or(next_output);
    let until = Instant::now() + if before.is_some() { FLUSHED_WITHIN } else { FLUSHED };
    let before = before.unwrap_or(i64::MAX);
    loop {
        read_so_far(&mut following, &mut screen, before).await?;
        let has_all = screen.as_ref().is_some_and(|screen| screen.next >= before);
        if has_all || Instant::now() >= until {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut json = screen.map(|screen| screen.json()).ok_or(ConsoleError::NotFound)?;
    if let Some(object) = json.as_object_mut() {
        object.insert("next_output".to_owned(), json!(next_output));
        object.insert("next_input".to_owned(), json!(next_input));
    }
    Ok(Json(json))
}

/// Reads the lines that are there, up to an output message.
async fn read_so_far(
    following: &mut Following,
    screen: &mut Option<Screen>,
    before: i64,
) -> Result<(), ConsoleError> {
    let unreadable = || ConsoleError::from(ApiError::gateway("the recording cannot be read"));
    loop {
        let lines = following.so_far().await.ok_or_else(unreadable)?;
        if lines.is_empty() {
            return Ok(());
        }
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match screen {
                None => *screen = Some(Screen::of(line).ok_or_else(unreadable)?),
                Some(screen) => screen.take(line, before),
            }
        }
    }
}

/// What the terminal shows while the past is read.
struct Screen {
    terminal: avt::Terminal,
    size: (u16, u16),
    at_ms: u64,
    marks: Marks,
    /// The output message after those that are shown.
    next: i64,
}

impl Screen {
    fn of(header: &[u8]) -> Option<Self> {
        let header = Header::parse(header).ok()?;
        let size = (header.width, header.height);
        Some(Self {
            terminal: terminal(size.0, size.1).ok()?,
            size,
            at_ms: 0,
            marks: Marks::default(),
            next: 0,
        })
    }

    fn take(&mut self, line: &[u8], before: i64) {
        let Ok(event) = Event::parse(line) else { return };
        let covered = self.marks.follow(event.code, event.data.as_bytes());
        if let Some(sequence) = covered.and_then(|covered| covered.sequence) {
            if sequence >= before {
                return;
            }
            self.next = sequence.saturating_add(1);
        }
        self.at_ms = self.at_ms.max(event.time_ms);
        match event.code {
            EventCode::Output => {
                self.terminal.feed(&event.data);
            }
            EventCode::Resize => {
                if let Some(size) = parse_size(&event.data) {
                    let (cols, rows) = sane_size(size.0, size.1);
                    self.terminal.resize(cols, rows);
                    self.size = size;
                }
            }
            _ => {}
        }
    }

    fn json(&self) -> Value {
        let (cols, rows) = self.size;
        json!({"cols": cols, "rows": rows, "at_ms": self.at_ms, "screen": self.terminal.dump()})
    }
}
