//! Port sessions in any weather: their connections outlive every process.

use std::collections::{BTreeMap, VecDeque};

use data_channel::smux::{self, Command, FIRST_STREAM, Frames, Piece};

use super::weather::{Dice, Weather};
use super::world::{BANNER, Outcome, live_in};
use super::{SEEDS, each_seed};
use crate::asciicast::{Direction, FlowEvent, Traffic};

/// Longest data of one frame in these sessions, bytes.
const FRAME: u64 = 3_000;

/// The client's side: connections that open, say something and close.
pub(super) fn dialling(streams: u64, dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut frames: Vec<VecDeque<Vec<u8>>> =
        (0..streams).map(|number| conversation(stream(number), true, dice)).collect();
    let mut bytes = Vec::new();
    while frames.iter().any(|left| !left.is_empty()) {
        let chosen = dice.among(0..=streams - 1) as usize;
        bytes.extend(frames[chosen].pop_front().unwrap_or_default());
    }
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let len = (dice.among(1..=1024) as usize).min(bytes.len());
        messages.push(bytes.drain(..len).collect());
    }
    messages
}

fn stream(number: u64) -> u32 {
    FIRST_STREAM + 2 * u32::try_from(number).unwrap()
}

/// The frames of one side of a connection.
fn conversation(stream: u32, opens: bool, dice: &mut Dice) -> VecDeque<Vec<u8>> {
    let mut frames = VecDeque::new();
    let frame = |command| {
        let mut bytes = Vec::new();
        smux::encode(command, stream, &mut bytes);
        bytes
    };
    let (open, close) = (frame(Command::Open), frame(Command::Close));
    frames.extend(opens.then_some(open));
    for _ in 0..dice.among(0..=12) {
        let len = dice.among(1..=FRAME) as usize;
        let mut bytes = Vec::new();
        smux::encode_data(stream, &dice.bytes(len), &mut bytes);
        frames.push_back(bytes);
    }
    // The rest is open until the session ends.
    frames.extend((dice.among(0..=3) > 0).then_some(close));
    frames
}

/// The agent's side of the connections.
pub(super) struct Serving {
    heard: Frames,
    /// Connections that were opened, of how many.
    opened: u64,
    streams: u64,
    to_say: Vec<VecDeque<Vec<u8>>>,
    bytes: VecDeque<u8>,
    speaks: bool,
}

impl Serving {
    pub(super) fn new(streams: u64) -> Self {
        let (to_say, bytes) = (Vec::new(), VecDeque::new());
        // The end of the handshake lets it speak for the first time.
        Self { heard: Frames::default(), opened: 0, streams, to_say, bytes, speaks: true }
    }

    /// Hears the client; true if there is something to say again.
    pub(super) fn hears(&mut self, mut bytes: &[u8], dice: &mut Dice) -> bool {
        let mut news = false;
        while let Some(piece) = self.heard.next(&mut bytes).unwrap() {
            if let Piece::Frame(frame) = piece
                && frame.command == Command::Open
            {
                self.opened += 1;
                self.to_say.push(conversation(frame.stream, false, dice));
                news = true;
            }
        }
        let begins = news && !self.speaks;
        self.speaks |= news;
        begins
    }

    /// The next message; `None` if there is nothing to say now.
    pub(super) fn next(&mut self, len: usize, dice: &mut Dice) -> Option<Vec<u8>> {
        while self.bytes.len() < len && self.to_say.iter().any(|left| !left.is_empty()) {
            let chosen = dice.among(0..=self.to_say.len() as u64 - 1) as usize;
            self.bytes.extend(self.to_say[chosen].pop_front().unwrap_or_default());
        }
        let len = len.min(self.bytes.len());
        self.speaks = len > 0;
        self.speaks.then(|| self.bytes.drain(..len).collect())
    }

    pub(super) fn is_done(&self) -> bool {
        let left = self.to_say.iter().any(|left| !left.is_empty());
        self.opened == self.streams && self.bytes.is_empty() && !left
    }
}

#[test]
fn a_forwarded_transfer_survives_kills_of_the_gateway() {
    each_seed(|seed| {
        // Not the sessions of the terminals again.
        let mut dice = Dice::new(seed.wrapping_add(SEEDS << 32));
        let weather = Weather::of_port(&mut dice);
        let (weather, outcome) = live_in(weather, dice);
        judge(&weather, &outcome);
    });
}

fn judge(weather: &Weather, outcome: &Outcome) {
    let Outcome { ended, agent, plugin, hand, typed } = outcome;
    let said: Vec<u8> = agent.said.iter().flat_map(|(_, payload)| payload.clone()).collect();
    assert_eq!(ended.reason(), "target_closed", "{}; {}; {weather:?}", agent.state(), plugin.state());
    assert!(plugin.printed == said, "got {} bytes of {}: {weather:?}", plugin.printed.len(), said.len());
    assert!(agent.heard == *typed, "heard {} bytes of {}: {weather:?}", agent.heard.len(), typed.len());
    let told = if weather.banner && weather.streams().is_some() { BANNER } else { "" };
    assert_eq!(plugin.told, told, "{weather:?}");

    let hand = hand.lock().unwrap();
    let events: Vec<FlowEvent> = hand.others.iter().filter_map(FlowEvent::of).map(Result::unwrap).collect();
    let mut expected = carried(weather, typed, &said);
    let capture = weather.port.unwrap().capture;
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    let mut counts = BTreeMap::new();
    let mut handshakes = 0;
    for event in &events {
        match *event {
            FlowEvent::Handshake { .. } => handshakes += 1,
            FlowEvent::Open { connection } => opened.push(connection),
            FlowEvent::Bytes { connection, up, down } => drop(counts.insert(connection, (up, down))),
            FlowEvent::Close { connection, up, down, .. } => {
                closed.push(connection);
                counts.insert(connection, (up, down));
            }
            _ => {}
        }
    }
    closed.sort_unstable();
    let numbers: Vec<u64> = (1..=expected.len() as u64).collect();
    assert_eq!((handshakes, &opened, &closed), (1, &numbers, &numbers), "{weather:?}");
    for traffic in hand.others.iter().filter_map(Traffic::of).map(Result::unwrap) {
        let (up, down) = expected.get_mut(&traffic.connection).unwrap();
        let side = if traffic.direction == Direction::Up { up } else { down };
        // What was captured is taken off what there was.
        assert!(side.bytes.get(side.captured..).is_some_and(|rest| rest.starts_with(&traffic.bytes)));
        side.captured += traffic.bytes.len();
    }
    for (connection, (up, down)) in &expected {
        let lengths = (up.bytes.len() as u64, down.bytes.len() as u64);
        assert_eq!(counts[connection], lengths, "connection {connection}: {weather:?}");
        let captured = if capture { lengths } else { (0, 0) };
        assert_eq!((up.captured as u64, down.captured as u64), captured, "{connection}: {weather:?}");
    }
}

/// Bytes of one direction of a connection.
#[derive(Default)]
struct Way {
    bytes: Vec<u8>,
    captured: usize,
}

/// What each connection carried up and down, by its number.
fn carried(weather: &Weather, up: &[u8], down: &[u8]) -> BTreeMap<u64, (Way, Way)> {
    let way = |bytes: &[u8]| Way { bytes: bytes.to_vec(), captured: 0 };
    if weather.streams().is_none() {
        return [(1, (way(up), way(down)))].into();
    }
    let mut numbers = BTreeMap::new();
    let mut connections = BTreeMap::<u64, (Way, Way)>::new();
    for (is_up, mut bytes) in [(true, up), (false, down)] {
        let mut frames = Frames::default();
        while let Some(piece) = frames.next(&mut bytes).unwrap() {
            match piece {
                Piece::Frame(frame) if frame.command == Command::Open => {
                    let number = numbers.len() as u64 + 1;
                    numbers.insert(frame.stream, number);
                    connections.insert(number, Default::default());
                }
                Piece::Frame(_) => {}
                Piece::Data(stream, data) => {
                    let (up, down) = connections.get_mut(&numbers[&stream]).unwrap();
                    let side = if is_up { up } else { down };
                    side.bytes.extend_from_slice(data);
                }
            }
        }
    }
    connections
}
