//! The frames of a sealed recording, passed on as they are in its file.
//!
//! The evidence says of each frame its SHA-256, how many lines it holds and
//! where the hash chain stands after them. So a frame can be given to others
//! with its place, and nobody has to unpack it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use bytes::Bytes;

use super::check::FRAME_MAX;
use super::evidence::Evidence;
use super::links::Head;
use super::trailer::Trailer;
use super::verify::Bytes as FileBytes;
use super::{Damage, House, Links, RecorderError, frames};
use crate::session::SessionId;

/// Where the frames of one sealed recording are; 0.2 KB each.
pub struct Frames {
    path: PathBuf,
    frames: Vec<Frame>,
}

/// One frame in the file.
struct Frame {
    /// Where it begins, bytes.
    at: u64,
    /// Its size, bytes.
    size: u32,
    /// Its SHA-256, base64.
    hash: String,
    /// The number of the line after its last.
    next_line: u64,
    /// The chain after that.
    chain: Head,
    /// Time of the last line of the segment that its last line is in.
    until_ms: u64,
}

/// One frame with its place among the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The number of its first line; the header is line 0.
    pub first_line: u64,
    /// How many lines.
    pub count: u64,
    /// The zstd frame, with a content checksum; 4 MB at the most.
    pub bytes: Bytes,
    /// The hash chain's head after the last of them.
    pub chain: Head,
    /// When the last of them happened, or up to 64 KB of lines later.
    pub until_ms: u64,
}

impl Frames {
    pub(super) fn of(house: &House, session: &SessionId) -> Option<Self> {
        let path = house.spool.path(session);
        let found = FileBytes::open(&path).and_then(|bytes| Trailer::find(&bytes)).and_then(|trailer| {
            let Some(trailer) = trailer.filter(|trailer| !trailer.evidence.frame_heads.is_empty()) else {
                return Ok(None);
            };
            trailer.check_signature(&house.known_keys)?;
            let frames = places(&trailer.evidence).filter(|frames| ends(frames) == Some(trailer.place.start));
            let contradicts = || Damage::at(trailer.place.clone(), "the evidence contradicts itself");
            frames.map(Some).ok_or_else(contradicts)
        });
        let frames = found.unwrap_or_else(|damage| {
            let what = "what the evidence says of frames cannot be used; postern verify finds out more";
            tracing::error!(%session, %damage, "{what}");
            None
        });
        frames.map(|frames| Self { path, frames })
    }

    /// How many lines all frames hold, the header counted.
    pub fn lines(&self) -> u64 {
        self.frames.last().map_or(0, |last| last.next_line)
    }

    /// The chain before a line that a frame begins with, or after the last.
    pub fn head_before(&self, line: u64) -> Option<Head> {
        if line == 0 {
            return Some(Links::new().head());
        }
        let at = self.frames.binary_search_by_key(&line, |frame| frame.next_line).ok()?;
        self.frames.get(at).map(|frame| frame.chain)
    }

    /// The number of the line after the frame that holds a line.
    pub fn end_of(&self, line: u64) -> Option<u64> {
        self.holding(line).map(|(_, frame)| frame.next_line)
    }

    /// Size of the frame that holds a line, bytes; 0 if there is none.
    pub fn size_of(&self, line: u64) -> usize {
        self.holding(line).map_or(0, |(_, frame)| frame.size as usize)
    }

    /// Reads the frame that holds a line; `None` if file or line is gone.
    ///
    /// One that is not as it was sealed is an error. Blocks: a frame is up to
    /// 4 MB.
    pub fn read(&self, line: u64) -> Result<Option<Packed>, RecorderError> {
        let Some((first_line, frame)) = self.holding(line) else { return Ok(None) };
        let failed = || RecorderError::io(format!("read {}", self.path.display()));
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed())?,
        };
        let mut bytes = Vec::with_capacity(frame.size as usize);
        file.seek(SeekFrom::Start(frame.at)).map_err(failed())?;
        file.take(u64::from(frame.size)).read_to_end(&mut bytes).map_err(failed())?;
        if frames::hash(&bytes) != frame.hash {
            let damage = Damage {
                lines: Some(first_line + 1..frame.next_line + 1),
                ..Damage::at(frame.at..frame.at + u64::from(frame.size), "a frame is not as it was sealed")
            };
            return Err(RecorderError::Failed(format!("{}: {damage}", self.path.display())));
        }
        let (count, bytes) = (frame.next_line - first_line, Bytes::from(bytes));
        Ok(Some(Packed { first_line, count, bytes, chain: frame.chain, until_ms: frame.until_ms }))
    }

    /// The frame that holds a line, and the number of its first.
    fn holding(&self, line: u64) -> Option<(u64, &Frame)> {
        let at = self.frames.partition_point(|frame| frame.next_line <= line);
        let before = at.checked_sub(1).and_then(|before| self.frames.get(before));
        Some((before.map_or(0, |before| before.next_line), self.frames.get(at)?))
    }
}

/// Where evidence says that frames are; `None` if it contradicts itself.
fn places(evidence: &Evidence) -> Option<Vec<Frame>> {
    if evidence.frames.len() != evidence.frame_heads.len() {
        return None;
    }
    let (mut at, mut next_line, mut bytes) = (0, 0, 0);
    let mut segments = evidence.segments.iter().peekable();
    let events: u64 = evidence.segments.iter().map(|segment| segment.bytes).sum();
    // Up to where among all lines the segment goes that was taken last.
    let (mut reached, mut until_ms) = (evidence.totals.bytes.checked_sub(events)?, 0);
    let mut frames = Vec::with_capacity(evidence.frames.len());
    for ((size, text, hash), (count, chain)) in evidence.frames.iter().zip(&evidence.frame_heads) {
        if *size > FRAME_MAX || *text > FRAME_MAX || *count == 0 {
            return None;
        }
        bytes += u64::from(*text);
        while let Some(segment) = segments.next_if(|_| reached < bytes) {
            reached += segment.bytes;
            until_ms = segment.until_ms;
        }
        next_line = u64::checked_add(next_line, *count)?;
        frames.push(Frame { at, size: *size, hash: hash.clone(), next_line, chain: *chain, until_ms });
        at += u64::from(*size);
    }
    (next_line == evidence.totals.lines && bytes == evidence.totals.bytes).then_some(frames)
}

/// Where the last frame ends in the file.
fn ends(frames: &[Frame]) -> Option<u64> {
    frames.last().map(|last| last.at + u64::from(last.size))
}
