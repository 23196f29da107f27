//! Puts together what a crash or an error left, and seals it.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::evidence::Ending;
use super::journal::Index;
use super::read::{LineReader, ReadError};
use super::seal::{Seal, Sealed};
use super::{House, RecorderError, frames, is_sealed};
use crate::asciicast::{EventCode, Header, encode_event, peek};
use crate::session::SessionId;

/// Seals every open recording of an earlier process.
///
/// Gives the number of the first journal segment that is free. A recording
/// that cannot be recovered now stays as it is, with the journal.
pub(super) fn recover(house: &House) -> Result<u64, RecorderError> {
    let failed = || RecorderError::io("recover the spool");
    house.spool.remove_drafts().map_err(failed())?;
    let numbers = house.spool.journal_numbers().map_err(failed())?;
    let index = Index::read(&house.spool).map_err(failed())?;
    let mut all_well = true;
    for id in house.spool.ids().map_err(failed())? {
        let path = house.spool.path(&id);
        if is_sealed(&path).map_err(RecorderError::io(format!("read {}", path.display())))? {
            continue;
        }
        all_well &= recover_one(house, &id, &index);
    }
    if all_well {
        for number in &numbers {
            fs::remove_file(house.spool.journal_path(*number)).map_err(failed())?;
        }
    }
    Ok(numbers.last().map_or(1, |last| last + 1))
}

/// Seals one; says whether its journal is needed no more.
fn recover_one(house: &House, id: &SessionId, index: &Index) -> bool {
    let reason = "gateway stopped".to_owned();
    let ending = Ending { reason, at_ms: 0, recovered: true, missing_bytes: 0 };
    match assemble(house, id, index, ending) {
        Ok(Some(_)) => {
            tracing::warn!(%id, "recovered a recording that was not sealed");
            house.count_recording("recovered");
            true
        }
        Ok(None) => true,
        Err(error) => {
            house.report(&error.to_string());
            house.count_recording("failed");
            false
        }
    }
}

/// Seals what file and journal have of a recording that failed.
pub(super) fn salvage(house: &House, id: &SessionId, ending: Ending) -> Result<Sealed, RecorderError> {
    let index = Index::read(&house.spool).map_err(RecorderError::io("read the journal"))?;
    let sealed = assemble(house, id, &index, ending)?;
    sealed.ok_or_else(|| RecorderError::Failed("nothing of it is on disk".into()))
}

/// Joins file and journal; `None` if there is nothing to join.
fn assemble(
    house: &House,
    id: &SessionId,
    index: &Index,
    ending: Ending,
) -> Result<Option<Sealed>, RecorderError> {
    let path = house.spool.path(id);
    let failed = || RecorderError::io(format!("recover {}", path.display()));
    let first = index.places(id).first();
    let checksum = start(&path).map_err(failed())?;
    // A sealed file that was cut must never be signed again.
    if checksum == Some(true) || checksum.is_none() && first.is_none() {
        return set_aside(house, id, &path).map_err(failed());
    }
    let mut seal = Seal::begin(house, id, ending)?;
    let file = File::open(&path).map_err(failed())?;
    let mut join = Join { seal: &mut seal, position: 0, last_ms: 0 };
    join.file(file)?;
    if join.position == 0 {
        let mut header = Vec::new();
        lost_header(id).write(&mut header)?;
        join.seal.line(&header)?;
        join.position = first.map_or(0, |place| place.position);
    }
    for place in index.places(id) {
        if place.position + u64::from(place.length) > join.position {
            join.gap(place.position)?;
            let lines = place.read_from(&house.spool, join.position).map_err(failed())?;
            join.lines(&lines)?;
        }
    }
    seal.finish().map(Some)
}

/// Adds lines to a seal and knows where in the stream of lines it is.
struct Join<'a, 'b> {
    seal: &'a mut Seal<'b>,
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
        self.seal.line(line)
    }

    /// Says in recording and evidence that lines before `position` are lost.
    fn gap(&mut self, position: u64) -> Result<(), RecorderError> {
        let Some(missing) = position.checked_sub(self.position).filter(|missing| *missing > 0) else {
            return Ok(());
        };
        let mut mark = Vec::new();
        let text = format!("{missing} bytes of this recording were lost here");
        encode_event(&mut mark, self.last_ms, EventCode::Marker, &text);
        self.seal.line(&mark)?;
        self.seal.lost(missing);
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

/// Removes an empty file; puts one that is no recording out of the way.
fn set_aside(house: &House, id: &SessionId, path: &Path) -> std::io::Result<Option<Sealed>> {
    if fs::metadata(path)?.len() == 0 {
        fs::remove_file(path)?;
        return Ok(None);
    }
    tracing::error!(%id, "a file in the spool is no open recording; set aside as .broken");
    house.metrics.recorder_errors.inc();
    house.count_recording("failed");
    house.spool.set_aside(id)?;
    Ok(None)
}

fn lost_header(id: &SessionId) -> Header {
    let mut header = Header::new(0);
    header.title = Some("the header of this recording was lost".into());
    let session = serde_json::Value::String(id.to_string());
    header.postern = Some(serde_json::Map::from_iter([("session".to_owned(), session)]));
    header
}
