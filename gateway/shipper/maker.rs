//! Makes the next events of one session out of its lines.
//!
//! A *round* is what is sent together: one segment of the recording and the
//! transcript of the same lines. The same lines from the same cursor always
//! make the same round.

use bytes::Bytes;

use super::batch::LogEvent;
use super::cursor::Cursor;
use super::event::{About, Happened, What};
use super::readable::Readable;
use super::segment::{self, Holds, Place};
use super::{Forms, ShipperError};
use crate::asciicast::{Header, peek};
use crate::recorder::{Backlog, Batch, Evidence, Feed, Frames, Head, RecorderError};
use crate::session::SessionId;

/// Lines of one round, bytes, if so many are there.
const ROUND: usize = 512 * 1024;
/// Permits of the largest round, a frame of 4 MB.
const PERMITS_MAX: u32 = 8;

/// What is sent together.
pub(super) struct Round {
    /// The events, unordered.
    pub(super) events: Vec<LogEvent>,
    /// Size of their messages.
    pub(super) bytes: usize,
    /// How many events of the same round are stored already.
    pub(super) stored: usize,
    /// The cursor to be written before.
    pub(super) plan: Cursor,
    /// The cursor once all of it is stored.
    pub(super) after: Cursor,
    /// Whether it is the session's last.
    pub(super) last: bool,
}

/// What there is to send.
pub(super) enum Next {
    /// This.
    Round(Box<Round>),
    /// One for which more permits are needed; see [`Maker::permits`].
    Larger,
    /// Nothing now.
    Nothing,
    /// The recording is not in the spool any more.
    Gone,
}

/// Reads one session's lines; blocks while it does.
pub(super) struct Maker {
    feed: Feed,
    id: SessionId,
    region: String,
    forms: Forms,
    cursor: Cursor,
    /// Where lines are read from while the session is behind.
    source: Option<Backlog>,
    /// The frames of a sealed recording that are shipped as they are.
    frames: Option<Frames>,
    /// Whether it is known which frames, or that there are none.
    looked: bool,
    /// How many events of the planned frame are stored.
    stored: usize,
    readable: Option<Readable>,
}

impl Maker {
    /// A maker that goes on at that cursor.
    pub(super) fn new(feed: Feed, id: SessionId, region: String, forms: Forms, cursor: Cursor) -> Self {
        let (source, frames, readable) = (None, None, None);
        Self { feed, id, region, forms, cursor, source, frames, looked: false, stored: 0, readable }
    }

    /// The next round: of lines that were offered, else of the spool.
    ///
    /// `whole` says that lines may be in the spool that were not offered.
    pub(super) fn next(
        &mut self,
        offered: Vec<Batch>,
        whole: bool,
        permits: u32,
    ) -> Result<Next, ShipperError> {
        if self.readable.is_none() && !self.resume()? {
            return Ok(Next::Gone);
        }
        let offers = offered.last().is_some_and(|last| last.next_line() > self.cursor.line);
        if self.source.is_none()
            && self.cursor.until.is_none()
            && let Some(batch) = join(offered, self.cursor.line)
        {
            return self.round(&batch).map(Next::round);
        }
        if self.source.is_none() && !whole && !offers {
            return Ok(Next::Nothing);
        }
        self.look_for_frames()?;
        if self.at_frame()? {
            return if self.permits() > permits { Ok(Next::Larger) } else { self.frame_round() };
        }
        if let Some(batch) = self.pull()? {
            self.leave_spool(&batch)?;
            return self.round(&batch).map(Next::round);
        }
        self.source = None;
        match self.feed.evidence(&self.id)? {
            None => Ok(Next::Nothing),
            Some(evidence) if evidence.totals.lines > self.cursor.line => {
                self.next(Vec::new(), true, permits)
            }
            Some(evidence) if evidence.totals.lines < self.cursor.line => {
                self.start_over("the sealed recording has fewer lines than were shipped");
                self.next(Vec::new(), true, permits)
            }
            Some(evidence) => self.last_round(&evidence).map(Next::round),
        }
    }

    /// Whether there may be more in the spool than what is offered.
    pub(super) fn is_behind(&self) -> bool {
        self.source.is_some() || self.frames.is_some()
    }

    /// How many permits the next round needs: one for each [`ROUND`] of it.
    pub(super) fn permits(&self) -> u32 {
        let frames = self.frames.as_ref().filter(|_| self.source.is_none());
        let size = frames.map_or(0, |frames| frames.size_of(self.cursor.line));
        u32::try_from(size.div_ceil(ROUND)).unwrap_or(PERMITS_MAX).clamp(1, PERMITS_MAX)
    }

    /// How many lines are shipped.
    pub(super) fn line(&self) -> u64 {
        self.cursor.line
    }

    /// A round is stored.
    pub(super) fn stored(&mut self, round: &Round) {
        self.cursor = round.after.clone();
        self.stored = 0;
    }

    /// A round could not be sent and was given up; it is made again later.
    ///
    /// Of a frame the parts that are stored are not sent again.
    pub(super) fn given_up(&mut self, round: &Round) {
        self.cursor = round.plan.clone();
        self.leave_place();
        self.stored = if round.plan.packed { round.stored } else { 0 };
    }

    /// Reads the header and, after a restart, what has been shipped.
    ///
    /// Where a frame begins, its evidence says where the chain stands.
    fn resume(&mut self) -> Result<bool, ShipperError> {
        let Some(mut backlog) = self.feed.lines_from(&self.id, 0)? else { return Ok(false) };
        let Some(first) = backlog.next_until(1, 1)? else { return Ok(false) };
        let header = Header::parse(&first.lines).map_err(RecorderError::from)?;
        let about = About::of(&self.id, &self.region, &header);
        let mut readable = Readable::of(about, &header, self.forms.transcript);
        self.look_for_frames()?;
        let known = self.frames.as_ref().and_then(|frames| frames.head_before(self.cursor.line));
        if self.cursor.line > 0 && known.is_none() {
            readable.follow(&first.lines);
            let (mut line, mut head) = (first.next_line(), first.chain);
            while let Some(batch) = backlog.next_until(ROUND, self.cursor.line)? {
                readable.follow(&batch.lines);
                (line, head) = (batch.next_line(), batch.chain);
            }
            if (line, head) != (self.cursor.line, self.cursor.head) {
                self.start_over("the spool does not hold the lines that were shipped");
                return self.resume();
            }
            self.source = Some(backlog);
        }
        self.readable = Some(readable);
        Ok(true)
    }

    /// Begins a new run: everything is shipped again.
    fn start_over(&mut self, why: &str) {
        tracing::warn!(session = %self.id, why, "the session is shipped again from its beginning");
        let run = self.cursor.run;
        self.cursor = Cursor::fresh();
        self.cursor.run = self.cursor.run.max(run + 1);
        self.leave_place();
    }

    /// Forgets where it was in the spool, and what is known of that.
    fn leave_place(&mut self) {
        (self.source, self.frames, self.readable) = (None, None, None);
        (self.looked, self.stored) = (false, 0);
    }

    /// Finds the frames if the recording is sealed and no lines are needed.
    fn look_for_frames(&mut self) -> Result<(), ShipperError> {
        let wanted = self.forms.recording && !self.forms.transcript;
        if wanted && !self.looked && self.feed.is_sealed(&self.id)? {
            self.frames = self.feed.frames(&self.id);
            self.looked = true;
        }
        Ok(())
    }

    /// Whether the next round is a frame: it begins at the cursor.
    ///
    /// What was planned as lines is shipped as lines: some of it may be
    /// stored.
    fn at_frame(&mut self) -> Result<bool, ShipperError> {
        let line = self.cursor.line;
        let frames = self.frames.as_ref().filter(|_| self.source.is_none());
        let head = frames.and_then(|frames| frames.head_before(line));
        if head.is_some_and(|head| head != self.cursor.head) {
            self.start_over("the sealed recording has other lines than were shipped");
            return Ok(self.resume()? && self.at_frame()?);
        }
        let end = head.and_then(|_| frames.and_then(|frames| frames.end_of(line)));
        let end = end.and_then(|end| Some((end, frames?.head_before(end)?)));
        let at = match self.cursor.until {
            Some(_) if self.cursor.packed => end == self.cursor.until,
            Some(_) => false,
            None => end.is_some(),
        };
        if self.cursor.packed && !at {
            self.start_over("the frame that was to be shipped is not in the spool");
            return Ok(self.resume()? && self.at_frame()?);
        }
        Ok(at)
    }

    /// The frame at the cursor, as it is in the sealed file.
    fn frame_round(&mut self) -> Result<Next, ShipperError> {
        let frames = self.frames.as_ref().map(|frames| frames.read(self.cursor.line));
        let (Some(frame), Some(readable)) = (frames.transpose()?.flatten(), &self.readable) else {
            return Ok(Next::Gone);
        };
        let at_ms = readable.about().at(frame.until_ms);
        let place = Place {
            run: self.cursor.run,
            segment: self.cursor.segment,
            first_line: frame.first_line,
            lines: frame.count,
            before: self.cursor.head,
            after: frame.chain,
        };
        let until = Some((frame.first_line + frame.count, frame.chain));
        let mut round = self.make(Vec::new(), (Holds::Lines, &frame.bytes), (place, at_ms, until))?;
        round.plan.packed = true;
        round.stored = self.stored;
        round.events.drain(..self.stored.min(round.events.len()));
        Ok(Next::round(round))
    }

    /// The next lines of the spool, up to where a plan ends if there is one.
    ///
    /// Else to the end of a frame, if frames are shipped from there on.
    fn pull(&mut self) -> Result<Option<Batch>, ShipperError> {
        let line = self.cursor.line;
        if self.frames.as_ref().is_some_and(|frames| frames.lines() <= line) {
            return Ok(None);
        }
        let mut source = match self.source.take() {
            Some(source) => source,
            None => match self.feed.lines_from(&self.id, line)? {
                Some(source) => source,
                None => return Ok(None),
            },
        };
        let (enough, until) = match self.cursor.until {
            Some((until, _)) => (usize::MAX, until),
            None => (ROUND, self.frames.as_ref().and_then(|frames| frames.end_of(line)).unwrap_or(u64::MAX)),
        };
        let batch = source.next_until(enough, until)?;
        let reached = batch.as_ref().map(|batch| (batch.next_line(), batch.chain));
        if self.cursor.until.is_some() && reached != self.cursor.until {
            self.start_over("lines that were to be shipped are lost");
            return if self.resume()? { self.pull() } else { Ok(None) };
        }
        let known =
            self.frames.as_ref().zip(reached).and_then(|(frames, (line, _))| frames.head_before(line));
        match reached {
            // Where a frame begins lines are read no more.
            Some((_, chain)) if known == Some(chain) => {}
            Some((line, _)) if known.is_some() => {
                let what = format!(
                    "lines of {} before line {line} are not those of its evidence; check it with postern verify",
                    self.id
                );
                return Err(RecorderError::Failed(what).into());
            }
            _ => self.source = Some(source),
        }
        Ok(batch)
    }

    /// Reads on in the spool only while there was more than a round at once.
    ///
    /// What comes after that is offered. A sealed recording is read to its
    /// end, as its evidence is still to come.
    fn leave_spool(&mut self, batch: &Batch) -> Result<(), ShipperError> {
        let drained = self.source.is_some() && batch.lines.len() < ROUND && self.cursor.until.is_none();
        if drained && self.feed.evidence(&self.id)?.is_none() {
            self.source = None;
        }
        Ok(())
    }

    fn round(&mut self, batch: &Batch) -> Result<Round, ShipperError> {
        let packed = self.pack(&batch.lines)?;
        let Some(readable) = &mut self.readable else {
            return Err(ShipperError::Config("no header was read".to_owned()));
        };
        let place = Place {
            run: self.cursor.run,
            segment: self.cursor.segment,
            first_line: batch.first_line,
            lines: batch.count,
            before: self.cursor.head,
            after: batch.chain,
        };
        let happened = readable.follow(&batch.lines);
        let last_ms = batch.lines.trim_ascii_end().rsplit(|byte| *byte == b'\n').find_map(peek);
        let at_ms = readable.about().at(last_ms.map_or(0, |last| last.time_ms));
        let until = Some((batch.next_line(), batch.chain));
        self.make(happened, (Holds::Lines, &packed), (place, at_ms, until))
    }

    /// Bytes of a segment as a frame; none if no recording is shipped.
    fn pack(&self, bytes: &[u8]) -> Result<Vec<u8>, ShipperError> {
        let packed = if self.forms.recording { segment::pack(bytes) } else { Ok(Vec::new()) };
        packed.map_err(ShipperError::io(format!("encode {}", self.id)))
    }

    fn last_round(&mut self, evidence: &Evidence) -> Result<Round, ShipperError> {
        let Some(readable) = &mut self.readable else {
            return Err(ShipperError::Config("no header was read".to_owned()));
        };
        let mut happened = readable.finish();
        if self.forms.transcript {
            let what = What::End(evidence.end.reason.clone(), self.feed.sha256(&self.id)?);
            happened.push(Happened { time_ms: evidence.end.at_ms, what });
        }
        let at_ms = readable.about().at(evidence.end.at_ms);
        let head = self.cursor.head;
        let place = Place {
            run: self.cursor.run,
            segment: self.cursor.segment,
            first_line: self.cursor.line,
            lines: 0,
            before: head,
            after: head,
        };
        let json = serde_json::to_vec(evidence).map_err(std::io::Error::other);
        let packed = self.pack(&json.map_err(ShipperError::io("write the evidence"))?)?;
        let round = self.make(happened, (Holds::Seal, &packed), (place, at_ms, None))?;
        Ok(Round { last: true, ..round })
    }

    fn make(
        &self,
        happened: Vec<Happened>,
        (holds, packed): (Holds, &[u8]),
        (place, at_ms, until): (Place, i64, Option<(u64, Head)>),
    ) -> Result<Round, ShipperError> {
        let failed = |error: serde_json::Error| ShipperError::io(format!("encode {}", self.id))(error.into());
        let mut events = Vec::new();
        if let Some(readable) = &self.readable {
            let made = readable.about().events(&happened, self.cursor.sequence);
            events = made.map_err(failed)?;
        }
        if self.forms.recording {
            events.extend(segment::encode(self.id.as_str(), at_ms, (holds, packed), &place).map_err(failed)?);
        }
        let after = Cursor {
            run: place.run,
            segment: place.segment + 1,
            line: place.first_line + place.lines,
            head: place.after,
            until: None,
            packed: false,
            sequence: self.cursor.sequence + happened.len() as u64,
        };
        let plan = Cursor { until, ..self.cursor.clone() };
        let bytes = events.iter().map(|event| event.message.len()).sum();
        Ok(Round { events, bytes, stored: 0, plan, after, last: false })
    }
}

impl Next {
    fn round(round: Round) -> Self {
        Self::Round(Box::new(round))
    }
}

/// Batches that follow each other from `line` on, as one.
fn join(batches: Vec<Batch>, line: u64) -> Option<Batch> {
    let mut parts: Vec<Batch> = Vec::new();
    let mut next = line;
    for batch in batches {
        let Some(batch) = batch.after(next) else { continue };
        if batch.first_line != next {
            break;
        }
        next = batch.next_line();
        parts.push(batch);
    }
    let last = parts.last()?.chain;
    if parts.len() == 1 {
        return parts.pop();
    }
    let lines: Vec<&[u8]> = parts.iter().map(|batch| batch.lines.as_ref()).collect();
    Some(Batch { first_line: line, count: next - line, lines: Bytes::from(lines.concat()), chain: last })
}
