//! Recording events: runs of lines, compressed, each in its place.
//!
//! All of a session's lines are cut into segments. A segment is one zstd
//! frame, in base64, in one event or, if it is large, in a few parts. The
//! frames of a sealed recording are segments as they are.
//! `headBefore` and `headAfter` are heads of the recording's own hash chain,
//! so segments cannot be left out, repeated, swapped or altered without
//! being found, and the seal's evidence is about the same chain.

use std::borrow::Cow;

use base64_simd::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::batch::LogEvent;
use crate::recorder::{Checkpoint, Head};

/// What `eventName` says of these events.
pub(super) const EVENT_NAME: &str = "recording";
/// What `eventName` says of a checkpoint.
const CHECKPOINT_NAME: &str = "checkpoint";
/// Compressed bytes of one event: in base64 small enough for every region's
/// limit, and a multiple of three, so that parts join to the whole's base64.
const PART: usize = 135_000;
/// How an event ends whose last field is empty text.
const END: &str = "\"}";
/// The live level of the recorder: as good as any for so few lines.
const LEVEL: i32 = 1;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Holds {
    /// Lines of the recording, the header first.
    Lines,
    /// The evidence with the seal's signature, after the last line.
    Seal,
}

/// A checkpoint as it is in the log stream; the newest one counts.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckpointEvent {
    event_name: String,
    session_id: String,
    event_time_ms: u64,
    checkpoint: Checkpoint,
}

/// The event of a checkpoint.
pub(super) fn encode_checkpoint(checkpoint: &Checkpoint) -> serde_json::Result<LogEvent> {
    let event = CheckpointEvent {
        event_name: CHECKPOINT_NAME.into(),
        session_id: checkpoint.session.clone(),
        event_time_ms: checkpoint.signed_ms,
        checkpoint: checkpoint.clone(),
    };
    let at_ms = i64::try_from(checkpoint.signed_ms).unwrap_or(i64::MAX);
    Ok(LogEvent { at_ms, message: serde_json::to_string(&event)? })
}

/// Reads a message; `None` if it is another event.
pub(super) fn parse_checkpoint(message: &str) -> Option<Checkpoint> {
    let event: CheckpointEvent = serde_json::from_str(message).ok()?;
    (event.event_name == CHECKPOINT_NAME).then_some(event.checkpoint)
}

/// Where a segment belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Which attempt at the whole session this is; see `cursor.rs`.
    pub(super) run: u64,
    /// Counts the segments of the run from 0.
    pub(super) segment: u64,
    /// Number of its first line, from 0, the header.
    pub(super) first_line: u64,
    /// How many lines.
    pub(super) lines: u64,
    /// The chain before it.
    pub(super) before: Head,
    /// The chain after it.
    pub(super) after: Head,
}

/// One recording event as it is in the log stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordingEvent<'a> {
    #[serde(borrow)]
    event_name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) session_id: Cow<'a, str>,
    pub(super) event_time_ms: i64,
    pub(super) holds: Holds,
    pub(super) run: u64,
    pub(super) segment: u64,
    pub(super) part: u32,
    pub(super) parts: u32,
    pub(super) first_line: u64,
    pub(super) lines: u64,
    pub(super) head_before: Head,
    pub(super) head_after: Head,
    #[serde(borrow)]
    pub(super) data: Cow<'a, str>,
}

impl<'a> RecordingEvent<'a> {
    /// Reads a message; `None` if it is another event than these.
    pub(super) fn parse(message: &'a str) -> Option<serde_json::Result<Self>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Named<'a> {
            #[serde(borrow, default)]
            event_name: Cow<'a, str>,
        }
        let named: Named<'_> = serde_json::from_str(message).ok()?;
        (named.event_name == EVENT_NAME).then(|| serde_json::from_str(message))
    }

    pub(super) fn place(&self) -> Place {
        Place {
            run: self.run,
            segment: self.segment,
            first_line: self.first_line,
            lines: self.lines,
            before: self.head_before,
            after: self.head_after,
        }
    }
}

/// What a segment holds as one zstd frame, like those of an open recording.
pub(super) fn pack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, LEVEL)
}

/// The events of one segment, all of one time; `packed` is one zstd frame.
pub(super) fn encode(
    session: &str,
    at_ms: i64,
    (holds, packed): (Holds, &[u8]),
    place: &Place,
) -> serde_json::Result<Vec<LogEvent>> {
    let parts = packed.len().div_ceil(PART).max(1);
    let mut events = Vec::with_capacity(parts);
    for part in 0..parts {
        let end = packed.len().min((part + 1) * PART);
        let data = packed.get(part * PART..end).unwrap_or_default();
        let event = RecordingEvent {
            event_name: EVENT_NAME.into(),
            session_id: session.into(),
            event_time_ms: at_ms,
            holds,
            run: place.run,
            segment: place.segment,
            part: part as u32,
            parts: parts as u32,
            first_line: place.first_line,
            lines: place.lines,
            head_before: place.before,
            head_after: place.after,
            data: "".into(),
        };
        events.push(LogEvent { at_ms, message: with_data(&serde_json::to_string(&event)?, data) });
    }
    Ok(events)
}

/// An event's text with bytes as its last field, which is empty so far.
///
/// They are most of the event, and base64 needs no escaping.
fn with_data(event: &str, data: &[u8]) -> String {
    let head = event.strip_suffix(END).unwrap_or(event);
    let mut message = String::with_capacity(head.len() + BASE64.encoded_length(data.len()) + END.len());
    message.push_str(head);
    BASE64.encode_append(data, &mut message);
    message.push_str(END);
    message
}
