//! What the lines of a recording tell a process that goes on with it.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use super::recording::State;
use super::{FlowState, INPUT_DIGEST, Recorded, Recovered, Stream};
use crate::asciicast::{Event, EventCode, Handover, Marks, Runes, exact_output, peek};

/// Output kept, events and bytes of lines: seconds of a busy session.
const KEPT_MAX: usize = 1024;
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// The same if the client may lack more: as much as a relay keeps for it.
const OWED_MAX: usize = 9 * 1024;
const OWED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Input messages remembered; the stock plugin repeats so many at the most.
const INPUTS_MAX: usize = 10_000;
/// Messages that a rune can be split over, besides the last one.
const RUNE_MESSAGES: usize = 3;

/// Follows the lines from the first event to the last.
#[derive(Default)]
pub(super) struct Memory {
    marks: Marks,
    recovered: Recovered,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// How many there were in all.
    messages: u64,
    /// The line with the exact bytes of the next event.
    exact: Option<Vec<u8>>,
    /// The number of the next input event, if it is known.
    input: Option<i64>,
}

/// One output event as its lines have it.
struct Kept {
    sequence: Option<i64>,
    stream: Stream,
    exact: Option<Vec<u8>>,
    line: Vec<u8>,
}

impl Memory {
    /// Takes the next line in.
    pub(super) fn line(&mut self, line: &[u8]) {
        let Some(peeked) = peek(line) else { return };
        let recovered = &mut self.recovered;
        recovered.last_ms = recovered.last_ms.max(peeked.time_ms);
        match peeked.code {
            EventCode::BYTES => self.exact = Some(line.to_vec()),
            EventCode::Resize => recovered.size = size(peeked.escaped).or(recovered.size),
            EventCode::Input => self.input(line),
            EventCode::SEQUENCE if FlowState::is_note(peeked.escaped) => self.flow(line),
            EventCode::SEQUENCE => match Handover::parse(peeked.escaped) {
                Some(Handover::Owed(owed)) => recovered.owed = owed,
                Some(Handover::Input(number)) => self.input = Some(number),
                Some(Handover::Settled) => recovered.settled = true,
                Some(Handover::Hidden) | None => {}
            },
            _ => {}
        }
        if let Some(covered) = self.marks.follow(peeked.code, peeked.escaped) {
            let exact = self.exact.take();
            let length = exact
                .as_deref()
                .and_then(peek)
                .map_or_else(|| text_length(peeked.escaped), |exact| base64_length(exact.escaped));
            self.recovered.output_bytes += if covered.sequence.is_some() { length } else { 0 };
            // The banner has no number: it rides on the first message.
            let is_banner = covered.sequence.is_none() && self.marks.expected().is_none();
            self.recovered.notices += u64::from(covered.sequence.is_none() && !is_banner);
            let (sequence, stream, line) = (covered.sequence, covered.stream, line.to_vec());
            self.messages += 1;
            self.keep(Kept { sequence, stream, exact, line });
        }
    }

    /// Takes in a note about a port session.
    fn flow(&mut self, line: &[u8]) {
        let note = Event::parse(line).ok().as_ref().and_then(FlowState::of);
        if let Some(Ok(note)) = note {
            note.digests().into_iter().for_each(|(number, digest)| self.remember(number, digest));
            self.recovered.flow.get_or_insert_default().then(note);
        }
    }

    /// Remembers which input message the event is, if its number is known.
    fn input(&mut self, line: &[u8]) {
        let exact = self.exact.take();
        let Some(number) = self.input else { return };
        self.input = number.checked_add(1);
        let Ok(event) = Event::parse(line) else { return };
        let exact = exact.and_then(|line| STANDARD.decode(Event::parse(&line).ok()?.data).ok());
        let hash = digest(&SHA256, exact.as_deref().unwrap_or(event.data.as_bytes()));
        let Some(hash) = hash.as_ref().first_chunk() else { return };
        self.remember(number, *hash);
    }

    fn remember(&mut self, number: i64, digest: [u8; INPUT_DIGEST]) {
        self.recovered.inputs.insert(number, digest);
        if self.recovered.inputs.len() > INPUTS_MAX {
            self.recovered.inputs.pop_first();
        }
    }

    fn keep(&mut self, kept: Kept) {
        self.kept_bytes += kept.bytes();
        self.kept.push_back(kept);
        let owes = self.recovered.owed.is_some();
        let (most, bytes) = if owes { (OWED_MAX, OWED_BYTES_MAX) } else { (KEPT_MAX, KEPT_BYTES_MAX) };
        while self.kept.len() > most || self.kept_bytes > bytes {
            let Some(gone) = self.kept.pop_front() else { break };
            self.kept_bytes -= gone.bytes();
        }
    }

    /// What it all comes to.
    pub(super) fn finish(mut self) -> (State, Recovered) {
        let mut messages: Vec<Recorded> = self.kept.into_iter().filter_map(Kept::parse).collect();
        if self.messages == u64::try_from(messages.len()).unwrap_or(0) {
            ride(&mut messages);
        }
        let state = State {
            output: runes_after(&messages, Stream::Output),
            error_output: runes_after(&messages, Stream::StdErr),
            last_ms: self.recovered.last_ms,
            marks: self.marks,
        };
        self.recovered.next_output = state.marks.expected();
        self.recovered.messages = messages;
        (state, self.recovered)
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        self.line.len() + self.exact.as_ref().map_or(0, Vec::len)
    }

    fn parse(self) -> Option<Recorded> {
        let lines = [self.exact.as_deref(), Some(self.line.as_slice())];
        let events: Vec<Event> =
            lines.into_iter().flatten().filter_map(|line| Event::parse(line).ok()).collect();
        let bytes = exact_output(&events).next()?.content.into_owned();
        Some(Recorded { sequence: self.sequence, stream: self.stream, bytes })
    }
}

/// Puts the banner, which comes first, before the bytes of its message.
fn ride(messages: &mut Vec<Recorded>) {
    let banner = messages.first().filter(|first| first.sequence.is_none()).cloned();
    let Some(banner) = banner else { return };
    if let Some(first) = messages.get_mut(1) {
        first.bytes.splice(..0, banner.bytes);
    }
    messages.remove(0);
}

/// The bytes of a rune that the last messages of a stream left open.
fn runes_after(messages: &[Recorded], stream: Stream) -> Runes {
    let (mut runes, mut scratch) = (Runes::default(), Vec::new());
    let of_stream = messages.iter().rev().filter(|m| m.stream == stream && m.sequence.is_some());
    let of_stream: Vec<_> = of_stream.take(RUNE_MESSAGES).collect();
    for message in of_stream.into_iter().rev() {
        runes.take(&message.bytes, &mut scratch);
    }
    runes
}

fn size(escaped: &[u8]) -> Option<(u16, u16)> {
    let (cols, rows) = std::str::from_utf8(escaped).ok()?.split_once('x')?;
    Some((cols.parse().ok()?, rows.parse().ok()?))
}

/// Bytes of a text as the recorder escapes it: each escape is one byte.
fn text_length(escaped: &[u8]) -> u64 {
    let (mut length, mut rest) = (0, escaped);
    while let Some((first, after)) = rest.split_first() {
        let skipped = match (first, after.first()) {
            (b'\\', Some(b'u')) => 5,
            (b'\\', _) => 1,
            _ => 0,
        };
        rest = after.get(skipped..).unwrap_or_default();
        length += 1;
    }
    length
}

fn base64_length(text: &[u8]) -> u64 {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding) as u64
}
