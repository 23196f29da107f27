//! The commands of a recording, and the places a player jumps between.

use std::path::Path;

use super::flows::holds_flows;
use super::{ReplayError, Timeline};
use crate::asciicast::{Event, EventCode, Header};
use crate::transcript::{Command, Line, Transcript};

/// Commands or places kept; a recording with more has them by machine.
const KEPT_MAX: usize = 100_000;
/// What the header of an export says once its commands are markers.
const MARKED: (&str, &str) = ("commands", "marked");

/// Reads a recording to its end and tells the commands in it.
pub fn commands(timeline: &mut Timeline) -> Result<Vec<Command>, ReplayError> {
    let mut commands = Vec::new();
    read(timeline, |_, found| commands.extend(found))?;
    commands.truncate(KEPT_MAX);
    Ok(commands)
}

/// The lines of a recording that hold a text, whatever its case.
pub fn find(timeline: &mut Timeline, text: &str, most: usize) -> Result<Vec<Line>, ReplayError> {
    let wanted = text.to_lowercase();
    let mut found = Vec::new();
    if holds_flows(timeline.header()) || wanted.is_empty() {
        return Ok(found);
    }
    let mut transcript = transcript(timeline.header())?;
    while let Some(event) = timeline.next_event()? {
        transcript.event(&event);
        let lines = transcript.take().lines.into_iter();
        found.extend(lines.filter(|line| line.text.to_lowercase().contains(&wanted)));
        if found.len() >= most {
            found.truncate(most);
            return Ok(found);
        }
    }
    let lines = transcript.finish().lines.into_iter();
    found.extend(lines.filter(|line| line.text.to_lowercase().contains(&wanted)));
    found.truncate(most);
    Ok(found)
}

/// The times of all markers and commands, in order, each once.
pub(super) fn places(path: &Path) -> Result<Vec<u64>, ReplayError> {
    let mut timeline = Timeline::open(path)?;
    let marked = is_marked(timeline.header());
    let mut all = Vec::new();
    read(&mut timeline, |event, found| {
        let room = all.len() < KEPT_MAX;
        all.extend((room && event.code == EventCode::Marker).then_some(event.time_ms));
        all.extend(found.iter().filter(|_| room && !marked).map(|command| command.time_ms));
    })?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn read(timeline: &mut Timeline, mut with: impl FnMut(&Event, Vec<Command>)) -> Result<(), ReplayError> {
    if holds_flows(timeline.header()) {
        return Ok(());
    }
    let mut transcript = transcript(timeline.header())?;
    let marked = is_marked(timeline.header());
    while let Some(event) = timeline.next_event()? {
        if !marked && transcript.has_told(&event) {
            continue;
        }
        transcript.event(&event);
        with(&event, transcript.take().commands);
    }
    Ok(())
}

/// A transcript of the recording with that header.
pub(super) fn transcript(header: &Header) -> Result<Transcript, ReplayError> {
    Transcript::of(header).map_err(|error| ReplayError::NotARecording(error.to_string()))
}

fn is_marked(header: &Header) -> bool {
    header.said(MARKED.0) == Some(MARKED.1)
}

/// Adds the commands of the gateway's recordings to an export, as markers.
pub(super) struct Marking {
    transcript: Transcript,
    before_ms: u64,
}

impl Marking {
    /// Notes in the header that it was done; none if there is nothing to do.
    pub fn begin(header: &mut Header) -> Result<Option<Self>, ReplayError> {
        if header.postern.is_none() || is_marked(header) || holds_flows(header) {
            return Ok(None);
        }
        let transcript = transcript(header)?;
        if let Some(about) = &mut header.postern {
            about.insert(MARKED.0.to_owned(), MARKED.1.into());
        }
        Ok(Some(Self { transcript, before_ms: 0 }))
    }

    /// The markers that stand before an event; their times are in order.
    pub fn before(&mut self, event: &Event) -> Vec<Event> {
        self.transcript.event(event);
        let markers = self.transcript.take().commands.into_iter().map(|command| Event {
            time_ms: command.time_ms.clamp(self.before_ms, event.time_ms),
            code: EventCode::Marker,
            data: command.label(),
        });
        let markers = markers.collect();
        self.before_ms = event.time_ms;
        markers
    }

    /// Whether the event is a marker that says the same once more.
    pub fn has_marked(&self, event: &Event) -> bool {
        self.transcript.has_told(event)
    }
}
