//! The lines of a recording, and where in its text each begins.

use std::fs::File;

use super::ReplayError;
use super::source::Source;

/// Longest line: thousands of times what one message of a session gives.
const LINE_MAX: usize = 16 * 1024 * 1024;

/// Reads line by line; an unfinished last line waits for its end.
pub(super) struct Lines {
    source: Source,
    buffer: Vec<u8>,
    start: usize,
    searched: usize,
    offset: u64,
    number: u64,
}

impl Lines {
    pub fn new(file: File) -> Result<Self, ReplayError> {
        let source = Source::new(file)?;
        Ok(Self { source, buffer: Vec::new(), start: 0, searched: 0, offset: 0, number: 0 })
    }

    /// The next whole line without its line feed; `None`: none is there now.
    pub fn next(&mut self) -> Result<Option<&[u8]>, ReplayError> {
        let end = loop {
            let unseen = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(found) = memchr(unseen) {
                break self.searched + found;
            }
            self.searched = self.buffer.len();
            if self.searched - self.start > LINE_MAX {
                return Err(ReplayError::LongLine { line: self.number + 1, max: LINE_MAX });
            }
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
            if self.source.read(&mut self.buffer)? == 0 {
                return Ok(None);
            }
        };
        let from = self.start;
        self.offset += (end + 1 - from) as u64;
        self.start = end + 1;
        self.searched = self.start;
        self.number += 1;
        Ok(self.buffer.get(from..end))
    }

    /// What the file consists of, as far as it is known.
    pub fn source(&mut self) -> &mut Source {
        &mut self.source
    }

    /// Byte of the text at which the next line begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many lines were read: the number of the last one.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Continues at the beginning of a line, known by offset and number.
    pub fn seek(&mut self, offset: u64, number: u64) -> Result<(), ReplayError> {
        self.source.seek(offset)?;
        self.buffer.clear();
        (self.start, self.searched) = (0, 0);
        (self.offset, self.number) = (offset, number);
        Ok(())
    }

    /// Whether what was read ends with a whole line and a whole frame.
    pub fn is_whole(&self) -> bool {
        self.start == self.buffer.len() && self.source.is_whole()
    }

    /// The bytes after the last line feed, at the end of the file.
    pub fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Takes those bytes as a line; a line feed may follow later.
    pub fn take_rest(&mut self) {
        self.offset += self.rest().len() as u64;
        self.number += 1;
        self.start = self.buffer.len();
        self.searched = self.start;
    }
}

/// Where the first line feed is.
fn memchr(bytes: &[u8]) -> Option<usize> {
    const LOOK: usize = 128;
    let mut at = 0;
    for chunk in bytes.chunks(LOOK) {
        // `contains` on bytes is vectorised; `position` is not.
        if chunk.contains(&b'\n') {
            return chunk.iter().position(|byte| *byte == b'\n').map(|found| at + found);
        }
        at += LOOK;
    }
    None
}
