//! The connections inside a port session, seen and not touched.
//!
//! [`Flows`] looks at every message of either direction once and in order
//! and says what to record. No I/O; time is an argument. What it cannot
//! understand ends the session: it could not be recorded truthfully.

mod connections;
mod guess;
mod inputs;
mod multiplexed;
mod state;
#[cfg(test)]
mod tests;
mod versions;

use data_channel::handshake::HandshakeRequest;
use data_channel::message::Message;
use data_channel::payload::{Flag, PayloadType};
use data_channel::smux::SmuxError;
use tokio::time::Instant;

use self::connections::Connections;
use self::inputs::Inputs;
use self::multiplexed::Multiplexed;
use super::destination::{self, Destination, Forward};
pub(super) use crate::recorder::FlowNote as Note;
use crate::recorder::{Direction, FlowEvent, INPUT_DIGEST, Mode, Side};
use crate::session::printable;

/// The stream of the only connection of a session without smux.
const ONLY: u32 = 0;

/// Why a port session cannot go on; the sentence is for its user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The agent is about to connect to somewhere else.
    #[error("the target's agent would connect to {named}, but {allowed} was allowed")]
    Destination { named: String, allowed: Destination },
    /// The agent runs another kind of session.
    #[error("the session was allowed to forward a port, and the target's agent opens something else")]
    Kind,
    /// The handshake is not one that both ends understand alike.
    #[error("{0}")]
    Handshake(&'static str),
    /// One end would multiplex and the other one not.
    #[error(
        "agent {agent:?} and client {client:?} would not understand each other; update the older of the two"
    )]
    Versions { agent: String, client: String },
    /// The bytes are not what the handshake agreed on.
    #[error("{0}")]
    Smux(#[from] SmuxError),
    /// A frame that says what no program of AWS says.
    #[error("the port stream cannot be followed: {0}")]
    Malformed(&'static str),
    /// More connections at once than allowed.
    #[error("more than {0} connections at once in one session; close some, or use another session")]
    TooMany(usize),
    /// Connections come faster than a recording should grow.
    #[error("connections are opened too fast in this session")]
    TooFast,
}

impl Fault {
    /// The short word for records and metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Destination { .. } => "wrong_destination",
            Self::Kind => "wrong_kind",
            Self::Handshake(_) => "bad_handshake",
            Self::Versions { .. } => "version_mismatch",
            Self::Smux(_) | Self::Malformed(_) => "malformed_flow",
            Self::TooMany(_) | Self::TooFast => "too_many_connections",
        }
    }
}

/// How far the handshake is.
enum Stage {
    Waiting,
    Requested { local_forwarding: bool, agent: String },
    Answered { local_forwarding: bool, event: FlowEvent, mode: Mode },
    Running { local_forwarding: bool, carriage: Carriage },
}

enum Carriage {
    Multiplexed(Box<Multiplexed>),
    Basic,
}

/// One port session, as the relay sees it.
pub(super) struct Flows {
    forward: Forward,
    stage: Stage,
    connections: Connections,
    inputs: Inputs,
    /// The number of the next output message to be looked at.
    next_output: i64,
    /// What is not noted yet for a later process.
    unnoted: Unnoted,
}

/// What has changed since a later process was last told where all is.
#[derive(Default)]
struct Unnoted {
    anything: bool,
    stage: bool,
    inputs: Vec<[u8; INPUT_DIGEST]>,
}

impl Flows {
    pub(super) fn new(forward: Forward) -> Self {
        let connections = Connections::new(forward.connections_max, forward.capture);
        let (inputs, unnoted) = (Inputs::default(), Unnoted::default());
        Self { forward, stage: Stage::Waiting, connections, inputs, next_output: 0, unnoted }
    }

    /// Whether an answered handshake is of local port forwarding, not SSH.
    pub(super) fn is_local_forwarding(&self) -> bool {
        matches!(
            self.stage,
            Stage::Answered { local_forwarding: true, .. } | Stage::Running { local_forwarding: true, .. }
        )
    }

    /// Whether its connections are carried in smux.
    pub(super) fn is_multiplexed(&self) -> bool {
        matches!(self.stage, Stage::Running { carriage: Carriage::Multiplexed(_), .. })
    }

    /// Looks at the next output message; true if it is more than a sign of life.
    pub(super) fn output(
        &mut self,
        message: &Message,
        now: Instant,
        notes: &mut Vec<Note>,
    ) -> Result<bool, Fault> {
        self.next_output = message.sequence().saturating_add(1);
        self.unnoted.anything = true;
        match message.payload_type() {
            PayloadType::HandshakeRequest => self.requested(message.payload()),
            PayloadType::HandshakeComplete => self.begin(now, notes),
            PayloadType::Output => self.bytes(Direction::Down, message.payload(), now, notes),
            PayloadType::Flag => self.flag(Side::Target, message.payload(), notes),
            // Clients write every other type into the connection as it is.
            _ => Err(Fault::Handshake("the target's agent sends what no port session has")),
        }
    }

    /// Whether an input message may be looked at now, before it is counted.
    pub(super) fn admits(&self, message: &Message) -> Result<(), &'static str> {
        let early = match message.payload_type() {
            // The agent acknowledges and forgets what comes before it is ready.
            PayloadType::Output | PayloadType::Flag => !matches!(self.stage, Stage::Running { .. }),
            PayloadType::HandshakeResponse => matches!(self.stage, Stage::Waiting),
            _ => false,
        };
        if early {
            return Err("before_handshake");
        }
        if self.inputs.has_room_for(message) { Ok(()) } else { Err("too_early") }
    }

    /// Whether it is the turn of an input message; else it is held.
    ///
    /// The agent gets input only after it was looked at, so in order: what
    /// it has acknowledged was seen, also by a process that has ended since.
    pub(super) fn takes(&mut self, message: &Message) -> bool {
        let is_next = self.inputs.takes(message);
        if !is_next {
            self.inputs.hold(message.clone());
        }
        is_next
    }

    /// Whether an input message of that number was looked at.
    pub(super) fn has_seen(&self, sequence: i64) -> bool {
        sequence < self.inputs.next()
    }

    /// Whether an input message of that number waits for its turn.
    pub(super) fn holds(&self, sequence: i64) -> bool {
        self.inputs.holds(sequence)
    }

    /// The input message whose turn has come, if it is held.
    pub(super) fn held(&mut self) -> Option<Message> {
        let message = self.inputs.held()?;
        self.inputs.takes(&message).then_some(message)
    }

    /// The next input message, which is looked at now, has this digest.
    pub(super) fn is_next(&mut self, digest: [u8; INPUT_DIGEST]) {
        self.unnoted.inputs.push(digest);
    }

    /// Looks at an input message whose turn it is.
    pub(super) fn input(
        &mut self,
        message: &Message,
        now: Instant,
        notes: &mut Vec<Note>,
    ) -> Result<bool, Fault> {
        self.unnoted.anything = true;
        match message.payload_type() {
            PayloadType::HandshakeResponse => self.answered(message.payload()),
            PayloadType::Output => self.bytes(Direction::Up, message.payload(), now, notes),
            PayloadType::Flag => self.flag(Side::Client, message.payload(), notes),
            // The agent ignores the rest in a port session.
            _ => Ok(false),
        }
    }

    /// Notes how much open connections have carried, if that is due.
    pub(super) fn tick(&mut self, now: Instant, notes: &mut Vec<Note>) {
        self.connections.tick(now, notes);
        self.unnoted.anything |= !notes.is_empty();
    }

    /// When the next [`Flows::tick`] has something to note.
    pub(super) fn due(&self) -> Option<Instant> {
        self.connections.due()
    }

    /// The session ends: so do its connections.
    pub(super) fn finish(&mut self, notes: &mut Vec<Note>) {
        self.connections.finish(notes);
        self.unnoted.anything |= !notes.is_empty();
    }

    fn requested(&mut self, payload: &[u8]) -> Result<bool, Fault> {
        if !matches!(self.stage, Stage::Waiting) {
            return Err(Fault::Handshake("the target's agent begins a second handshake"));
        }
        let request = HandshakeRequest::parse(payload)
            .map_err(|_| Fault::Handshake("the handshake of the target's agent cannot be read"))?;
        let agreed = destination::check(&self.forward.destination, &request)?;
        self.stage =
            Stage::Requested { local_forwarding: agreed.local_forwarding, agent: request.agent_version };
        self.unnoted.stage = true;
        Ok(true)
    }

    fn answered(&mut self, payload: &[u8]) -> Result<bool, Fault> {
        let Stage::Requested { local_forwarding, agent } = &self.stage else {
            // The agent's reader blocks for ever on a second answer.
            return Err(Fault::Handshake("the client answers a handshake that nobody asked for"));
        };
        let client = versions::client_version(payload)?;
        let mode = versions::mode(*local_forwarding, agent, &client)?;
        let event = FlowEvent::Handshake { mode, agent: printable(agent), client: printable(&client) };
        self.stage = Stage::Answered { local_forwarding: *local_forwarding, event, mode };
        self.unnoted.stage = true;
        Ok(true)
    }

    fn begin(&mut self, now: Instant, notes: &mut Vec<Note>) -> Result<bool, Fault> {
        let Stage::Answered { local_forwarding, event, mode } = &self.stage else {
            return Err(Fault::Handshake("the target's agent ends a handshake that was not answered"));
        };
        notes.push(Note::Event(event.clone()));
        let (local_forwarding, mode) = (*local_forwarding, *mode);
        let carriage = match mode {
            Mode::Multiplexed => Carriage::Multiplexed(Box::default()),
            Mode::Basic => Carriage::Basic,
        };
        self.stage = Stage::Running { local_forwarding, carriage };
        self.unnoted.stage = true;
        if mode == Mode::Basic {
            // The agent has dialled before it says so.
            self.connections.open(ONLY, now, notes)?;
        }
        Ok(true)
    }

    fn bytes(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        now: Instant,
        notes: &mut Vec<Note>,
    ) -> Result<bool, Fault> {
        let connections = &mut self.connections;
        match &mut self.stage {
            Stage::Running { carriage: Carriage::Multiplexed(streams), .. } => {
                streams.take(direction, bytes, &mut (connections, now, notes))
            }
            Stage::Running { carriage: Carriage::Basic, .. } => {
                // The agent dials again when something comes for it.
                if direction == Direction::Up && !connections.is_open(ONLY) {
                    connections.forget(ONLY, notes);
                    connections.open(ONLY, now, notes)?;
                }
                connections.data(ONLY, direction, bytes, (now, notes));
                Ok(true)
            }
            _ => Err(Fault::Handshake("the target's agent sends before the handshake is over")),
        }
    }

    fn flag(&mut self, from: Side, payload: &[u8], notes: &mut Vec<Note>) -> Result<bool, Fault> {
        let Stage::Running { carriage, .. } = &self.stage else {
            return Err(Fault::Handshake("the target's agent sends before the handshake is over"));
        };
        let Ok(flag) = Flag::parse(payload) else {
            return Err(Fault::Malformed("a flag has no number"));
        };
        notes.push(Note::Event(FlowEvent::Flag { from, flag: u32::from_be_bytes(flag.encode()) }));
        match (from, flag, carriage) {
            (Side::Target, Flag::ConnectToPortError, _) => self.connections.refusal(),
            (Side::Client, Flag::DisconnectToPort, Carriage::Basic) => {
                self.connections.close(ONLY, Side::Client, notes);
            }
            _ => {}
        }
        Ok(true)
    }
}
