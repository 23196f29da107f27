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
use crate::recorder::{Backlog, Batch, Evidence, Feed, Head, Links, RecorderError};
use crate::session::SessionId;

/// Lines of one round, bytes, if so many are there.
const ROUND: usize = 512 * 1024;

/// What is sent together.
pub(super) struct Round {
    /// The events, unordered.
    pub(super) events: Vec<LogEvent>,
    /// Size of their messages.
    pub(super) bytes: usize,
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
    source: Option<Source>,
    readable: Option<Readable>,
}

/// Where lines are read from while the session is behind.
struct Source {
    backlog: Backlog,
    /// Lines that were read and belong to a later round.
    left: Option<Batch>,
}

impl Maker {
    /// A maker that goes on at that cursor.
    pub(super) fn new(feed: Feed, id: SessionId, region: String, forms: Forms, cursor: Cursor) -> Self {
        Self { feed, id, region, forms, cursor, source: None, readable: None }
    }

    /// The next round: of lines that were offered, else of the spool.
    ///
    /// `whole` says that lines may be in the spool that were not offered.
    pub(super) fn next(&mut self, offered: Vec<Batch>, whole: bool) -> Result<Next, ShipperError> {
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
        if let Some(batch) = self.pull()? {
            self.leave_spool(&batch)?;
            return self.round(&batch).map(Next::round);
        }
        self.source = None;
        match self.feed.evidence(&self.id)? {
            None => Ok(Next::Nothing),
            Some(evidence) if evidence.totals.lines > self.cursor.line => self.next(Vec::new(), true),
            Some(evidence) if evidence.totals.lines < self.cursor.line => {
                self.start_over("the sealed recording has fewer lines than were shipped");
                self.next(Vec::new(), true)
            }
            Some(evidence) => self.last_round(&evidence).map(Next::round),
        }
    }

    /// Whether there may be more in the spool than what is offered.
    pub(super) fn is_behind(&self) -> bool {
        self.source.is_some()
    }

    /// How many lines are shipped.
    pub(super) fn line(&self) -> u64 {
        self.cursor.line
    }

    /// A round is stored.
    pub(super) fn stored(&mut self, round: &Round) {
        self.cursor = round.after.clone();
    }

    /// A round could not be sent and was given up; it is made again later.
    pub(super) fn given_up(&mut self, round: &Round) {
        self.cursor = round.plan.clone();
        (self.source, self.readable) = (None, None);
    }

    /// Reads the header and, after a restart, what has been shipped.
    fn resume(&mut self) -> Result<bool, ShipperError> {
        let Some(mut backlog) = self.feed.lines_from(&self.id, 0)? else { return Ok(false) };
        let Some(first) = backlog.next(ROUND)? else { return Ok(false) };
        let header = first.lines.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        let header = Header::parse(header).map_err(RecorderError::from)?;
        let about = About::of(&self.id, &self.region, &header);
        let mut readable = Readable::of(about, &header, self.forms.transcript);
        let (mut links, mut left) = (Links::new(), Some(first));
        while links.lines() < self.cursor.line {
            let batch = match left.take() {
                Some(batch) => Some(batch),
                None => backlog.next(ROUND)?,
            };
            let Some(batch) = batch else { break };
            let (before, after) = cut(batch, self.cursor.line);
            if let Some(before) = before {
                links.extend(&before.lines);
                readable.follow(&before.lines);
            }
            left = after;
        }
        if links.lines() != self.cursor.line || links.head() != self.cursor.head {
            self.start_over("the spool does not hold the lines that were shipped");
            return self.resume();
        }
        self.source = Some(Source { backlog, left });
        self.readable = Some(readable);
        Ok(true)
    }

    /// Begins a new run: everything is shipped again.
    fn start_over(&mut self, why: &str) {
        tracing::warn!(session = %self.id, why, "the session is shipped again from its beginning");
        let run = self.cursor.run;
        self.cursor = Cursor::fresh();
        self.cursor.run = self.cursor.run.max(run + 1);
        (self.source, self.readable) = (None, None);
    }

    /// The next lines of the spool, up to where a plan ends if there is one.
    fn pull(&mut self) -> Result<Option<Batch>, ShipperError> {
        let mut source = match self.source.take() {
            Some(source) => source,
            None => match self.feed.lines_from(&self.id, self.cursor.line)? {
                Some(backlog) => Source { backlog, left: None },
                None => return Ok(None),
            },
        };
        let mut pulled: Vec<Batch> = Vec::new();
        let mut end = self.cursor.line;
        loop {
            let next = match source.left.take() {
                Some(batch) => Some(batch),
                None => source.backlog.next(ROUND)?,
            };
            let Some(batch) = next else { break };
            let (wanted, later) = match self.cursor.until {
                Some((until, _)) => cut(batch, until),
                None => (Some(batch), None),
            };
            source.left = later;
            end = wanted.as_ref().map_or(end, Batch::next_line);
            pulled.extend(wanted);
            if self.cursor.until.is_none_or(|(until, _)| end >= until) {
                break;
            }
        }
        if self.cursor.until.is_some_and(|(until, _)| end < until) {
            self.start_over("lines that were to be shipped are lost");
            return if self.resume()? { self.pull() } else { Ok(None) };
        }
        self.source = Some(source);
        let mut batch = join(pulled, self.cursor.line);
        if let (Some(batch), Some((_, head))) = (&mut batch, self.cursor.until) {
            batch.chain = head;
        }
        Ok(batch)
    }

    /// Reads on in the spool only while there was more than a round at once.
    ///
    /// What comes after that is offered. A sealed recording is read to its
    /// end, as its evidence is still to come.
    fn leave_spool(&mut self, batch: &Batch) -> Result<(), ShipperError> {
        let drained = self.source.as_ref().is_some_and(|source| source.left.is_none());
        let drained = drained && batch.lines.len() < ROUND && self.cursor.until.is_none();
        if drained && self.feed.evidence(&self.id)?.is_none() {
            self.source = None;
        }
        Ok(())
    }

    fn round(&mut self, batch: &Batch) -> Result<Round, ShipperError> {
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
        self.make(happened, (Holds::Lines, &batch.lines), (place, at_ms, until))
    }

    fn last_round(&mut self, evidence: &Evidence) -> Result<Round, ShipperError> {
        let Some(readable) = &mut self.readable else {
            return Err(ShipperError::Config("no header was read".to_owned()));
        };
        let digest = self.feed.sha256(&self.id)?;
        let mut happened = readable.finish();
        if self.forms.transcript {
            let what = What::End(evidence.end.reason.clone(), digest);
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
        let json = json.map_err(ShipperError::io("write the evidence"))?;
        let round = self.make(happened, (Holds::Seal, &json), (place, at_ms, None))?;
        Ok(Round { last: true, ..round })
    }

    fn make(
        &self,
        happened: Vec<Happened>,
        (holds, bytes): (Holds, &[u8]),
        (place, at_ms, until): (Place, i64, Option<(u64, Head)>),
    ) -> Result<Round, ShipperError> {
        let failed = |error: std::io::Error| ShipperError::io(format!("encode {}", self.id))(error);
        let mut events = Vec::new();
        if let Some(readable) = &self.readable {
            let made = readable.about().events(&happened, self.cursor.sequence);
            events = made.map_err(|error| failed(std::io::Error::other(error)))?;
        }
        if self.forms.recording {
            events.extend(segment::encode(self.id.as_str(), at_ms, (holds, bytes), &place).map_err(failed)?);
        }
        let after = Cursor {
            run: place.run,
            segment: place.segment + 1,
            line: place.first_line + place.lines,
            head: place.after,
            until: None,
            sequence: self.cursor.sequence + happened.len() as u64,
        };
        let plan = Cursor { until, ..self.cursor.clone() };
        let bytes = events.iter().map(|event| event.message.len()).sum();
        Ok(Round { events, bytes, plan, after, last: false })
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

/// What is before a line and what is from it on.
///
/// The chain of the first part is not known if both have lines.
fn cut(batch: Batch, line: u64) -> (Option<Batch>, Option<Batch>) {
    let after = batch.clone().after(line);
    let count = line.saturating_sub(batch.first_line).min(batch.count);
    if count == 0 {
        return (None, after);
    }
    let bytes = batch.lines.len() - after.as_ref().map_or(0, |after| after.lines.len());
    (Some(Batch { count, lines: batch.lines.slice(..bytes), ..batch }), after)
}
