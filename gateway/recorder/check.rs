//! Compares the data frames of a sealed file with its evidence.

use std::ops::Range;

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use zstd::bulk::Decompressor;

use super::evidence::{Chain, Segment};
use super::frames;
use super::trailer::Trailer;
use super::verify::{Bytes, Damage};

/// Largest frame that is read, compressed or not: four of ours.
pub(super) const FRAME_MAX: u32 = 4 << 20;

/// Checks every frame and every segment, in order.
pub(super) fn check_frames(bytes: &Bytes, trailer: &Trailer) -> Result<(), Damage> {
    let decoder = Decompressor::new().map_err(|error| Damage::at(0..0, error.to_string()))?;
    let evidence = &trailer.evidence;
    let events: u64 = evidence.segments.iter().map(|segment| segment.bytes).sum();
    let header = evidence.totals.bytes.saturating_sub(events);
    let mut check = Check {
        bytes,
        trailer,
        decoder,
        chain: Chain::new(),
        at: 0,
        from: 0,
        framed: 0,
        segment: 0,
        good: header,
    };
    let mut compressed = Context::new(&SHA256);
    for (number, frame) in evidence.frames.iter().enumerate() {
        compressed.update(&check.frame(frame)?);
        check.head(number)?;
    }
    if check.at != trailer.place.start {
        return Err(Damage::at(check.at..trailer.place.start, "bytes were added here"));
    }
    check.end(&HEXLOWER.encode(compressed.finish().as_ref()))
}

struct Check<'a> {
    bytes: &'a Bytes,
    trailer: &'a Trailer,
    decoder: Decompressor<'static>,
    chain: Chain,
    /// Where the next frame begins in the file.
    at: u64,
    /// Where its lines begin among all lines.
    from: u64,
    /// How many lines the frames before hold.
    framed: u64,
    /// The next segment to be closed.
    segment: usize,
    /// Up to where among all lines closed segments are right.
    good: u64,
}

impl Check<'_> {
    /// Checks one frame; gives its bytes.
    fn frame(&mut self, (size, lines, hash): &(u32, u32, String)) -> Result<Vec<u8>, Damage> {
        let place = self.at..self.at + u64::from(*size);
        let range = self.from..self.from + u64::from(*lines);
        if *size > FRAME_MAX || *lines > FRAME_MAX {
            return Err(Damage::at(place, "a frame is larger than the gateway makes them"));
        }
        if place.end > self.trailer.place.start {
            let rest = place.start..self.trailer.place.start;
            return Err(self.inside(rest, &range, "bytes are missing"));
        }
        let frame = self.bytes.read(place.start, u64::from(*size))?;
        let text = self.decoder.decompress(&frame, *lines as usize).ok();
        let text = text.filter(|text| text.len() == *lines as usize && text.ends_with(b"\n"));
        let intact = frames::hash(&frame) == *hash;
        match text {
            None => {
                return Err(self.inside(place, &range, "a frame cannot be decompressed as it was sealed"));
            }
            Some(text) => self.lines(&text, &place, &range, intact)?,
        }
        (self.at, self.from) = (place.end, range.end);
        Ok(frame)
    }

    /// Follows the chain through the lines of a frame.
    fn lines(
        &mut self,
        text: &[u8],
        place: &Range<u64>,
        range: &Range<u64>,
        intact: bool,
    ) -> Result<(), Damage> {
        for line in text.split_inclusive(|b| *b == b'\n') {
            if let Some(closed) = self.chain.line(line)
                && !self.closed(&closed)
            {
                let suspect = self.good..self.good + closed.bytes;
                return Err(self.inside(place.clone(), &suspect, "lines are not those of the hash chain"));
            }
        }
        if intact {
            return Ok(());
        }
        let suspect = self.good.min(range.end.saturating_sub(1))..range.end;
        Err(self.inside(place.clone(), &suspect, "a frame is not as it was sealed"))
    }

    /// Whether the chain stands after a frame where the evidence says.
    fn head(&mut self, number: usize) -> Result<(), Damage> {
        let heads = &self.trailer.evidence.frame_heads;
        let (lines, head) = self.chain.stand();
        let found = (lines - self.framed, head);
        self.framed = lines;
        // Older evidence says it of no frame.
        if heads.is_empty() || heads.get(number) == Some(&found) {
            return Ok(());
        }
        let what = format!("the evidence says other lines or another head of the chain of frame {number}");
        Err(Damage::at(self.trailer.place.clone(), what))
    }

    /// Whether a closed segment is the one the evidence has.
    fn closed(&mut self, closed: &Segment) -> bool {
        let right = self.trailer.evidence.segments.get(self.segment) == Some(closed);
        if right {
            self.segment += 1;
            self.good += closed.bytes;
        }
        right
    }

    /// Checks the last segment, the sums and the hashes over everything.
    fn end(mut self, compressed: &str) -> Result<(), Damage> {
        let evidence = &self.trailer.evidence;
        let last = self.chain.close();
        let well = last.is_none_or(|last| self.closed(&last));
        let (totals, header, all) = self.chain.sums();
        let heads = evidence.frame_heads.len();
        let same = well
            && (heads == 0 || heads == evidence.frames.len())
            && self.segment == evidence.segments.len()
            && totals == evidence.totals
            && header == evidence.header
            && all == evidence.lines_sha256
            && compressed == evidence.compressed_sha256;
        if same { Ok(()) } else { Err(Damage::at(0..self.at, "the lines are not those of the evidence")) }
    }

    /// Damage in a range of all lines, as line numbers and times.
    fn inside(&self, bytes: Range<u64>, range: &Range<u64>, what: &str) -> Damage {
        let evidence = &self.trailer.evidence;
        let events: u64 = evidence.segments.iter().map(|segment| segment.bytes).sum();
        let mut start = evidence.totals.bytes.saturating_sub(events);
        let (mut line, mut time) = (if range.start < start { 1 } else { 2 }, 0);
        let (mut lines, mut times): (Option<Range<u64>>, Option<Range<u64>>) = (None, None);
        for segment in &evidence.segments {
            let end = start + segment.bytes;
            if start < range.end && range.start < end {
                let end_line = 2.max(line) + segment.lines;
                lines = Some(lines.map_or(line, |known| known.start)..end_line);
                times = Some(times.map_or(time, |known| known.start)..segment.until_ms);
            }
            line = 2.max(line) + segment.lines;
            (start, time) = (end, segment.until_ms);
        }
        Damage { bytes, lines, times_ms: times, what: what.to_owned() }
    }
}
