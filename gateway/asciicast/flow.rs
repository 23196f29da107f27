//! What a port session's recording says: connections, and their bytes.
//!
//! An `f` line is one [`FlowEvent`] as JSON; a `t` line is captured bytes,
//! `<connection> <up|down> <base64>`. Players skip both.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::encode::{begin, decimal};
use super::{CastError, Event, EventCode, encode_event};

/// Something that happened to a connection of a port session.
///
/// Connections are counted from 1 in the order in which they opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum FlowEvent {
    /// Both ends agreed; bytes may flow.
    Handshake {
        /// How connections are carried.
        mode: Mode,
        /// The version that the agent gave.
        agent: String,
        /// The version that the client gave.
        client: String,
    },
    /// A connection began.
    Open {
        /// Which one.
        connection: u64,
    },
    /// What a connection's first bytes look like; a guess.
    Protocol {
        /// Which one.
        connection: u64,
        /// Whose bytes say so.
        from: Side,
        /// What they say.
        guess: Guess,
    },
    /// How many bytes a connection has carried so far.
    Bytes {
        /// Which one.
        connection: u64,
        /// From the client.
        up: u64,
        /// To the client.
        down: u64,
    },
    /// A connection ended; a later `bytes` tells what was still on its way.
    Close {
        /// Which one.
        connection: u64,
        /// From the client.
        up: u64,
        /// To the client.
        down: u64,
        /// Who ended it.
        by: Side,
    },
    /// The target could not reach the destination for a connection.
    Refused {
        /// Which one.
        connection: u64,
    },
    /// A flag of the session, as its number.
    Flag {
        /// Who sent it.
        from: Side,
        /// 1 disconnect, 2 terminate, 3 destination not reached.
        flag: u32,
    },
}

/// How a port session carries its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Many at once, in smux frames.
    Multiplexed,
    /// One at a time, as plain bytes.
    Basic,
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The engineer's.
    Client,
    /// The destination's.
    Target,
    /// Neither: the session ended.
    Session,
}

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

/// What first bytes look like; only what they show for certain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guess {
    /// `tls`, `ssh`, `http`, `postgresql`, `mysql`, `rdp`, `redis`, ….
    pub protocol: String,
    /// The name that a TLS client asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The protocols that a TLS client offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    /// The method of an HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The host that an HTTP request names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What an end says it is: an SSH banner, a server's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Side {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Target => "target",
            Self::Session => "session",
        }
    }
}

/// `tls db.example.com (h2)`, `http GET web.example.com`, `ssh SSH-2.0-x`.
///
/// It is a stranger's text: control characters are still in it.
impl fmt::Display for Guess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.protocol)?;
        let server = self.server_name.as_deref().or(self.host.as_deref());
        for word in [self.method.as_deref(), server, self.version.as_deref()].into_iter().flatten() {
            write!(f, " {word}")?;
        }
        if !self.alpn.is_empty() {
            write!(f, " ({})", self.alpn.join(" "))?;
        }
        Ok(())
    }
}

impl FlowEvent {
    /// The connection it is about, if about one.
    pub fn connection(&self) -> Option<u64> {
        match *self {
            Self::Handshake { .. } | Self::Flag { .. } => None,
            Self::Open { connection }
            | Self::Protocol { connection, .. }
            | Self::Bytes { connection, .. }
            | Self::Close { connection, .. }
            | Self::Refused { connection } => Some(connection),
        }
    }

    /// Reads an `f` event; `None` for every other one.
    pub fn of(event: &Event) -> Option<Result<Self, CastError>> {
        (event.code == EventCode::FLOW)
            .then(|| serde_json::from_str(&event.data).map_err(|error| CastError::Event(error.to_string())))
    }
}

impl Direction {
    /// The word in a `t` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Something to write down about a port session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowNote {
    /// What happened to a connection.
    Event(FlowEvent),
    /// Bytes of a connection: which one, which way.
    Traffic(u64, Direction, Bytes),
}

impl FlowNote {
    /// Appends its line.
    pub fn encode(&self, into: &mut Vec<u8>, time_ms: u64) -> Result<(), CastError> {
        match self {
            Self::Event(event) => return encode_flow(into, time_ms, event),
            Self::Traffic(connection, direction, bytes) => {
                encode_traffic(into, time_ms, *connection, *direction, bytes);
            }
        }
        Ok(())
    }
}

/// Captured bytes of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// Which connection.
    pub connection: u64,
    /// Which way they went.
    pub direction: Direction,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Traffic {
    /// Reads a `t` event; `None` for every other one.
    pub fn of(event: &Event) -> Option<Result<Self, CastError>> {
        (event.code == EventCode::TRAFFIC)
            .then(|| Self::parse(&event.data).ok_or_else(|| CastError::Event("captured bytes".to_owned())))
    }

    fn parse(text: &str) -> Option<Self> {
        let (connection, rest) = text.split_once(' ')?;
        let (direction, bytes) = rest.split_once(' ')?;
        let direction = match direction {
            "up" => Direction::Up,
            "down" => Direction::Down,
            _ => return None,
        };
        let bytes = STANDARD.decode(bytes).ok()?;
        Some(Self { connection: connection.parse().ok()?, direction, bytes })
    }
}

/// Appends one `f` line.
pub fn encode_flow(into: &mut Vec<u8>, time_ms: u64, event: &FlowEvent) -> Result<(), CastError> {
    let text = serde_json::to_string(event).map_err(|error| CastError::Event(error.to_string()))?;
    encode_event(into, time_ms, EventCode::FLOW, &text);
    Ok(())
}

/// Appends one `t` line.
pub fn encode_traffic(into: &mut Vec<u8>, time_ms: u64, connection: u64, direction: Direction, bytes: &[u8]) {
    begin(into, time_ms, EventCode::TRAFFIC);
    decimal(into, connection);
    into.push(b' ');
    into.extend_from_slice(direction.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    into.extend_from_slice(b"\"]\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_event_is_one_json_object() {
        let mut line = Vec::new();
        let event = FlowEvent::Close { connection: 3, up: 1, down: 2, by: Side::Target };
        encode_flow(&mut line, 1500, &event).unwrap();
        let expected = concat!(
            r#"[1.500,"f","{\"event\":\"close\",\"connection\":3,\"up\":1,\"down\":2,"#,
            r#"\"by\":\"target\"}"]"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line.clone()).unwrap(), expected);
        let read = Event::parse(&line).unwrap();
        assert_eq!(FlowEvent::of(&read), Some(Ok(event)));
        assert_eq!(Traffic::of(&read), None);
    }

    #[test]
    fn captured_bytes_read_back_exactly() {
        let (mut line, bytes) = (Vec::new(), (0..=255).collect::<Vec<u8>>());
        encode_traffic(&mut line, 7, 12, Direction::Down, &bytes);
        let read = Traffic::of(&Event::parse(&line).unwrap()).unwrap().unwrap();
        assert_eq!(read, Traffic { connection: 12, direction: Direction::Down, bytes });
    }

    #[test]
    fn what_is_no_captured_bytes_is_an_error() {
        for text in ["", "1", "1 up", "x up YQ==", "1 left YQ==", "1 up ???"] {
            let event = Event { time_ms: 0, code: EventCode::TRAFFIC, data: text.to_owned() };
            assert!(Traffic::of(&event).unwrap().is_err(), "{text:?} was read");
        }
    }
}
