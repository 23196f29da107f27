//! What is seen of port sessions, whatever their messages look like.

use data_channel::message::{Draft, MessageType};
use data_channel::smux::{self, Command, FIRST_STREAM};
use data_channel::{HandshakeComplete, HandshakeResponse};
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::super::typed::{Typed, TypedMessages};
use super::*;

const AGENT: &str = "3.3.0.0";
const CLIENT: &str = "1.2.764.0";
const LOCAL: &str = "LocalPortForwarding";

fn message(sequence: i64, payload_type: PayloadType, payload: &[u8]) -> Message {
    let draft = Draft {
        message_type: MessageType::OutputStreamData,
        created_ms: 1,
        sequence,
        flags: 0,
        id: Uuid::new_v4(),
        payload_type,
        payload,
    };
    Message::parse(draft.encode()).unwrap()
}

fn request(kind: Option<&str>) -> Vec<u8> {
    let properties = json!({"portNumber": "5432", "type": kind});
    HandshakeRequest::new(AGENT, "Port", properties).encode()
}

fn answer(version: &str) -> Vec<u8> {
    let request = HandshakeRequest::parse(&request(Some(LOCAL))).unwrap();
    HandshakeResponse::answering(&request, version).encode()
}

/// A session and what is noted of it.
struct Watched {
    flows: Flows,
    notes: Vec<Note>,
    now: Instant,
    down: i64,
    up: i64,
}

impl Watched {
    fn new(capture: bool, connections_max: usize) -> Self {
        let destination = Destination::new(None, 5432);
        let flows = Flows::new(Forward { destination, capture, connections_max });
        Self { flows, notes: Vec::new(), now: Instant::now(), down: 0, up: 0 }
    }

    /// A session whose handshake is over.
    fn running(kind: Option<&str>) -> Self {
        let mut watched = Self::new(true, 16);
        watched.down(PayloadType::HandshakeRequest, &request(kind)).unwrap();
        watched.up(PayloadType::HandshakeResponse, &answer(CLIENT)).unwrap();
        watched.down(PayloadType::HandshakeComplete, &HandshakeComplete::default().encode()).unwrap();
        watched
    }

    fn down(&mut self, payload_type: PayloadType, payload: &[u8]) -> Result<bool, Fault> {
        self.down += 1;
        self.flows.output(&message(self.down - 1, payload_type, payload), self.now, &mut self.notes)
    }

    fn up(&mut self, payload_type: PayloadType, payload: &[u8]) -> Result<bool, Fault> {
        self.up += 1;
        self.arrives(&message(self.up - 1, payload_type, payload))
    }

    fn arrives(&mut self, message: &Message) -> Result<bool, Fault> {
        assert_eq!(self.flows.admits(message), Ok(()));
        if !self.flows.takes(message) {
            return Ok(false);
        }
        let mut active = self.flows.input(message, self.now, &mut self.notes)?;
        while let Some(held) = self.flows.held() {
            active |= self.flows.input(&held, self.now, &mut self.notes)?;
        }
        Ok(active)
    }

    /// What was noted, without bytes and guesses.
    fn events(&self) -> Vec<FlowEvent> {
        let event = |note: &Note| match note {
            Note::Event(FlowEvent::Protocol { .. }) | Note::Traffic(..) => None,
            Note::Event(event) => Some(event.clone()),
        };
        self.notes.iter().filter_map(event).collect()
    }

    /// Every captured byte of one connection and direction.
    fn captured(&self, connection: u64, direction: Direction) -> Vec<u8> {
        let bytes = |note: &Note| match note {
            Note::Traffic(of, way, bytes) if (*of, *way) == (connection, direction) => bytes.to_vec(),
            _ => Vec::new(),
        };
        self.notes.iter().flat_map(bytes).collect()
    }
}

fn handshake(mode: Mode) -> FlowEvent {
    FlowEvent::Handshake { mode, agent: AGENT.to_owned(), client: CLIENT.to_owned() }
}

fn frame(command: Command, stream: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    smux::encode(command, stream, &mut bytes);
    bytes
}

fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    smux::encode_data(stream, bytes, &mut frames);
    frames
}

#[test]
fn a_connection_is_seen_from_its_opening_to_its_end() {
    let mut seen = Watched::running(Some(LOCAL));
    seen.up(PayloadType::Output, &[frame(Command::Open, 3), data(3, b"question")].concat()).unwrap();
    seen.down(PayloadType::Output, &data(3, b"answer!")).unwrap();
    seen.down(PayloadType::Output, &frame(Command::Close, 3)).unwrap();
    seen.up(PayloadType::Output, &frame(Command::Close, 3)).unwrap();
    let close = FlowEvent::Close { connection: 1, up: 8, down: 7, by: Side::Target };
    assert_eq!(seen.events(), [handshake(Mode::Multiplexed), FlowEvent::Open { connection: 1 }, close]);
    assert_eq!(seen.captured(1, Direction::Up), b"question");
    assert_eq!(seen.captured(1, Direction::Down), b"answer!");
}

#[test]
fn a_destination_that_is_not_reached_is_a_refusal() {
    let mut seen = Watched::running(Some(LOCAL));
    for stream in [3, 5] {
        seen.up(PayloadType::Output, &frame(Command::Open, stream)).unwrap();
    }
    seen.down(PayloadType::Flag, &Flag::ConnectToPortError.encode()).unwrap();
    seen.down(PayloadType::Output, &[frame(Command::Close, 5), frame(Command::Close, 3)].concat()).unwrap();
    let events = seen.events();
    assert_eq!(events[3], FlowEvent::Flag { from: Side::Target, flag: 3 });
    assert_eq!(events[4], FlowEvent::Refused { connection: 2 });
    assert_eq!(events[5], FlowEvent::Close { connection: 1, up: 0, down: 0, by: Side::Target });
}

#[test]
fn without_smux_there_is_one_connection_at_a_time() {
    let mut seen = Watched::running(None);
    seen.down(PayloadType::Output, b"SSH-2.0-x\r\n").unwrap();
    seen.up(PayloadType::Output, b"SSH-2.0-y\r\n").unwrap();
    seen.up(PayloadType::Flag, &Flag::DisconnectToPort.encode()).unwrap();
    seen.down(PayloadType::Output, b"late").unwrap();
    seen.up(PayloadType::Output, b"again").unwrap();
    seen.flows.finish(&mut seen.notes);
    let expected = [
        handshake(Mode::Basic),
        FlowEvent::Open { connection: 1 },
        FlowEvent::Flag { from: Side::Client, flag: 1 },
        FlowEvent::Close { connection: 1, up: 11, down: 11, by: Side::Client },
        FlowEvent::Bytes { connection: 1, up: 11, down: 15 },
        FlowEvent::Open { connection: 2 },
        FlowEvent::Close { connection: 2, up: 5, down: 0, by: Side::Session },
    ];
    assert_eq!(seen.events(), expected);
    assert_eq!(seen.captured(1, Direction::Down), b"SSH-2.0-x\r\nlate");
}

#[test]
fn keep_alives_are_signs_of_life_and_no_activity() {
    let mut seen = Watched::running(Some(LOCAL));
    assert_eq!(seen.up(PayloadType::Output, &frame(Command::KeepAlive, 0)), Ok(false));
    assert_eq!(seen.down(PayloadType::Output, &frame(Command::KeepAlive, 0)), Ok(false));
    assert_eq!(seen.up(PayloadType::Output, &frame(Command::Open, 3)), Ok(true));
    assert_eq!(seen.down(PayloadType::Output, &data(3, b"x")), Ok(true));
}

#[test]
fn what_cannot_be_followed_ends_the_session() {
    let long_keep_alive = [&[1, 3, 8, 0, 0, 0, 0, 0][..], &frame(Command::Open, 3)].concat();
    for bytes in [
        b"GET / HTTP/1.1\r\n".to_vec(),
        [frame(Command::Open, 3), frame(Command::Open, 3)].concat(),
        long_keep_alive,
        vec![1, 9, 0, 0, 3, 0, 0, 0],
    ] {
        let mut seen = Watched::running(Some(LOCAL));
        assert_eq!(seen.up(PayloadType::Output, &bytes).unwrap_err().reason(), "malformed_flow", "{bytes:?}");
    }
    let mut seen = Watched::running(Some(LOCAL));
    let opened = seen.down(PayloadType::Output, &frame(Command::Open, 4));
    assert_eq!(opened.unwrap_err().reason(), "malformed_flow");
}

#[test]
fn more_connections_than_allowed_end_the_session() {
    let mut seen = Watched::running(Some(LOCAL));
    for stream in 0..16 {
        seen.up(PayloadType::Output, &frame(Command::Open, FIRST_STREAM + 2 * stream)).unwrap();
    }
    let error = seen.up(PayloadType::Output, &frame(Command::Open, 99)).unwrap_err();
    assert_eq!(error, Fault::TooMany(16));
}

#[test]
fn nothing_passes_before_both_ends_have_agreed() {
    let mut seen = Watched::new(false, 1);
    let (early, response) =
        (message(0, PayloadType::Output, b"x"), message(0, PayloadType::HandshakeResponse, &answer(CLIENT)));
    assert_eq!(seen.flows.admits(&early), Err("before_handshake"));
    assert_eq!(seen.flows.admits(&response), Err("before_handshake"));
    assert_eq!(seen.down(PayloadType::Output, b"x").unwrap_err().reason(), "bad_handshake");
    seen.down(PayloadType::HandshakeRequest, &request(Some(LOCAL))).unwrap();
    assert_eq!(seen.flows.admits(&early), Err("before_handshake"));
    assert_eq!(seen.flows.admits(&response), Ok(()));
    let complete = HandshakeComplete::default().encode();
    assert_eq!(seen.down(PayloadType::HandshakeComplete, &complete).unwrap_err().reason(), "bad_handshake");
    seen.arrives(&response).unwrap();
    let second = message(1, PayloadType::HandshakeResponse, &answer(CLIENT));
    assert_eq!(seen.arrives(&second).unwrap_err().reason(), "bad_handshake");
}

#[test]
fn a_client_that_would_not_multiplex_is_told_before_its_answer_passes() {
    let mut seen = Watched::new(false, 1);
    seen.down(PayloadType::HandshakeRequest, &request(Some(LOCAL))).unwrap();
    let error = seen.up(PayloadType::HandshakeResponse, &answer("1.1.69.0")).unwrap_err();
    assert_eq!(error.reason(), "version_mismatch");
    assert!(error.to_string().contains("1.1.69.0") && error.to_string().contains(AGENT), "{error}");
}

/// What two clients with a few connections say, and how it is cut.
#[derive(Debug, Clone)]
struct Said {
    /// Per connection: what goes up, and whether it is closed.
    connections: Vec<(Vec<u8>, bool)>,
    cut: usize,
    /// For each message: which of those waiting comes next, and whether again.
    order: Vec<(prop::sample::Index, bool)>,
}

fn said() -> impl Strategy<Value = Said> {
    let connection = (prop::collection::vec(any::<u8>(), 0..200), any::<bool>());
    let order = prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 64);
    (prop::collection::vec(connection, 1..6), 1usize..64, order).prop_map(|(connections, cut, order)| Said {
        connections,
        cut,
        order,
    })
}

impl Said {
    /// The messages: smux of everything, cut into payloads.
    fn messages(&self) -> Vec<Message> {
        let mut stream = Vec::new();
        let id = |index: usize| FIRST_STREAM + 2 * index as u32;
        for (index, _) in self.connections.iter().enumerate() {
            smux::encode(Command::Open, id(index), &mut stream);
        }
        let longest = self.connections.iter().map(|(bytes, _)| bytes.len()).max().unwrap_or_default();
        for at in (0..longest).step_by(50) {
            for (index, (bytes, _)) in self.connections.iter().enumerate() {
                let part = bytes.get(at..bytes.len().min(at + 50)).unwrap_or_default();
                smux::encode_data(id(index), part, &mut stream);
            }
        }
        for (index, (_, closed)) in self.connections.iter().enumerate() {
            if *closed {
                smux::encode(Command::Close, id(index), &mut stream);
            }
        }
        let payloads = stream.chunks(self.cut).enumerate();
        payloads.map(|(at, part)| message(1 + at as i64, PayloadType::Output, part)).collect()
    }

    /// The same as they arrive: near their place, some of them again.
    fn arrivals(&self) -> Vec<Message> {
        let (mut waiting, mut arrived, mut again) = (self.messages(), Vec::new(), Vec::new());
        let mut order = self.order.iter().cycle();
        while !waiting.is_empty() {
            let (index, repeated) = order.next().unwrap();
            let message = waiting.remove(index.index(waiting.len().min(8)));
            if *repeated {
                arrived.push(message.clone());
                again.push(message.clone());
            }
            arrived.push(message);
        }
        arrived.extend(again);
        arrived
    }
}

proptest! {
    #[test]
    fn what_is_seen_does_not_depend_on_cuts_order_or_repeats(said in said()) {
        let mut typed = TypedMessages::default();
        let mut seen = Watched::running(Some(LOCAL));
        typed.arrival(&message(0, PayloadType::HandshakeResponse, &answer(CLIENT)));
        for message in said.arrivals() {
            if typed.arrival(&message) == Typed::Fresh {
                seen.arrives(&message).unwrap();
            }
        }
        seen.flows.finish(&mut seen.notes);
        for (index, (bytes, closed)) in said.connections.iter().enumerate() {
            let connection = index as u64 + 1;
            let by = if *closed { Side::Client } else { Side::Session };
            let close = FlowEvent::Close { connection, up: bytes.len() as u64, down: 0, by };
            prop_assert!(seen.events().contains(&close), "{close:?} is not in {:?}", seen.events());
            prop_assert_eq!(&seen.captured(connection, Direction::Up), bytes);
        }
    }
}
