//! The connections of one session: what each carried, and its end.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::guess::Look;
use super::{Fault, Note};
use crate::recorder::{Direction, FlowEvent, Side};

/// How often the bytes of open connections are noted: a crash loses less.
const NOTE_EVERY: Duration = Duration::from_secs(10);
/// Connections that may open at once after a quiet time, and per second.
///
/// A stock client opens some 200 a second at most; each is 300 bytes.
const OPENS_BURST: u32 = 5000;
const OPENS_PER_SECOND: u32 = 500;

/// Where notes go, and when it is.
pub(super) type At<'a> = (Instant, &'a mut Vec<Note>);

struct Connection {
    number: u64,
    up: u64,
    down: u64,
    /// What was noted of both last.
    noted: (u64, u64),
    looks: [Look; 2],
    /// Who ended it first; the other side may still have sent something.
    ended: Option<Side>,
}

/// Every connection that is open or on its way out, by its stream.
pub(super) struct Connections {
    streams: BTreeMap<u32, Connection>,
    opened: u64,
    max: usize,
    capture: bool,
    /// Destinations that were not reached and whose stream is not closed yet.
    refusals: u32,
    note_at: Option<Instant>,
    opens: Budget,
}

impl Connections {
    pub(super) fn new(max: usize, capture: bool) -> Self {
        let streams = BTreeMap::new();
        Self { streams, opened: 0, max, capture, refusals: 0, note_at: None, opens: Budget::default() }
    }

    /// Whether the stream is known, open or on its way out.
    pub(super) fn knows(&self, stream: u32) -> bool {
        self.streams.contains_key(&stream)
    }

    pub(super) fn is_open(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|connection| connection.ended.is_none())
    }

    /// A connection begins.
    pub(super) fn open(&mut self, stream: u32, now: Instant, notes: &mut Vec<Note>) -> Result<(), Fault> {
        if self.streams.len() >= self.max {
            return Err(Fault::TooMany(self.max));
        }
        if !self.opens.take(now) {
            return Err(Fault::TooFast);
        }
        self.opened += 1;
        let number = self.opened;
        let looks = [Look::at(Direction::Up), Look::at(Direction::Down)];
        self.streams.insert(stream, Connection { number, up: 0, down: 0, noted: (0, 0), looks, ended: None });
        self.note_at.get_or_insert(now + NOTE_EVERY);
        notes.push(Note::Event(FlowEvent::Open { connection: number }));
        Ok(())
    }

    /// Bytes of a connection; those of an unknown one reach nobody.
    pub(super) fn data(&mut self, stream: u32, direction: Direction, bytes: &[u8], (now, notes): At<'_>) {
        let Some(connection) = self.streams.get_mut(&stream).filter(|_| !bytes.is_empty()) else { return };
        let length = bytes.len() as u64;
        let look = match direction {
            Direction::Up => {
                connection.up += length;
                &mut connection.looks[0]
            }
            Direction::Down => {
                connection.down += length;
                &mut connection.looks[1]
            }
        };
        if let Some(guess) = look.more(bytes) {
            notes.push(connection.protocol(direction, guess));
        }
        if self.capture {
            notes.push(Note::Traffic(connection.number, direction, Bytes::copy_from_slice(bytes)));
        }
        self.note_at.get_or_insert(now + NOTE_EVERY);
    }

    /// The agent says that it could not reach the destination.
    pub(super) fn refusal(&mut self) {
        self.refusals = self.refusals.saturating_add(1);
    }

    /// One side has ended a connection; after both it is forgotten.
    pub(super) fn close(&mut self, stream: u32, by: Side, notes: &mut Vec<Note>) {
        let Some(connection) = self.streams.get_mut(&stream) else { return };
        // The flag comes before the end of the stream that it is about.
        let refused = by == Side::Target && connection.down == 0 && self.refusals > 0;
        if refused {
            self.refusals -= 1;
        }
        match connection.ended {
            None => connection.end(by, refused, notes),
            Some(first) if first != by => self.forget(stream, notes),
            Some(_) => {}
        }
    }

    /// Nothing more comes of a connection that ended.
    pub(super) fn forget(&mut self, stream: u32, notes: &mut Vec<Note>) {
        if let Some(mut connection) = self.streams.remove(&stream) {
            connection.note(notes);
        }
    }

    /// Notes what connections carried since the last time, if it is time.
    pub(super) fn tick(&mut self, now: Instant, notes: &mut Vec<Note>) {
        if self.note_at.is_some_and(|at| now >= at) {
            self.streams.values_mut().for_each(|connection| connection.note(notes));
            self.note_at = None;
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.note_at
    }

    /// The session is over.
    pub(super) fn finish(&mut self, notes: &mut Vec<Note>) {
        for connection in self.streams.values_mut() {
            match connection.ended {
                None => connection.end(Side::Session, false, notes),
                Some(_) => connection.note(notes),
            }
        }
        self.streams.clear();
    }
}

impl Connection {
    fn end(&mut self, by: Side, refused: bool, notes: &mut Vec<Note>) {
        let Self { number: connection, up, down, .. } = *self;
        let [from_client, from_target] = &mut self.looks;
        let last = [(Direction::Up, from_client.last()), (Direction::Down, from_target.last())];
        for (direction, guess) in last {
            notes.extend(guess.map(|guess| self.protocol(direction, guess)));
        }
        self.ended = Some(by);
        if refused {
            return notes.push(Note::Event(FlowEvent::Refused { connection }));
        }
        self.noted = (up, down);
        notes.push(Note::Event(FlowEvent::Close { connection, up, down, by }));
    }

    /// Notes the bytes if there are more than noted before.
    fn note(&mut self, notes: &mut Vec<Note>) {
        let Self { number: connection, up, down, .. } = *self;
        if self.noted != (up, down) {
            self.noted = (up, down);
            notes.push(Note::Event(FlowEvent::Bytes { connection, up, down }));
        }
    }

    fn protocol(&self, direction: Direction, guess: crate::recorder::Guess) -> Note {
        let from = match direction {
            Direction::Up => Side::Client,
            Direction::Down => Side::Target,
        };
        Note::Event(FlowEvent::Protocol { connection: self.number, from, guess })
    }
}

/// How many connections may still open; grows with time.
#[derive(Default)]
struct Budget {
    spent: u32,
    since: Option<Instant>,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let seconds = now.saturating_duration_since(since).as_secs();
        if seconds > 0 {
            let back = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(OPENS_PER_SECOND);
            (self.spent, self.since) = (self.spent.saturating_sub(back), Some(now));
        }
        self.spent += 1;
        self.spent <= OPENS_BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_opens_connections_only_so_fast() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        assert!((0..OPENS_BURST).all(|_| budget.take(start)));
        assert!(!budget.take(start));
        let later = start + Duration::from_secs(1);
        assert!((0..OPENS_PER_SECOND - 1).all(|_| budget.take(later)));
        assert!(!budget.take(later));
    }

    #[test]
    fn what_was_still_on_its_way_is_noted_after_the_end() {
        let (now, mut notes) = (Instant::now(), Vec::new());
        let mut connections = Connections::new(2, false);
        connections.open(3, now, &mut notes).unwrap();
        connections.close(3, Side::Client, &mut notes);
        connections.data(3, Direction::Down, b"late", (now, &mut notes));
        connections.close(3, Side::Target, &mut notes);
        let expected = [
            FlowEvent::Open { connection: 1 },
            FlowEvent::Close { connection: 1, up: 0, down: 0, by: Side::Client },
            FlowEvent::Bytes { connection: 1, up: 0, down: 4 },
        ];
        assert_eq!(notes, expected.map(Note::Event));
        assert!(!connections.knows(3));
    }

    #[test]
    fn bytes_of_open_connections_are_noted_now_and_then() {
        let (now, mut notes) = (Instant::now(), Vec::new());
        let mut connections = Connections::new(2, false);
        connections.open(3, now, &mut notes).unwrap();
        connections.data(3, Direction::Up, &[0; 7], (now, &mut notes));
        connections.tick(now + NOTE_EVERY / 2, &mut notes);
        assert_eq!(notes.len(), 1, "{notes:?}");
        connections.tick(now + NOTE_EVERY, &mut notes);
        assert_eq!(notes[1], Note::Event(FlowEvent::Bytes { connection: 1, up: 7, down: 0 }));
        assert_eq!(connections.due(), None, "nothing moves, so nothing is due");
    }
}
