//! Asciicast v3: another header, and times relative to the event before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::asciicast::{CastError, Event, EventCode, Header, encode_event};

/// Longest interval between two events: ten years, in seconds.
const INTERVAL_MAX_S: f64 = 10.0 * 366.0 * 86_400.0;

/// The header line of v3, as far as v2 can say the same.
#[derive(Serialize, Deserialize)]
struct Header3 {
    version: u8,
    term: Term,
    #[serde(default)]
    timestamp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_time_limit: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    postern: Option<Map<String, Value>>,
}

#[derive(Serialize, Deserialize)]
struct Term {
    cols: u16,
    rows: u16,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
}

/// Reads a v3 header line.
pub(super) fn read_header(line: &[u8]) -> Result<Header, CastError> {
    let read: Header3 = serde_json::from_slice(line).map_err(|error| CastError::Header(error.to_string()))?;
    let mut header = Header::new(read.timestamp);
    (header.width, header.height) = (read.term.cols, read.term.rows);
    header.idle_time_limit = read.idle_time_limit;
    header.command = read.command;
    header.title = read.title;
    header.env = read.env;
    header.postern = read.postern;
    if let Some(kind) = read.term.kind {
        header.env.entry("TERM".to_owned()).or_insert(kind);
    }
    Ok(header)
}

/// Appends the header as a v3 line, line feed included.
pub(super) fn write_header(header: &Header, into: &mut Vec<u8>) -> Result<(), CastError> {
    let kind = header.env.get("TERM").cloned();
    let written = Header3 {
        version: 3,
        term: Term { cols: header.width, rows: header.height, kind },
        timestamp: header.timestamp,
        idle_time_limit: header.idle_time_limit,
        command: header.command.clone(),
        title: header.title.clone(),
        env: header.env.clone(),
        postern: header.postern.clone(),
    };
    serde_json::to_writer(&mut *into, &written).map_err(|error| CastError::Header(error.to_string()))?;
    into.push(b'\n');
    Ok(())
}

/// Reads a v3 event line; `clock_us` is the time of the event before.
///
/// Intervals are summed in µs, so that rounding to ms never adds up.
pub(super) fn read_event(line: &[u8], clock_us: &mut u64) -> Result<Event, CastError> {
    let read: Result<(f64, char, String), _> = serde_json::from_slice(line);
    let (interval, code, data) = read.map_err(|error| CastError::Event(error.to_string()))?;
    if !(0.0..=INTERVAL_MAX_S).contains(&interval) {
        return Err(CastError::Event("its interval is out of range".to_owned()));
    }
    *clock_us = clock_us.saturating_add((interval * 1e6).round() as u64);
    Ok(Event { time_ms: clock_us.saturating_add(500) / 1000, code: EventCode::from(code), data })
}

/// Appends a v3 event line; `before_ms` is the time of the event before.
pub(super) fn write_event(event: &Event, before_ms: u64, into: &mut Vec<u8>) {
    encode_event(into, event.time_ms.saturating_sub(before_ms), event.code, &event.data);
}
