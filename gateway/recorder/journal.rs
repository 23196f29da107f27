//! The journal: new lines of all sessions, in one file, in one write.
//!
//! A record is `"PSJ2" | id length: u8 | position: u64 | length: u32 |
//! CRC-32: u32 | id | lines`, little endian. `position` is where the lines are
//! in their session's stream of lines. Segments are deleted once all of their
//! lines are in compressed files.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::lines::Lines;
use super::syncer::Segment;
use super::{RecorderError, Spool};
use crate::session::SessionId;

const MAGIC: &[u8; 4] = b"PSJ2";
/// Bytes of a record before the id.
const HEAD: usize = 21;
/// Longest lines of one record: twice what a session may hold back.
const RECORD_MAX: u32 = 16 << 20;
/// What a probe writes, bytes: some more than a sweep usually does.
const PROBE: usize = 64 * 1024;
/// A segment is closed at this size, bytes; bounds what recovery reads.
const SEGMENT_MAX: u64 = 64 << 20;
/// A segment is closed at this age: its lines are compressed by then.
const SEGMENT_AGE: Duration = Duration::from_secs(10);

/// The journal as its writer sees it.
pub(super) struct Journal {
    spool: Spool,
    /// Held so that no second process writes to the spool.
    _lock: File,
    segment: Segment,
    length: u64,
    since: Instant,
    ends: HashMap<SessionId, (Arc<Lines>, u64)>,
    closed: Vec<Closed>,
}

/// A segment that is written no more, and how far each session is in it.
struct Closed {
    number: u64,
    ends: Vec<(Arc<Lines>, u64)>,
}

impl Journal {
    /// Begins a journal with segment `number`.
    pub(super) fn open(spool: Spool, number: u64, lock: File) -> Result<Self, RecorderError> {
        let path = spool.journal_path(number);
        let segment =
            create(&spool, number).map_err(RecorderError::io(format!("make {}", path.display())))?;
        let (ends, closed) = (HashMap::new(), Vec::new());
        Ok(Self { spool, _lock: lock, segment, length: 0, since: Instant::now(), ends, closed })
    }

    /// Appends records with one write; on failure none of them is there.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if self.length > 0 && self.length + records.len() as u64 > SEGMENT_MAX {
            self.rotate()?;
        }
        if let Err(error) = self.segment.file.as_ref().write_all(records) {
            // A torn record must be the last of its segment.
            let _ = self.segment.file.set_len(self.length);
            let _ = self.rotate();
            return Err(error);
        }
        self.length += records.len() as u64;
        Ok(())
    }

    /// The segment that is being written.
    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Begins another segment if this is the one.
    pub(super) fn abandon(&mut self, number: u64) -> io::Result<()> {
        if self.segment.number == number { self.rotate() } else { Ok(()) }
    }

    /// Whether the journal could be written now; leaves nothing behind.
    pub(super) fn probe(&mut self, disk: &Disk) -> io::Result<()> {
        let mut file = self.segment.file.as_ref();
        let written = file.write_all(&[0; PROBE]).and_then(|()| disk.flush(file));
        let cut = file.set_len(self.length);
        written.and(cut)
    }

    /// Notes that the segment holds a session's lines up to `end`.
    pub(super) fn holds(&mut self, lines: &Arc<Lines>, end: u64) {
        match self.ends.get_mut(lines.id()) {
            Some((_, known)) => *known = end,
            None => {
                self.ends.insert(lines.id().clone(), (lines.clone(), end));
            }
        }
    }

    /// Closes an old segment and deletes those that are needed no more.
    ///
    /// `flush` is asked for the files of sessions that keep one from it.
    pub(super) fn tidy(&mut self, now: Instant, flush: impl Fn(&Arc<Lines>)) -> io::Result<()> {
        if self.length > 0 && now.duration_since(self.since) >= SEGMENT_AGE {
            self.rotate()?;
        }
        let spool = &self.spool;
        self.closed.retain_mut(|segment| {
            segment.ends.retain(|(lines, end)| {
                let needed = lines.safe() < *end;
                if needed && lines.compressed() >= *end {
                    flush(lines);
                }
                needed
            });
            let needed = !segment.ends.is_empty();
            needed || fs::remove_file(spool.journal_path(segment.number)).is_err()
        });
        Ok(())
    }

    /// Whether anything is left that `tidy` will have to look at.
    pub(super) fn untidy(&self) -> bool {
        self.length > 0 || !self.closed.is_empty()
    }

    fn rotate(&mut self) -> io::Result<()> {
        let next = create(&self.spool, self.segment.number + 1)?;
        let ends = self.ends.drain().map(|(_, end)| end).collect();
        self.closed.push(Closed { number: self.segment.number, ends });
        (self.segment, self.length, self.since) = (next, 0, Instant::now());
        Ok(())
    }
}

fn create(spool: &Spool, number: u64) -> io::Result<Segment> {
    let path = spool.journal_path(number);
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    Ok(Segment { number, file: Arc::new(file) })
}

/// Appends one record to what will be written.
pub(super) fn encode(id: &SessionId, position: u64, lines: &[u8], into: &mut Vec<u8>) {
    let id = id.as_str().as_bytes();
    into.extend_from_slice(MAGIC);
    into.push(id.len() as u8);
    into.extend_from_slice(&position.to_le_bytes());
    into.extend_from_slice(&(lines.len() as u32).to_le_bytes());
    into.extend_from_slice(&check(id, position, lines).to_le_bytes());
    into.extend_from_slice(id);
    into.extend_from_slice(lines);
}

/// A checksum against torn pages, not against people.
fn check(id: &[u8], position: u64, lines: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&position.to_le_bytes());
    sum.update(id);
    sum.update(lines);
    sum.finalize()
}

/// Where a run of a session's lines is in the journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Position of the first byte in the session's stream of lines.
    pub(super) position: u64,
    /// How many bytes.
    pub(super) length: u32,
    segment: u64,
    offset: u64,
}

/// What the journal holds, by session; made by reading all of it.
#[derive(Default)]
pub(super) struct Index {
    places: HashMap<SessionId, Vec<Place>>,
}

impl Index {
    /// Reads every segment; a segment ends at its first bad record.
    pub(super) fn read(spool: &Spool) -> io::Result<Self> {
        let mut index = Self::default();
        for segment in spool.journal_numbers()? {
            let mut file = BufReader::with_capacity(256 * 1024, File::open(spool.journal_path(segment))?);
            let (mut offset, mut lines) = (0, Vec::new());
            while let Some((id, position)) = read_record(&mut file, &mut lines)? {
                let length = lines.len() as u32;
                offset += (HEAD + id.as_str().len()) as u64;
                index.places.entry(id).or_default().push(Place { position, length, segment, offset });
                offset += u64::from(length);
            }
        }
        Ok(index)
    }

    /// A session's runs of lines, in the order they were written.
    pub(super) fn places(&self, id: &SessionId) -> &[Place] {
        self.places.get(id).map_or(&[], Vec::as_slice)
    }
}

impl Place {
    /// Reads the lines from `position` on, which must be in the run.
    pub(super) fn read_from(&self, spool: &Spool, position: u64) -> io::Result<Vec<u8>> {
        let skipped = position.saturating_sub(self.position).min(u64::from(self.length));
        let mut lines = vec![0; self.length as usize - skipped as usize];
        let file = File::open(spool.journal_path(self.segment))?;
        file.read_exact_at(&mut lines, self.offset + skipped)?;
        Ok(lines)
    }
}

/// Reads one record; `None` at the end or at anything that is no record.
fn read_record(from: &mut impl Read, lines: &mut Vec<u8>) -> io::Result<Option<(SessionId, u64)>> {
    let mut head = [0; HEAD];
    if !filled(from, &mut head)? {
        return Ok(None);
    }
    let [m0, m1, m2, m3, id_length, rest @ ..] = head;
    let [p0, p1, p2, p3, p4, p5, p6, p7, l0, l1, l2, l3, sum @ ..] = rest;
    let position = u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]);
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if [m0, m1, m2, m3] != *MAGIC || length > RECORD_MAX {
        return Ok(None);
    }
    let mut id = vec![0; usize::from(id_length)];
    lines.clear();
    lines.resize(length as usize, 0);
    if !filled(from, &mut id)? || !filled(from, lines)? {
        return Ok(None);
    }
    if check(&id, position, lines) != u32::from_le_bytes(sum) {
        return Ok(None);
    }
    let id = std::str::from_utf8(&id).ok().and_then(|id| SessionId::parse(id).ok());
    Ok(id.map(|id| (id, position)))
}

fn filled(from: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
