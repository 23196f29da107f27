//! Where a port session is, for a process that goes on with it.
//!
//! A note is an `s` line, `flow {…}`, and says what changed since the one
//! before. It covers every message below its two numbers, and what is written
//! of them is written with it, in one piece: a crash leaves both or neither.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{CastError, Event, EventCode, Guess, Mode, Side, encode_event};

/// What a note begins with.
const WORD: &str = "flow ";
/// Bytes kept of the digest of an input message.
///
/// Enough that nobody makes two messages that share them.
pub const INPUT_DIGEST: usize = 16;

/// Where a port session is, or what of that has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowState {
    /// The number of the first output message that is not covered.
    pub output: i64,
    /// The number of the first input message that is not covered.
    pub input: i64,
    /// The client has acknowledged all output below this number.
    #[serde(default)]
    pub acknowledged: i64,
    /// What the input messages since the last note were, as
    /// [`FlowState::digests`] reads it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub inputs: String,
    /// How far the handshake is; `None`: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<FlowStage>,
    /// Where the frames from the client are.
    #[serde(default, skip_serializing_if = "FramePlace::is_between")]
    pub up: FramePlace,
    /// Where the frames to the client are.
    #[serde(default, skip_serializing_if = "FramePlace::is_between")]
    pub down: FramePlace,
    /// Connections that began so far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub opened: u64,
    /// Destinations not reached whose stream has not ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals: u64,
    /// Connections by stream; `None`: it is forgotten.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connections: BTreeMap<u32, Option<FlowConnection>>,
}

/// How far the handshake of a port session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowStage {
    /// The agent has asked.
    Requested {
        /// Whether the document wants local port forwarding.
        local_forwarding: bool,
        /// The version that the agent gave.
        agent: String,
    },
    /// The client has answered.
    Answered {
        /// Whether the document wants local port forwarding.
        local_forwarding: bool,
        /// How connections will be carried.
        mode: Mode,
        /// The version that the agent gave.
        agent: String,
        /// The version that the client gave.
        client: String,
    },
    /// Bytes may flow.
    Running {
        /// Whether the document wants local port forwarding.
        local_forwarding: bool,
        /// How connections are carried.
        mode: Mode,
    },
}

/// Where one direction is in its frames.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FramePlace {
    /// The part of the next header that has come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<u8>,
    /// The stream of the current frame.
    #[serde(default)]
    pub stream: u32,
    /// The bytes of data that are still to come in it.
    #[serde(default)]
    pub left: u32,
}

impl FramePlace {
    /// Whether the next byte begins a frame.
    pub fn is_between(&self) -> bool {
        self.header.is_empty() && self.left == 0
    }
}

/// What is known of one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowConnection {
    /// Which one, counted from 1.
    pub number: u64,
    /// Bytes from the client.
    pub up: u64,
    /// Bytes to the client.
    pub down: u64,
    /// What was written of both last.
    pub noted: (u64, u64),
    /// Who ended it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Side>,
    /// What the client's first bytes look like, if that is not written yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_guess: Option<Guess>,
    /// What the target's first bytes look like, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_guess: Option<Guess>,
}

impl FlowState {
    /// Reads a note; `None` for every other event.
    pub fn of(event: &Event) -> Option<Result<Self, CastError>> {
        let text = event.data.strip_prefix(WORD).filter(|_| event.code == EventCode::SEQUENCE)?;
        Some(serde_json::from_str(text).map_err(|error| CastError::Event(error.to_string())))
    }

    /// Whether the data of an `s` line, escaped or not, is a note.
    pub fn is_note(data: &[u8]) -> bool {
        data.starts_with(WORD.as_bytes())
    }

    /// Appends the note as one line.
    pub fn encode(&self, into: &mut Vec<u8>, time_ms: u64) -> Result<(), CastError> {
        let text = serde_json::to_string(self).map_err(|error| CastError::Event(error.to_string()))?;
        encode_event(into, time_ms, EventCode::SEQUENCE, &format!("{WORD}{text}"));
        Ok(())
    }

    /// Says what the input messages below `input` were.
    pub fn set_digests(&mut self, digests: &[[u8; INPUT_DIGEST]]) {
        self.inputs = STANDARD_NO_PAD.encode(digests.as_flattened());
    }

    /// The input messages that a note covers for the first time, by number.
    ///
    /// Of each the beginning of a digest that only the gateway can make, as
    /// it has the key: what a client sends again must be what it was.
    pub fn digests(&self) -> Vec<(i64, [u8; INPUT_DIGEST])> {
        let bytes = STANDARD_NO_PAD.decode(&self.inputs).unwrap_or_default();
        let (digests, _) = bytes.as_chunks();
        let first = self.input.saturating_sub(i64::try_from(digests.len()).unwrap_or(i64::MAX));
        (first..).zip(digests.iter().copied()).collect()
    }

    /// Takes in what a later note says.
    pub fn then(&mut self, later: Self) {
        let mut connections = std::mem::take(&mut self.connections);
        for (stream, connection) in later.connections {
            match connection {
                Some(_) => connections.insert(stream, connection),
                None => connections.remove(&stream),
            };
        }
        let inputs = String::new();
        *self = Self { inputs, stage: later.stage.or(self.stage.take()), connections, ..later };
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(number: u64) -> FlowConnection {
        FlowConnection { number, up: 3, down: 4, ..FlowConnection::default() }
    }

    #[test]
    fn a_note_is_one_line_that_reads_back() {
        let stage = Some(FlowStage::Running { local_forwarding: true, mode: Mode::Multiplexed });
        let down = FramePlace { header: vec![1, 2], stream: 3, left: 0 };
        let connections = [(3, Some(connection(1))), (5, None)].into();
        let note = FlowState { output: 7, input: 2, stage, down, connections, ..FlowState::default() };
        let mut line = Vec::new();
        note.encode(&mut line, 1500).unwrap();
        let event = Event::parse(&line).unwrap();
        assert!(FlowState::is_note(event.data.as_bytes()));
        assert_eq!(FlowState::of(&event), Some(Ok(note)));
        let other = Event { data: "settled".to_owned(), ..event };
        assert_eq!(FlowState::of(&other), None);
    }

    #[test]
    fn a_note_says_what_the_messages_were_that_it_covers_first() {
        let mut note = FlowState { input: 7, ..FlowState::default() };
        assert!(note.digests().is_empty());
        note.set_digests(&[[1; INPUT_DIGEST], [2; INPUT_DIGEST]]);
        assert_eq!(note.digests(), [(5, [1; INPUT_DIGEST]), (6, [2; INPUT_DIGEST])]);
        let mut state = FlowState::default();
        state.then(note);
        assert_eq!((state.input, state.inputs.as_str()), (7, ""));
    }

    #[test]
    fn a_quiet_note_is_short() {
        let connections = [(3, Some(connection(1)))].into();
        let note = FlowState { output: 1000, input: 10, opened: 1, connections, ..FlowState::default() };
        let mut line = Vec::new();
        note.encode(&mut line, 0).unwrap();
        assert!(line.len() < 180, "{}", String::from_utf8(line).unwrap());
    }

    #[test]
    fn a_later_note_says_only_what_changed() {
        let stage = Some(FlowStage::Requested { local_forwarding: false, agent: "3".to_owned() });
        let connections = [(3, Some(connection(1))), (5, Some(connection(2)))].into();
        let mut state = FlowState { output: 1, stage: stage.clone(), connections, ..FlowState::default() };
        let connections = [(3, None), (7, Some(connection(3)))].into();
        state.then(FlowState { output: 2, input: 1, connections, ..FlowState::default() });
        let connections = [(5, Some(connection(2))), (7, Some(connection(3)))].into();
        assert_eq!(state, FlowState { output: 2, input: 1, stage, connections, ..FlowState::default() });
    }
}
