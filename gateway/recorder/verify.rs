//! Finds any byte of a sealed recording that is not as it was sealed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::PublicKey;
use super::check::check_frames;
use super::checkpoint::{Checkpoint, Witness};
use super::evidence::Evidence;
use super::read::LineReader;
use super::trailer::Trailer;
use crate::asciicast::peek;

/// What a recording that is not damaged is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Every byte is as it was when the gateway sealed it.
    Sealed(Box<Evidence>),
    /// Running or interrupted: no more is proved than a checkpoint says.
    Unsealed {
        /// How many whole lines can be read.
        lines: u64,
        /// Time of the last one.
        duration_ms: u64,
        /// What was signed of it so far.
        proved: Option<Checkpoint>,
    },
}

/// What is wrong with a recording, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged at bytes {} to {}{}: {what}", bytes.start, bytes.end, place(lines, times_ms))]
pub struct Damage {
    /// Where in the file.
    pub bytes: Range<u64>,
    /// Which lines, counted from 1, if it is inside lines.
    pub lines: Option<Range<u64>>,
    /// From when to when, in the session's time.
    pub times_ms: Option<Range<u64>>,
    /// What is wrong.
    pub what: String,
}

fn place(lines: &Option<Range<u64>>, times_ms: &Option<Range<u64>>) -> String {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let lines = lines.as_ref().map(|l| format!(", lines {} to {}", l.start, l.end.saturating_sub(1)));
    let times = times_ms.as_ref().map(|t| format!(", {:.3} s to {:.3} s", seconds(t.start), seconds(t.end)));
    [lines, times].into_iter().flatten().collect()
}

impl Damage {
    pub(super) fn at(bytes: Range<u64>, what: impl Into<String>) -> Self {
        Self { bytes, lines: None, times_ms: None, what: what.into() }
    }
}

/// Checks a recording against keys that the caller trusts.
///
/// Any flipped, cut, added, reordered or spliced byte, wherever it is, makes
/// it [`Damage`]; so does a signature by another key. The file is read once
/// or twice, with memory for one frame and the evidence.
pub fn verify(path: &Path, trusted: &[PublicKey]) -> Result<Report, Damage> {
    check(path, Some(trusted))
}

/// Checks a recording against what it says of itself, without any key.
///
/// Whoever alters it and writes new evidence is not found by that.
pub fn verify_without_key(path: &Path) -> Result<Report, Damage> {
    check(path, None)
}

fn check(path: &Path, trusted: Option<&[PublicKey]>) -> Result<Report, Damage> {
    // Before the file: that is never behind it.
    let checkpoint = Checkpoint::read(path);
    let bytes = Bytes::open(path)?;
    let Some(trailer) = Trailer::find(&bytes)? else {
        let unusable = |why: &str| Damage::at(0..0, format!("its checkpoint cannot be used: {why}"));
        let checkpoint = checkpoint.map_err(|error| unusable(&error.to_string()))?;
        if let (Some(checkpoint), Some(trusted)) = (&checkpoint, trusted)
            && !checkpoint.signed_by(trusted)
        {
            return Err(unusable("no trusted key signed it"));
        }
        return unsealed(bytes, checkpoint);
    };
    match trusted {
        Some(trusted) => trailer.check_signature(trusted)?,
        None => trailer.check_version()?,
    }
    check_frames(&bytes, &trailer)?;
    trailer.check_table(&bytes)?;
    Ok(Report::Sealed(Box::new(trailer.evidence)))
}

/// What a sealed recording says of itself, believed as it is.
///
/// `None`: it is not sealed. Nothing is checked but that it can be read.
pub fn evidence(path: &Path) -> Result<Option<Evidence>, Damage> {
    let unreadable = |error: io::Error| Damage::at(0..0, format!("it cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    Ok(Trailer::find(&Bytes { file, length })?.map(|trailer| trailer.evidence))
}

/// Reads what can be read of a recording without evidence.
fn unsealed(bytes: Bytes, checkpoint: Option<Checkpoint>) -> Result<Report, Damage> {
    let length = bytes.length;
    let (mut lines, mut duration_ms) = (0, 0);
    let mut witness = Witness::new(checkpoint);
    let mut reader = LineReader::new(bytes.file);
    loop {
        match reader.next_line() {
            Ok(Some(line)) => {
                lines += 1;
                if !witness.line(line) {
                    let what = "lines are not those that were signed while the session ran";
                    return Err(Damage { lines: Some(1..lines + 1), ..Damage::at(0..length, what) });
                }
                duration_ms = peek(line).map_or(duration_ms, |peeked| peeked.time_ms);
            }
            Ok(None) => break,
            Err(error) => return Err(Damage::at(0..length, error.to_string())),
        }
    }
    if let Some(signed) = witness.missing() {
        let what = format!("{} lines were signed while the session ran, and {lines} are here", signed.lines);
        return Err(Damage::at(length..length, what));
    }
    Ok(Report::Unsealed { lines, duration_ms, proved: witness.proved() })
}

/// A file read at places.
pub(super) struct Bytes {
    file: File,
    /// How long it is.
    pub(super) length: u64,
}

impl Bytes {
    /// Opens a file.
    pub(super) fn open(path: &Path) -> Result<Self, Damage> {
        let unreadable = |error: io::Error| Damage::at(0..0, format!("it cannot be read: {error}"));
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        Ok(Self { file, length })
    }

    /// Reads `size` bytes from `at`, which must be there.
    pub(super) fn read(&self, at: u64, size: u64) -> Result<Vec<u8>, Damage> {
        let range = at..at.saturating_add(size);
        if range.end > self.length {
            return Err(Damage::at(at.min(self.length)..self.length, "it ends too early"));
        }
        let mut bytes = vec![0; size as usize];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|error| Damage::at(range, format!("it cannot be read: {error}")))?;
        Ok(bytes)
    }

    /// Reads a little-endian `u32`.
    pub(super) fn number(&self, at: u64) -> Result<u32, Damage> {
        let bytes = self.read(at, 4)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)))
    }
}
