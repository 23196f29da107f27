//! A recording as a header and a stream of events, readable from any place.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::lines::Lines;
use super::source::Frame;
use super::{ReplayError, version3};
use crate::asciicast::{CastError, Event, Header, peek};

/// How a recording ended, as far as it could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// After a whole line and, if compressed, a whole frame.
    Whole,
    /// In the middle: still being written, or cut off.
    Open,
}

/// A place between two events, to come back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Milliseconds of the event before it.
    pub time_ms: u64,
    offset: u64,
    line: u64,
    clock_us: u64,
}

/// Reads `.cast` (v2, v3) and `.cast.zst`, live and torn ones too.
///
/// Memory is bounded by the longest line, whatever the file's size. After
/// `None` the next call looks again: a live recording goes on.
pub struct Timeline {
    header: Header,
    version: u8,
    lines: Lines,
    time_ms: u64,
    clock_us: u64,
    first: Place,
}

impl Timeline {
    /// Opens a recording and reads its header.
    pub fn open(path: &Path) -> Result<Self, ReplayError> {
        Self::read(File::open(path).map_err(ReplayError::Read)?)
    }

    /// Reads the header of an open file.
    pub fn read(file: File) -> Result<Self, ReplayError> {
        let mut lines = Lines::new(file)?;
        let found = lines.next()?.map(<[u8]>::to_vec);
        // A file cut right after the header has no line feed yet.
        let line = found.unwrap_or_else(|| lines.rest().to_vec());
        if line.is_empty() {
            return Err(ReplayError::Empty);
        }
        let (version, header) = read_header(&line)?;
        let first = Place { time_ms: 0, offset: lines.offset(), line: lines.number(), clock_us: 0 };
        Ok(Self { header, version, lines, time_ms: 0, clock_us: 0, first })
    }

    /// The header; of a v3 file, as v2 says it.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next event; `None`: there is none now, see [`Timeline::end`].
    ///
    /// Times never go backwards: an event earlier than the one before it
    /// gets that one's time.
    pub fn next_event(&mut self) -> Result<Option<Event>, ReplayError> {
        loop {
            let Some(line) = self.lines.next()? else { return Ok(self.unfinished_line()) };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let read = read_event(self.version, line, &mut self.clock_us);
            let number = self.lines.number();
            let event = read.map_err(|why| ReplayError::Line { line: number, why })?;
            return Ok(Some(self.in_order(event)));
        }
    }

    /// The last line of a file may lack its line feed and yet be an event.
    fn unfinished_line(&mut self) -> Option<Event> {
        let event = read_event(self.version, self.lines.rest(), &mut self.clock_us).ok()?;
        self.lines.take_rest();
        Some(self.in_order(event))
    }

    fn in_order(&mut self, mut event: Event) -> Event {
        event.time_ms = event.time_ms.max(self.time_ms);
        self.time_ms = event.time_ms;
        event
    }

    /// How the recording ends, once there is no next event.
    pub fn end(&self) -> End {
        if self.lines.is_whole() { End::Whole } else { End::Open }
    }

    /// The place before the next event.
    pub fn place(&self) -> Place {
        Place {
            time_ms: self.time_ms,
            offset: self.lines.offset(),
            line: self.lines.number(),
            clock_us: self.clock_us,
        }
    }

    /// The place before the first event.
    pub fn first(&self) -> Place {
        self.first
    }

    /// The compressed frames that are known so far.
    pub(super) fn frames(&mut self) -> Vec<Frame> {
        self.lines.source().frames().to_vec()
    }

    /// Frames that an earlier reader of the same bytes has found.
    pub(super) fn know_frames(&mut self, frames: &[Frame]) {
        self.lines.source().know(frames);
    }

    /// Continues from a place.
    pub fn go(&mut self, place: Place) -> Result<(), ReplayError> {
        self.lines.seek(place.offset, place.line)?;
        self.time_ms = place.time_ms;
        self.clock_us = place.clock_us;
        Ok(())
    }

    /// Reads to the end and tells the time of the last event.
    ///
    /// Stops early, without an error, where the recording is damaged.
    pub fn last_ms(&mut self) -> u64 {
        while let Ok(Some(line)) = self.lines.next() {
            // Lines of our own need no parsing of their data.
            let known = if self.version == 2 { peek(line).map(|peeked| peeked.time_ms) } else { None };
            let time_ms = known.or_else(|| {
                read_event(self.version, line, &mut self.clock_us).ok().map(|event| event.time_ms)
            });
            self.time_ms = self.time_ms.max(time_ms.unwrap_or_default());
        }
        self.time_ms
    }
}

fn read_event(version: u8, line: &[u8], clock_us: &mut u64) -> Result<Event, CastError> {
    match version {
        3 => version3::read_event(line, clock_us),
        _ => Event::parse(line),
    }
}

fn read_header(line: &[u8]) -> Result<(u8, Header), ReplayError> {
    #[derive(Deserialize)]
    struct Version {
        version: u8,
    }
    let not = |error: CastError| ReplayError::NotARecording(error.to_string());
    let version: Version = serde_json::from_slice(line)
        .map_err(|_| ReplayError::NotARecording("its first line is no asciicast header".to_owned()))?;
    let header = match version.version {
        2 => Header::parse(line).map_err(not)?,
        3 => version3::read_header(line).map_err(not)?,
        other => return Err(ReplayError::NotARecording(format!("asciicast v{other} is not known here"))),
    };
    Ok((version.version, header))
}
