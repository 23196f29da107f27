//! Puts together what a crash or an error left, and seals it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{Checkpoint, Witness};
use super::evidence::Ending;
use super::journal::Index;
use super::read::{LineReader, ReadError};
use super::seal::{Placed, Seal, Sealed};
use super::{House, RecorderError, Spool, frames, is_sealed};
use crate::asciicast::{EventCode, Header, encode_event, peek};
use crate::session::SessionId;

/// What an earlier process left: open recordings, and the journal's lines.
#[derive(Default)]
pub(super) struct Past {
    /// Recordings that are neither sealed nor reopened yet.
    left: HashSet<SessionId>,
    index: Arc<Index>,
    /// Journal segments that hold lines of those.
    segments: Vec<u64>,
    /// A recording could not be recovered: the segments stay.
    kept: bool,
}

/// Finds every open recording of an earlier process.
///
/// Also gives the number of the first journal segment that is free.
pub(super) fn look(spool: &Spool) -> Result<(Past, u64), RecorderError> {
    let failed = || RecorderError::io("recover the spool");
    spool.remove_drafts().map_err(failed())?;
    let segments = spool.journal_numbers().map_err(failed())?;
    let index = Arc::new(Index::read(spool).map_err(failed())?);
    let mut left = HashSet::new();
    for id in spool.ids().map_err(failed())? {
        let path = spool.path(&id);
        if !is_sealed(&path).map_err(RecorderError::io(format!("read {}", path.display())))? {
            left.insert(id);
        }
    }
    spool.remove_stray_checkpoints(&left).map_err(failed())?;
    let free = segments.last().map_or(1, |last| last + 1);
    Ok((Past { left, index, segments, kept: false }, free))
}

impl House {
    /// Recordings of an earlier process that nobody took up yet.
    pub(super) fn left(&self) -> Vec<SessionId> {
        self.past().left.iter().cloned().collect()
    }

    /// What the journal has of an open recording of an earlier process.
    pub(super) fn past_lines(&self, id: &SessionId) -> Option<Arc<Index>> {
        let past = self.past();
        past.left.contains(id).then(|| Arc::clone(&past.index))
    }

    /// A recording needs the old journal no more; or it has to be kept.
    pub(super) fn past_done(&self, id: &SessionId, well: bool) {
        let mut past = self.past();
        past.left.remove(id);
        past.kept |= !well;
        if past.left.is_empty() {
            past.index = Arc::default();
            if !past.kept {
                self.forget_segments(&std::mem::take(&mut past.segments));
            }
        }
    }

    /// With nothing left to recover the old journal goes at once.
    pub(super) fn tidy_past(&self) {
        let mut past = self.past();
        if past.left.is_empty() && !past.kept {
            self.forget_segments(&std::mem::take(&mut past.segments));
        }
    }

    fn forget_segments(&self, numbers: &[u64]) {
        for number in numbers {
            if let Err(error) = fs::remove_file(self.spool.journal_path(*number)) {
                // Its lines are in their files; it is read again at the next start.
                tracing::warn!(number, %error, "an old journal segment cannot be removed");
            }
        }
    }
}

/// Puts a recording of an earlier process aside that must not be signed.
pub(super) fn refuse(house: &House, id: &SessionId, why: &str) {
    if house.past_lines(id).is_none() {
        return;
    }
    let aside = set_aside(house, id, why);
    if let Err(error) = &aside {
        house.report(&format!("{} cannot be set aside: {error}", house.spool.path(id).display()));
    }
    house.past_done(id, aside.is_ok());
}

/// Seals a recording of an earlier process that nobody goes on with.
pub(super) fn seal_left(house: &House, id: &SessionId) -> Option<Sealed> {
    let index = house.past_lines(id)?;
    let reason = "gateway stopped".to_owned();
    let ending = Ending { reason, at_ms: 0, recovered: true, missing_bytes: 0 };
    let assembled = assemble(house, id, &index, ending);
    let sealed = assembled.and_then(|placed| placed.map(|placed| placed.settle(house)).transpose());
    let (well, sealed) = match sealed {
        Ok(Some(sealed)) => {
            tracing::warn!(%id, "recovered a recording that was not sealed");
            house.count_recording("recovered");
            (true, Some(sealed))
        }
        Ok(None) => (true, None),
        Err(error @ RecorderError::Altered(_)) => {
            // Not the disk's fault: other sessions can be recorded.
            house.metrics.recorder_errors.inc();
            house.count_recording("failed");
            tracing::error!(%id, %error, "it is not sealed");
            (false, None)
        }
        Err(error) => {
            house.report(&error.to_string());
            house.count_recording("failed");
            (false, None)
        }
    };
    house.past_done(id, well);
    sealed
}

/// Seals what file and journal have of a recording that failed.
pub(super) fn salvage(house: &House, id: &SessionId, ending: Ending) -> Result<Placed, RecorderError> {
    let index = Index::read(&house.spool).map_err(RecorderError::io("read the journal"))?;
    // What this gateway began is set aside only if it is not what was begun.
    assemble(house, id, &index, ending)?.ok_or_else(|| RecorderError::Altered(id.clone()))
}

fn assemble(
    house: &House,
    id: &SessionId,
    index: &Index,
    ending: Ending,
) -> Result<Option<Placed>, RecorderError> {
    let Some(signed) = begun(house, id, index)? else { return Ok(None) };
    let placed = seal_joined(house, id, (index, signed), ending);
    if placed.is_err() {
        let _ = fs::remove_file(house.spool.draft_path(id));
    }
    placed.map(Some)
}

fn seal_joined(
    house: &House,
    id: &SessionId,
    (index, signed): (&Index, Checkpoint),
    ending: Ending,
) -> Result<Placed, RecorderError> {
    let mut seal = Seal::begin(house, id, ending)?;
    seal.taken_over(&signed.takeovers);
    let checkpoint = join(house, id, (index, signed), &mut |part| match part {
        Part::Line(line) => seal.line(line),
        Part::Lost(bytes) => {
            seal.lost(bytes);
            Ok(())
        }
    })?;
    seal.proved(checkpoint);
    seal.finish()
}

/// What this gateway signed of an open recording, the most of it.
///
/// What it never began, or has sealed already, is set aside: whoever can
/// write to the spool could have anything signed. `None` then.
pub(super) fn begun(
    house: &House,
    id: &SessionId,
    index: &Index,
) -> Result<Option<Checkpoint>, RecorderError> {
    let path = house.spool.path(id);
    let failed = || RecorderError::io(format!("recover {}", path.display()));
    let why = match (start(&path).map_err(failed())?, signed(house, id, &path)) {
        (None, _) if index.places(id).is_empty() => "it is no recording",
        (Some(true), _) => "it was sealed, and was cut or altered since",
        (_, Some(signed)) => return Ok(Some(signed)),
        (_, None) => "nothing signed says that it was begun here and is not sealed yet",
    };
    set_aside(house, id, why).map_err(failed())?;
    Ok(None)
}

/// A piece of what file and journal hold together.
pub(super) enum Part<'a> {
    /// A line with its line feed; the first one is the header.
    Line(&'a [u8]),
    /// So many bytes of lines are known to be lost.
    Lost(u64),
}

/// Where the parts of a recording go.
pub(super) type Take<'a> = dyn FnMut(Part<'_>) -> Result<(), RecorderError> + 'a;

/// Joins file and journal, in order and without a line twice.
///
/// Gives the checkpoint, if all lines that it speaks of are there. It fails
/// if lines are not the ones that were signed while the session ran.
pub(super) fn join(
    house: &House,
    id: &SessionId,
    (index, signed): (&Index, Checkpoint),
    take: &mut Take<'_>,
) -> Result<Option<Checkpoint>, RecorderError> {
    let path = house.spool.path(id);
    let failed = || RecorderError::io(format!("recover {}", path.display()));
    let file = File::open(&path).map_err(failed())?;
    let witness = Witness::new(Some(signed));
    let mut join = Join { take, id, witness, position: 0, last_ms: 0 };
    join.file(file)?;
    if join.position == 0 {
        let mut header = Vec::new();
        lost_header(id).write(&mut header)?;
        join.witness.lost();
        (join.take)(Part::Line(&header))?;
        join.position = index.places(id).first().map_or(0, |place| place.position);
        (join.take)(Part::Lost(0))?;
    }
    for place in index.places(id) {
        if place.position + u64::from(place.length) > join.position {
            join.gap(place.position)?;
            let lines = place.read_from(&house.spool, join.position).map_err(failed())?;
            join.lines(&lines)?;
        }
    }
    if let Some(signed) = join.witness.missing().map(|checkpoint| checkpoint.bytes) {
        join.gap(signed)?;
    }
    Ok(join.witness.proved())
}

/// The longer of two checkpoints; one that no known key signed says nothing.
fn signed(house: &House, id: &SessionId, path: &Path) -> Option<Checkpoint> {
    let found = [Checkpoint::read(path), Checkpoint::read_begun(path)];
    let usable = found.into_iter().filter_map(|found| {
        let why = match found {
            Ok(None) => return None,
            Ok(Some(found)) if found.session == id.as_str() && found.signed_by(&house.known_keys) => {
                return Some(found);
            }
            Ok(Some(_)) => "it is not signed by a known key for this session".to_owned(),
            Err(error) => error.to_string(),
        };
        house.metrics.recorder_errors.inc();
        tracing::error!(%id, why, "a checkpoint of a recording cannot be used");
        None
    });
    usable.max_by_key(|checkpoint| checkpoint.lines)
}

/// Knows where in the stream of lines it is.
struct Join<'a, 'b> {
    take: &'a mut Take<'b>,
    id: &'a SessionId,
    witness: Witness,
    position: u64,
    last_ms: u64,
}

impl Join<'_, '_> {
    /// Adds the whole lines of an open file, up to where it is torn.
    fn file(&mut self, file: File) -> Result<(), RecorderError> {
        let mut reader = LineReader::new(file);
        loop {
            match reader.next_line() {
                Ok(Some(line)) => self.line(line)?,
                Ok(None) => return Ok(()),
                Err(ReadError::Io(error)) => return Err(RecorderError::io("read a recording")(error)),
                Err(error) => {
                    tracing::warn!(%error, "an open recording ends early");
                    return Ok(());
                }
            }
        }
    }

    fn lines(&mut self, lines: &[u8]) -> Result<(), RecorderError> {
        lines.split_inclusive(|b| *b == b'\n').try_for_each(|line| self.line(line))
    }

    fn line(&mut self, line: &[u8]) -> Result<(), RecorderError> {
        self.position += line.len() as u64;
        self.last_ms = peek(line).map_or(self.last_ms, |peeked| peeked.time_ms);
        if !self.witness.line(line) {
            return Err(RecorderError::Altered(self.id.clone()));
        }
        (self.take)(Part::Line(line))
    }

    /// Says in recording and evidence that lines before `position` are lost.
    fn gap(&mut self, position: u64) -> Result<(), RecorderError> {
        let Some(missing) = position.checked_sub(self.position).filter(|missing| *missing > 0) else {
            return Ok(());
        };
        self.witness.lost();
        let mut mark = Vec::new();
        let text = format!("{missing} bytes of this recording were lost here");
        encode_event(&mut mark, self.last_ms, EventCode::Marker, &text);
        (self.take)(Part::Line(&mark))?;
        (self.take)(Part::Lost(missing))?;
        self.position = position;
        Ok(())
    }
}

/// Whether the first frame has a checksum: only sealed files' frames do.
fn start(path: &Path) -> std::io::Result<Option<bool>> {
    let mut start = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut start)?;
    Ok(frames::has_checksum(&start))
}

/// Removes an empty file; puts any other out of the way, where nothing signs it.
fn set_aside(house: &House, id: &SessionId, why: &str) -> std::io::Result<()> {
    let path = house.spool.path(id);
    if fs::metadata(&path)?.len() == 0 {
        Checkpoint::remove(&path);
        return fs::remove_file(path);
    }
    tracing::error!(%id, why, "a recording in the spool is not sealed, but set aside as .broken");
    house.metrics.recorder_errors.inc();
    house.count_recording("failed");
    house.spool.set_aside(id)
}

fn lost_header(id: &SessionId) -> Header {
    let mut header = Header::new(0);
    header.title = Some("the header of this recording was lost".into());
    let session = serde_json::Value::String(id.to_string());
    header.postern = Some(serde_json::Map::from_iter([("session".to_owned(), session)]));
    header
}
