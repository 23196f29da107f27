//! The end of a sealed file: the evidence and the seek table.

use std::ops::Range;

use super::evidence::{EVIDENCE_MAX, Evidence, SKIPPABLE};
use super::seek_table::{self, FOOTER};
use super::verify::{Bytes, Damage};
use super::{PublicKey, frames, seal};

/// Magic of a zstd frame.
const ZSTD: u32 = 0xFD2F_B528;
/// Block type of a run of one byte: its content takes one byte.
const RLE_BLOCK: u32 = 1;

/// The evidence and where its frame is.
pub(super) struct Trailer {
    /// The evidence, in canonical form.
    pub(super) evidence: Evidence,
    /// Where its frame is in the file.
    pub(super) place: Range<u64>,
}

impl Trailer {
    /// Finds the evidence; `None` in a file that was never sealed.
    ///
    /// It is looked up through the seek table and, if that is damaged, by
    /// walking over the frames from the start.
    pub(super) fn find(bytes: &Bytes) -> Result<Option<Self>, Damage> {
        if let Some(place) = by_seek_table(bytes)? {
            return Self::read(bytes, place).map(Some);
        }
        let walked = by_walk(bytes);
        if let Ok(place) = walked {
            return Self::read(bytes, place).map(Some);
        }
        let start = bytes.read(0, bytes.length.min(8))?;
        match (frames::has_checksum(&start), walked) {
            (Some(false), _) => Ok(None),
            (Some(true), Err(broken)) => Err(broken),
            _ => Err(Damage::at(0..bytes.length, "it does not begin like a recording")),
        }
    }

    /// Whether it is of a version that this program knows.
    pub(super) fn check_version(&self) -> Result<(), Damage> {
        if self.evidence.format != "postern-evidence" || self.evidence.version != 1 {
            return Err(Damage::at(self.place.clone(), "its evidence is of an unknown version"));
        }
        Ok(())
    }

    /// Whether a trusted key signed it.
    pub(super) fn check_signature(&self, trusted: &[PublicKey]) -> Result<(), Damage> {
        self.check_version()?;
        let evidence = &self.evidence;
        let wrong = |what: String| Err(Damage::at(self.place.clone(), what));
        let Some(key) = trusted.iter().find(|key| key.id() == evidence.key_id) else {
            return wrong(format!("it is signed by key {:?}, which is not trusted", evidence.key_id));
        };
        if !evidence.signed_by(key) {
            return wrong("the evidence was altered: its signature does not match".into());
        }
        Ok(())
    }

    /// Whether the seek table and nothing else follows.
    pub(super) fn check_table(&self, bytes: &Bytes) -> Result<(), Damage> {
        let size = self.place.end - self.place.start;
        let expected = seek_table::encode(&seal::entries(&self.evidence, size as usize));
        let at = self.place.end;
        let found = bytes.read(at, (bytes.length - at).min(expected.len() as u64))?;
        same(at, &found, &expected, "the seek table")?;
        let end = at + expected.len() as u64;
        if bytes.length > end {
            return Err(Damage::at(end..bytes.length, "bytes were added at the end"));
        }
        Ok(())
    }

    fn read(bytes: &Bytes, place: Range<u64>) -> Result<Self, Damage> {
        let altered = |what: &str| Damage::at(place.clone(), format!("the evidence was altered: {what}"));
        let size = place.end - place.start;
        if size > EVIDENCE_MAX {
            return Err(altered("it is too long"));
        }
        let frame = bytes.read(place.start, size)?;
        let json = frame.get(8..).unwrap_or_default();
        let evidence: Evidence = serde_json::from_slice(json).map_err(|error| altered(&error.to_string()))?;
        let canonical = evidence.to_frame().map_err(|error| altered(&error.to_string()))?;
        same(place.start, &frame, &canonical, "the evidence")?;
        Ok(Self { evidence, place })
    }
}

/// Where the evidence is if the seek table is right.
fn by_seek_table(bytes: &Bytes) -> Result<Option<Range<u64>>, Damage> {
    let Some(footer_at) = bytes.length.checked_sub(FOOTER as u64) else { return Ok(None) };
    let footer = bytes.read(footer_at, FOOTER as u64)?;
    let frames = footer.first_chunk().and_then(seek_table::frames_in_footer);
    let Some(size) = frames.map(seek_table::size).filter(|size| *size <= bytes.length) else {
        return Ok(None);
    };
    let table_at = bytes.length - size;
    let table = bytes.read(table_at, size)?;
    let Some((evidence, 0)) = seek_table::entries(&table).last().copied() else { return Ok(None) };
    let Some(at) = table_at.checked_sub(u64::from(evidence)) else { return Ok(None) };
    let found = evidence >= 8 && bytes.number(at)? == SKIPPABLE;
    Ok(found.then_some(at..table_at))
}

/// Where the evidence is if all frames before it are whole.
fn by_walk(bytes: &Bytes) -> Result<Range<u64>, Damage> {
    let mut at = 0;
    loop {
        if at == bytes.length {
            return Err(Damage::at(at..at, "the evidence was cut off"));
        }
        match bytes.number(at)? {
            ZSTD => at = frame_end(bytes, at)?,
            SKIPPABLE => return Ok(at..at + 8 + u64::from(bytes.number(at + 4)?)),
            _ => return Err(Damage::at(at..bytes.length, "no frame begins here")),
        }
    }
}

/// Where a zstd frame ends, by its block headers (RFC 8878, section 3.1.1).
fn frame_end(bytes: &Bytes, start: u64) -> Result<u64, Damage> {
    let descriptor = bytes.read(start + 4, 1)?.first().copied().unwrap_or_default();
    let single = descriptor >> 5 & 1;
    let window = u64::from(1 - single);
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied().unwrap_or_default();
    let size = match descriptor >> 6 {
        0 => u64::from(single),
        power => 1 << power,
    };
    let mut at = start + 5 + window + dictionary + size;
    loop {
        let header = bytes.read(at, 3)?;
        let number = header.iter().rev().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        let content = if number >> 1 & 3 == RLE_BLOCK { 1 } else { number >> 3 };
        at += 3 + u64::from(content);
        if number & 1 == 1 {
            break;
        }
    }
    let end = at + u64::from(descriptor >> 2 & 1) * 4;
    if end > bytes.length {
        return Err(Damage::at(start..bytes.length, "a frame is cut off"));
    }
    Ok(end)
}

/// Says where bytes first differ from what they must be.
fn same(at: u64, found: &[u8], expected: &[u8], what: &str) -> Result<(), Damage> {
    if found == expected {
        return Ok(());
    }
    let common = found.iter().zip(expected).take_while(|(a, b)| a == b).count() as u64;
    let end = (found.len() as u64).max(common + 1);
    Err(Damage::at(at + common..at + end, format!("{what} was altered")))
}
