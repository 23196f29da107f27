//! The connections of one session: what each carried, and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::guess::Look;
use super::{Fault, Note};
use crate::recorder::{Direction, FlowConnection, FlowEvent, FlowState, Side};

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
    /// Streams of which something changed since a later process was told.
    touched: BTreeSet<u32>,
}

impl Connections {
    pub(super) fn new(max: usize, capture: bool) -> Self {
        let (streams, touched) = (BTreeMap::new(), BTreeSet::new());
        let (opens, note_at) = (Budget::default(), None);
        Self { streams, opened: 0, max, capture, refusals: 0, note_at, opens, touched }
    }

    /// Goes on with the connections of an earlier process.
    pub(super) fn go_on(&mut self, state: &FlowState, now: Instant) {
        (self.opened, self.refusals) = (state.opened, u32::try_from(state.refusals).unwrap_or(u32::MAX));
        let known = |connection: &FlowConnection| Connection {
            number: connection.number,
            up: connection.up,
            down: connection.down,
            noted: connection.noted,
            looks: [
                Look::after(Direction::Up, connection.client_guess.clone()),
                Look::after(Direction::Down, connection.target_guess.clone()),
            ],
            ended: connection.ended,
        };
        let connections = state.connections.iter();
        self.streams =
            connections.filter_map(|(stream, state)| Some((*stream, known(state.as_ref()?)))).collect();
        self.note_at = (!self.streams.is_empty()).then(|| now + NOTE_EVERY);
    }

    /// How many began so far.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// How many are open.
    pub(super) fn open_now(&self) -> usize {
        self.streams.values().filter(|connection| connection.ended.is_none()).count()
    }

    /// Adds what changed since the last time to what a later process is told.
    pub(super) fn state(&mut self, state: &mut FlowState) {
        (state.opened, state.refusals) = (self.opened, u64::from(self.refusals));
        let changed = std::mem::take(&mut self.touched).into_iter();
        let of = |stream| (stream, self.streams.get(&stream).map(Connection::state));
        state.connections = changed.map(of).collect();
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
        self.touched.insert(stream);
        self.streams.insert(stream, Connection { number, up: 0, down: 0, noted: (0, 0), looks, ended: None });
        self.note_at.get_or_insert(now + NOTE_EVERY);
        notes.push(Note::Event(FlowEvent::Open { connection: number }));
        Ok(())
    }

    /// Bytes of a connection; those of an unknown one reach nobody.
    pub(super) fn data(&mut self, stream: u32, direction: Direction, bytes: &[u8], (now, notes): At<'_>) {
        let Some(connection) = self.streams.get_mut(&stream).filter(|_| !bytes.is_empty()) else { return };
        self.touched.insert(stream);
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
        self.touched.insert(stream);
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
            self.touched.insert(stream);
            connection.note(notes);
        }
    }

    /// Notes what connections carried since the last time, if it is time.
    pub(super) fn tick(&mut self, now: Instant, notes: &mut Vec<Note>) {
        if self.note_at.is_some_and(|at| now >= at) {
            for (stream, connection) in &mut self.streams {
                if connection.note(notes) {
                    self.touched.insert(*stream);
                }
            }
            self.note_at = None;
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.note_at
    }

    /// The session is over.
    pub(super) fn finish(&mut self, notes: &mut Vec<Note>) {
        for (stream, mut connection) in std::mem::take(&mut self.streams) {
            self.touched.insert(stream);
            match connection.ended {
                None => connection.end(Side::Session, false, notes),
                Some(_) => drop(connection.note(notes)),
            }
        }
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

    /// Notes the bytes if there are more than noted before; true if so.
    fn note(&mut self, notes: &mut Vec<Note>) -> bool {
        let Self { number: connection, up, down, .. } = *self;
        let is_news = self.noted != (up, down);
        if is_news {
            self.noted = (up, down);
            notes.push(Note::Event(FlowEvent::Bytes { connection, up, down }));
        }
        is_news
    }

    /// What a later process has to know.
    fn state(&self) -> FlowConnection {
        let [client, target] = &self.looks;
        FlowConnection {
            number: self.number,
            up: self.up,
            down: self.down,
            noted: self.noted,
            ended: self.ended,
            client_guess: client.untold().cloned(),
            target_guess: target.untold().cloned(),
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
