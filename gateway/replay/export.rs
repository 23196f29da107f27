//! Writes a recording as asciicast v2 or v3, as text, or as plain output.

use std::borrow::Cow;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::flows::{flow_table, holds_flows};
use super::pcapng::export_pcapng;
use super::places::{Marking, transcript};
use super::{End, ReplayError, Timeline, version3};
use crate::asciicast::{Event, EventCode, encode_event};
use crate::transcript::Seen;

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 64 * 1024;

/// What a recording can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Asciicast v2, which every player reads.
    V2,
    /// Asciicast v3, for asciinema 3.
    V3,
    /// The lines a terminal showed, without any control character.
    Text,
    /// The captured traffic of a port session, for Wireshark.
    Pcapng,
}

/// Writes the whole recording; tells how it ended.
///
/// v2 and v3 keep every event, time (ms) and byte, and have each command of
/// the gateway's recordings as one marker, where it was sent off. Text is what went
/// through the main screen; full-screen programs leave nothing in it. Of a
/// port session it is the table of its connections.
pub fn export(timeline: &mut Timeline, format: Format, out: &mut impl Write) -> Result<End, ReplayError> {
    match format {
        Format::V2 => export_v2(timeline, out)?,
        Format::V3 => export_v3(timeline, out)?,
        Format::Text if holds_flows(timeline.header()) => return flow_lines(timeline, out),
        Format::Text => export_text(timeline, out)?,
        Format::Pcapng => return export_pcapng(timeline, out),
    }
    out.flush().map_err(ReplayError::Write)?;
    Ok(timeline.end())
}

/// Writes what the terminal got from `from_ms` on, byte by byte, at once.
///
/// Of a port session: the table of its connections.
pub fn plain(timeline: &mut Timeline, from_ms: u64, out: &mut impl Write) -> Result<End, ReplayError> {
    if holds_flows(timeline.header()) {
        return flow_lines(timeline, out);
    }
    let mut exact = ExactBytes::default();
    while let Some(event) = timeline.next_event()? {
        let bytes = exact.of(&event);
        if let Some(bytes) = bytes.filter(|_| event.time_ms >= from_ms) {
            out.write_all(&bytes).map_err(ReplayError::Write)?;
        }
    }
    out.flush().map_err(ReplayError::Write)?;
    Ok(timeline.end())
}

fn flow_lines(timeline: &mut Timeline, out: &mut impl Write) -> Result<End, ReplayError> {
    let (table, end) = flow_table(timeline)?;
    table.write(out)?;
    out.flush().map_err(ReplayError::Write)?;
    Ok(end)
}

fn export_v2(timeline: &mut Timeline, out: &mut impl Write) -> Result<(), ReplayError> {
    let mut lines = Vec::with_capacity(2 * WRITE_BYTES);
    let mut header = timeline.header().clone();
    let mut marking = Marking::begin(&mut header)?;
    header.write(&mut lines).map_err(|error| ReplayError::NotARecording(error.to_string()))?;
    while let Some(event) = timeline.next_event()? {
        for marker in marking.iter_mut().flat_map(|marking| marking.before(&event)) {
            encode_event(&mut lines, marker.time_ms, marker.code, &marker.data);
        }
        if marking.as_ref().is_some_and(|marking| marking.has_marked(&event)) {
            continue;
        }
        encode_event(&mut lines, event.time_ms, event.code, &event.data);
        flush_full(&mut lines, out)?;
    }
    out.write_all(&lines).map_err(ReplayError::Write)
}

fn export_v3(timeline: &mut Timeline, out: &mut impl Write) -> Result<(), ReplayError> {
    let mut lines = Vec::with_capacity(2 * WRITE_BYTES);
    let mut header = timeline.header().clone();
    let mut marking = Marking::begin(&mut header)?;
    let written = version3::write_header(&header, &mut lines);
    written.map_err(|error| ReplayError::NotARecording(error.to_string()))?;
    let mut before_ms = 0;
    while let Some(event) = timeline.next_event()? {
        for marker in marking.iter_mut().flat_map(|marking| marking.before(&event)) {
            version3::write_event(&marker, before_ms, &mut lines);
            before_ms = marker.time_ms;
        }
        if marking.as_ref().is_some_and(|marking| marking.has_marked(&event)) {
            continue;
        }
        version3::write_event(&event, before_ms, &mut lines);
        before_ms = event.time_ms;
        flush_full(&mut lines, out)?;
    }
    out.write_all(&lines).map_err(ReplayError::Write)
}

fn export_text(timeline: &mut Timeline, out: &mut impl Write) -> Result<(), ReplayError> {
    let mut transcript = transcript(timeline.header())?;
    let mut text = Vec::with_capacity(2 * WRITE_BYTES);
    while let Some(event) = timeline.next_event()? {
        transcript.event(&event);
        push_lines(transcript.take(), &mut text);
        flush_full(&mut text, out)?;
    }
    push_lines(transcript.finish(), &mut text);
    out.write_all(&text).map_err(ReplayError::Write)
}

/// What went through the main screen.
fn push_lines(seen: Seen, text: &mut Vec<u8>) {
    for line in seen.lines.iter().filter(|line| !line.full_screen) {
        text.extend_from_slice(line.text.as_bytes());
        text.push(b'\n');
    }
}

fn flush_full(bytes: &mut Vec<u8>, out: &mut impl Write) -> Result<(), ReplayError> {
    if bytes.len() >= WRITE_BYTES {
        out.write_all(bytes).map_err(ReplayError::Write)?;
        bytes.clear();
    }
    Ok(())
}

/// Finds the exact bytes of output events, UTF-8 or not.
#[derive(Default)]
pub(super) struct ExactBytes {
    said: Option<Vec<u8>>,
}

impl ExactBytes {
    /// The bytes of an output event; `None` for any other event.
    pub fn of<'a>(&mut self, event: &'a Event) -> Option<Cow<'a, [u8]>> {
        match event.code {
            EventCode::BYTES => {
                self.said = STANDARD.decode(&event.data).ok();
                None
            }
            EventCode::Output => {
                let text = || Cow::Borrowed(event.data.as_bytes());
                Some(self.said.take().map_or_else(text, Cow::Owned))
            }
            _ => None,
        }
    }
}
