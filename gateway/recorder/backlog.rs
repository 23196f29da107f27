//! Reads a recording from a line on, sealed or still growing.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::lines::Tail;
use super::links::Links;
use super::read::{LineReader, ReadError};
use super::shipment::Batch;
use super::{House, RecorderError, is_sealed};
use crate::session::SessionId;

/// A place in a recording from which lines are read.
pub struct Backlog {
    house: Arc<House>,
    session: SessionId,
    path: PathBuf,
    reader: LineReader<File>,
    /// Up to where the file was read, bytes of lines.
    read: u64,
    /// Whether the file is the last one under its name.
    sealed: bool,
    links: Links,
    /// Up to where lines went through the chain, bytes of lines.
    position: u64,
    /// The first line that is wanted.
    from: u64,
    /// The first line that is not to be read yet.
    until: u64,
}

impl Backlog {
    pub(super) fn open(
        house: &Arc<House>,
        session: &SessionId,
        from: u64,
    ) -> Result<Option<Self>, RecorderError> {
        let path = house.spool.path(session);
        let (reader, sealed) = match open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(RecorderError::io(format!("read {}", path.display())))?,
        };
        let (house, session) = (Arc::clone(house), session.clone());
        Ok(Some(Self {
            house,
            session,
            path,
            reader,
            read: 0,
            sealed,
            links: Links::new(),
            position: 0,
            from,
            until: u64::MAX,
        }))
    }

    /// The next lines, once they are some `enough` bytes or all there are.
    ///
    /// `None` at the end of what is there now; asked again later it goes on.
    /// Blocks while it reads.
    pub fn next(&mut self, enough: usize) -> Result<Option<Batch>, RecorderError> {
        self.next_until(enough, u64::MAX)
    }

    /// The same, but no line from number `until` on.
    pub fn next_until(&mut self, enough: usize, until: u64) -> Result<Option<Batch>, RecorderError> {
        self.until = until;
        let mut lines = Vec::new();
        self.read_on(&mut lines, enough.max(1))?;
        if lines.is_empty() {
            return Ok(None);
        }
        let next_line = self.links.lines();
        let first_line = std::mem::replace(&mut self.from, next_line);
        let (count, chain) = (next_line - first_line, self.links.head());
        Ok(Some(Batch { first_line, count, lines: Bytes::from(lines), chain }))
    }

    fn read_on(&mut self, lines: &mut Vec<u8>, enough: usize) -> Result<(), RecorderError> {
        self.read_file(lines, enough)?;
        if !self.wants(lines, enough) || self.sealed {
            return Ok(());
        }
        let mut tail = self.tail();
        if tail.as_ref().is_some_and(|tail| tail.start > self.position) {
            // Lines went from there into the file meanwhile.
            self.read_file(lines, enough)?;
            tail = self.tail();
        }
        let elsewhere = match &tail {
            Some(tail) => tail.start > self.position,
            None => is_sealed(&self.path).map_err(self.failed())?,
        };
        if elsewhere {
            // Another file has the name now: sealed, or made anew at a restart.
            (self.reader, self.sealed) = open(&self.path).map_err(self.failed())?;
            self.read = 0;
            self.read_file(lines, enough)?;
            tail = self.tail();
        }
        if self.wants(lines, enough) {
            self.read_tail(tail, lines);
        }
        Ok(())
    }

    /// Whether lines are to be read after these.
    fn wants(&self, lines: &[u8], enough: usize) -> bool {
        lines.len() < enough && self.links.lines() < self.until
    }

    fn read_file(&mut self, lines: &mut Vec<u8>, enough: usize) -> Result<(), RecorderError> {
        while self.wants(lines, enough) {
            let line = match self.reader.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(ReadError::Io(error)) => {
                    return Err(RecorderError::io(format!("read {}", self.path.display()))(error));
                }
                Err(error) => {
                    return Err(RecorderError::Failed(format!("{}: {error}", self.path.display())));
                }
            };
            let start = self.read;
            self.read += line.len() as u64;
            if start >= self.position {
                self.position = self.read;
                take(&mut self.links, self.from, line, lines);
            }
        }
        Ok(())
    }

    /// The lines that are in the journal and may not be in the file.
    fn tail(&self) -> Option<Tail> {
        let open = self.house.open().get(&self.session).and_then(Weak::upgrade)?;
        Some(open.tail())
    }

    fn read_tail(&mut self, tail: Option<Tail>, lines: &mut Vec<u8>) {
        let Some(Tail { mut start, lines: waiting }) = tail else { return };
        for line in waiting.split_inclusive(|byte| *byte == b'\n') {
            if start == self.position && self.links.lines() < self.until {
                self.position += line.len() as u64;
                take(&mut self.links, self.from, line, lines);
            }
            start += line.len() as u64;
        }
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> RecorderError + use<> {
        RecorderError::io(format!("read {}", self.path.display()))
    }
}

fn open(path: &std::path::Path) -> io::Result<(LineReader<File>, bool)> {
    // In this order: a file that is sealed meanwhile is opened once more.
    let sealed = is_sealed(path)?;
    Ok((LineReader::new(File::open(path)?), sealed))
}

fn take(links: &mut Links, from: u64, line: &[u8], lines: &mut Vec<u8>) {
    if links.lines() >= from {
        lines.extend_from_slice(line);
    }
    links.line(line);
}
