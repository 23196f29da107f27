//! The journal: new lines of all sessions, in one file, in one write.
//!
//! A record is `"PSJ3" | id length: u8 | position: u64 | length: u32 |
//! CRC-32: u32 | id | lines`, little endian. `position` is where the lines are
//! in their session's stream of lines. A segment is needed no more once all of
//! its lines are in compressed files. Then it is deleted, or, while much is
//! written, the next one is written over it: to make and to free the pages and
//! blocks of 64 MB takes longer than to write them. The number of the segment
//! is in each checksum, so what is left of the one before is no record.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::lines::Lines;
use super::syncer::Segment;
use super::{RecorderError, Spool};
use crate::session::SessionId;

const MAGIC: &[u8; 4] = b"PSJ3";
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
/// How long a segment that is needed no more waits to be written over.
const SPARE_AGE: Duration = Duration::from_secs(3);

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
    spare: Option<Spare>,
    /// The segment failed, so nothing is to be written over it.
    failed: bool,
}

/// A segment that is written no more, and how far each session is in it.
struct Closed {
    number: u64,
    ends: Vec<(Arc<Lines>, u64)>,
    failed: bool,
}

/// A segment that is needed no more, and since when.
struct Spare {
    path: PathBuf,
    since: Instant,
}

impl Journal {
    /// Begins a journal with segment `number`.
    pub(super) fn open(spool: Spool, number: u64, lock: File) -> Result<Self, RecorderError> {
        let path = spool.journal_path(number);
        let segment =
            create(&spool, number).map_err(RecorderError::io(format!("make {}", path.display())))?;
        Ok(Self {
            spool,
            _lock: lock,
            segment,
            length: 0,
            since: Instant::now(),
            ends: HashMap::new(),
            closed: Vec::new(),
            spare: None,
            failed: false,
        })
    }

    /// Before records are encoded: sees to it that the segment is not full,
    /// and not `broken`.
    pub(super) fn prepare(&mut self, broken: u64) -> io::Result<()> {
        let is_broken = self.segment.number == broken;
        self.failed |= is_broken;
        if is_broken || self.length >= SEGMENT_MAX { self.rotate() } else { Ok(()) }
    }

    /// Appends records of this segment with one write; on failure none of them is there.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if let Err(error) = self.segment.file.write_all_at(records, self.length) {
            // A torn record must be the last of its segment.
            let _ = self.segment.file.set_len(self.length);
            self.failed = true;
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

    /// Whether the journal could be written now; leaves nothing behind.
    pub(super) fn probe(&mut self, disk: &Disk) -> io::Result<()> {
        let file = self.segment.file.as_ref();
        let written = file.write_all_at(&[0; PROBE], self.length).and_then(|()| disk.flush(file));
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
        let (spool, spare) = (&self.spool, &mut self.spare);
        spare.take_if(|spare| {
            now.duration_since(spare.since) >= SPARE_AGE && fs::remove_file(&spare.path).is_ok()
        });
        self.closed.retain_mut(|segment| {
            segment.ends.retain(|(lines, end)| {
                let needed = lines.safe() < *end;
                if needed && lines.compressed() >= *end {
                    flush(lines);
                }
                needed
            });
            if !segment.ends.is_empty() {
                return true;
            }
            let path = spool.journal_path(segment.number);
            if spare.is_none() && !segment.failed {
                *spare = Some(Spare { path, since: now });
                return false;
            }
            fs::remove_file(path).is_err()
        });
        Ok(())
    }

    /// Whether anything is left that `tidy` will have to look at.
    pub(super) fn untidy(&self) -> bool {
        self.length > 0 || !self.closed.is_empty() || self.spare.is_some()
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self.segment.number + 1;
        let over = self.spare.take().and_then(|spare| write_over(&self.spool, &spare, number).ok());
        let next = over.map_or_else(|| create(&self.spool, number), Ok)?;
        let ends = self.ends.drain().map(|(_, end)| end).collect();
        self.closed.push(Closed { number: self.segment.number, ends, failed: self.failed });
        (self.segment, self.length, self.since, self.failed) = (next, 0, Instant::now(), false);
        Ok(())
    }
}

fn create(spool: &Spool, number: u64) -> io::Result<Segment> {
    let path = spool.journal_path(number);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(Segment { number, file: Arc::new(file) })
}

/// Makes another segment of one that is needed no more; it is gone in any case.
fn write_over(spool: &Spool, spare: &Spare, number: u64) -> io::Result<Segment> {
    let path = spool.journal_path(number);
    let file = fs::rename(&spare.path, &path).and_then(|()| OpenOptions::new().write(true).open(&path));
    match file {
        Ok(file) => Ok(Segment { number, file: Arc::new(file) }),
        Err(error) => {
            let _ = fs::remove_file(&spare.path);
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

/// Appends one record to what will be written to segment `number`.
pub(super) fn encode(number: u64, id: &SessionId, position: u64, lines: &[u8], into: &mut Vec<u8>) {
    let id = id.as_str().as_bytes();
    into.extend_from_slice(MAGIC);
    into.push(id.len() as u8);
    into.extend_from_slice(&position.to_le_bytes());
    into.extend_from_slice(&(lines.len() as u32).to_le_bytes());
    into.extend_from_slice(&check(number, id, position, lines).to_le_bytes());
    into.extend_from_slice(id);
    into.extend_from_slice(lines);
}

/// A checksum against torn pages and older segments, not against people.
fn check(number: u64, id: &[u8], position: u64, lines: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
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
            while let Some((id, position)) = read_record(segment, &mut file, &mut lines)? {
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

/// Reads one record; `None` at the end or at anything that is no record of
/// segment `number`.
fn read_record(
    number: u64,
    from: &mut impl Read,
    lines: &mut Vec<u8>,
) -> io::Result<Option<(SessionId, u64)>> {
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
    if check(number, &id, position, lines) != u32::from_le_bytes(sum) {
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
