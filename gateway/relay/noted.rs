//! What a later process must know of a port session, noted in time.
//!
//! Nobody records what connections carry, so a later process cannot give it
//! again; the ends can. Each is told that a message was taken only once a note
//! is recorded that covers it: what is in no note, they send again, and it is
//! then seen for the first time. Output passes at once, as long as it is data.
//! An open or a close passes after its note: its answer must not come to a
//! process that knows nothing of it. So does all input, because the session may
//! be over before the client can send it again.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Ended;
use super::pump::{Pump, Step, recording_failed};
use crate::recorder::{FlowNote, FlowState, Position};

/// Time between two notes of output, for which only acknowledges wait.
///
/// Both programs repeat what is not acknowledged after 100 ms and more.
const EVERY: Duration = Duration::from_millis(15);
/// Captured bytes with which a note is due at once.
const BYTES_MAX: usize = 64 * 1024;

/// The notes of one port session; positions are those of notes.
///
/// The first one stands for all that an earlier process wrote.
pub(super) struct Noted {
    /// Notes written so far.
    count: u64,
    /// What the next note is written with, and its captured bytes.
    waiting: Vec<FlowNote>,
    bytes: usize,
    /// Something was seen since the last note.
    unwritten: bool,
    /// Something waits for the next note.
    urgent: bool,
    /// When the last one was written.
    last: Option<Instant>,
    /// Notes that are not known to be recorded, and where they are.
    written: VecDeque<Position>,
    /// Where the last one is.
    last_place: Position,
}

impl Noted {
    /// The notes of a recording that so far goes up to there.
    pub(super) fn after(before: Position) -> Self {
        Self {
            count: 1,
            waiting: Vec::new(),
            bytes: 0,
            unwritten: false,
            urgent: false,
            last: None,
            written: [before].into(),
            last_place: before,
        }
    }

    /// The position of what an earlier process wrote.
    pub(super) fn before() -> Position {
        Position(1)
    }

    /// Keeps what was seen for the next note, whose position it returns.
    pub(super) fn keep(&mut self, notes: Vec<FlowNote>, urgent: bool) -> Position {
        let captured = |note: &FlowNote| match note {
            FlowNote::Traffic(_, _, bytes) => bytes.len(),
            FlowNote::Event(_) => 0,
        };
        self.bytes += notes.iter().map(captured).sum::<usize>();
        self.urgent |= urgent || self.bytes >= BYTES_MAX;
        self.unwritten = true;
        self.waiting.extend(notes);
        Position(self.count + 1)
    }

    /// The position of what was seen last.
    pub(super) fn seen(&self) -> Position {
        Position(self.count + u64::from(self.unwritten))
    }

    /// What the next note is written with.
    pub(super) fn take(&mut self) -> Vec<FlowNote> {
        (self.bytes, self.urgent) = (0, false);
        std::mem::take(&mut self.waiting)
    }

    /// The note was written there.
    pub(super) fn wrote(&mut self, at: Position, now: Instant) {
        self.count += 1;
        self.unwritten = false;
        (self.last, self.last_place) = (Some(now), at);
        self.written.push_back(at);
    }

    /// When the next note should be written, if there is something to note.
    ///
    /// What waits for it goes with all that comes until the one before is
    /// written, as the recording is up to there.
    pub(super) fn due(&self, written: Position, now: Instant) -> Instant {
        let at_once = self.urgent && self.last_place <= written;
        self.last.filter(|_| !at_once).map_or(now, |last| last + EVERY)
    }

    /// The last note of those that are recorded up to a place.
    pub(super) fn recorded(&mut self, recorded: Position) -> Position {
        while self.written.pop_front_if(|at| *at <= recorded).is_some() {}
        Position(self.recorded_count())
    }

    /// Where the note of a position is; `None` if it is not written yet.
    pub(super) fn place(&self, position: Position) -> Option<Position> {
        if position.0 > self.count {
            return None;
        }
        let open = position.0.checked_sub(self.recorded_count() + 1);
        let place = open.and_then(|open| self.written.get(usize::try_from(open).ok()?));
        // What is known to be recorded is wherever one looks.
        Some(place.copied().unwrap_or_default())
    }

    /// Where the last note is.
    pub(super) fn last(&self) -> Position {
        self.last_place
    }

    fn recorded_count(&self) -> u64 {
        self.count - self.written.len() as u64
    }
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Writes the note that is due; true if one was.
    pub(super) fn note_flows(&mut self) -> Step {
        let due = self.note_due().is_some_and(|due| due <= self.now);
        if due {
            self.note_flows_now()?;
        }
        Ok(due)
    }

    /// When the next note is due, if there is something to note.
    pub(super) fn note_due(&self) -> Option<Instant> {
        self.flows.as_ref().filter(|flows| flows.is_unnoted())?;
        self.tap.note_due(self.now)
    }

    /// Writes what was seen and where everything is, if that is news.
    pub(super) fn note_flows_now(&mut self) -> Result<(), Ended> {
        let Some(flows) = self.flows.as_mut().filter(|flows| flows.is_unnoted()) else { return Ok(()) };
        let state = FlowState { acknowledged: self.output.acknowledged_below(), ..flows.state() };
        self.tap.note_flows(&state, self.now).map_err(|error| recording_failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Direction, FlowEvent};

    #[test]
    fn output_waits_for_the_next_note_and_an_open_only_for_the_last() {
        let (mut noted, start) = (Noted::after(Position(9)), Instant::now());
        assert_eq!(noted.due(Position(9), start), start);
        noted.wrote(Position(100), start);
        assert_eq!(noted.keep(Vec::new(), false), Position(3));
        assert_eq!(noted.due(Position(100), start), start + EVERY);
        noted.keep(vec![FlowNote::Event(FlowEvent::Open { connection: 1 })], true);
        assert_eq!(noted.due(Position(100), start), start);
        assert_eq!(noted.due(Position(99), start), start + EVERY, "one note at a time");
        assert_eq!(noted.take().len(), 1);
        assert_eq!(noted.due(Position(100), start), start + EVERY);
        let much = FlowNote::Traffic(1, Direction::Up, vec![0; BYTES_MAX].into());
        noted.keep(vec![much], false);
        assert_eq!(noted.due(Position(100), start), start, "captured bytes wait in bounded memory");
    }

    #[test]
    fn a_note_counts_once_its_place_is_recorded() {
        let mut noted = Noted::after(Position(9));
        assert_eq!((noted.place(Noted::before()), noted.place(Position(2))), (Some(Position(9)), None));
        noted.keep(Vec::new(), false);
        assert_eq!(noted.seen(), Position(2));
        noted.wrote(Position(100), Instant::now());
        noted.wrote(Position(200), Instant::now());
        assert_eq!(noted.recorded(Position(99)), Position(1));
        assert_eq!(noted.place(Position(2)), Some(Position(100)));
        assert_eq!(noted.recorded(Position(150)), Position(2));
        assert_eq!(noted.place(Position(2)), Some(Position::default()));
        assert_eq!(noted.place(Position(3)), Some(Position(200)));
        assert_eq!(noted.recorded(Position(200)), noted.seen());
    }
}
