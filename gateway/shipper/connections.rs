//! The connections of a port session, each told when it begins and ends.

use std::collections::BTreeMap;

use serde::Serialize;

use super::event::{Happened, What};
use crate::asciicast::{FlowEvent, Guess, Header};
use crate::session::printable;

/// Connections that are remembered, some 300 bytes each; the oldest go first.
///
/// A session has far fewer at once, but an ended one may still get bytes.
const REMEMBERED_MAX: usize = 2048;
/// Longest text of a guess in an event, bytes.
const LOOKS_MAX: usize = 1000;

/// One connection, as an event tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connection {
    /// Its number in the session, from 1.
    connection: u64,
    /// Where it went.
    #[serde(skip_serializing_if = "String::is_empty")]
    host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
}

/// What is known of a connection once it is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ended {
    duration_ms: u64,
    /// From the client.
    bytes_up: u64,
    /// To the client.
    bytes_down: u64,
    /// What its first bytes looked like, by one word; a guess.
    #[serde(skip_serializing_if = "String::is_empty")]
    protocol: String,
    /// And with all they said.
    #[serde(skip_serializing_if = "String::is_empty")]
    looks_like: String,
    /// `client`, `target`, `session` or `refused`; none: not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<&'static str>,
}

/// The connections of one session while its lines are followed.
#[derive(Default)]
pub(super) struct Connections {
    host: String,
    port: Option<u16>,
    known: BTreeMap<u64, Known>,
}

#[derive(Default)]
struct Known {
    opened_ms: u64,
    up: u64,
    down: u64,
    guesses: Vec<Guess>,
    /// When it ended, and by whom.
    ended: Option<(u64, &'static str)>,
}

impl Connections {
    /// Those of a session with that header, none so far.
    pub(super) fn of(header: &Header) -> Self {
        let port = header.postern.as_ref().and_then(|about| about.get("port")?.as_u64());
        Self {
            host: header.said("host").map(printable).unwrap_or_default(),
            port: port.and_then(|port| u16::try_from(port).ok()),
            known: BTreeMap::new(),
        }
    }

    /// Follows one event; an end is told again if bytes came after it.
    pub(super) fn follow(&mut self, time_ms: u64, flow: FlowEvent, happened: &mut Vec<Happened>) {
        let Some(connection) = flow.connection() else { return };
        if let FlowEvent::Open { .. } = flow {
            if self.known.len() >= REMEMBERED_MAX {
                self.known.pop_first();
            }
            self.known.insert(connection, Known { opened_ms: time_ms, ..Known::default() });
            let begun = self.connection(connection, None);
            return happened.push(Happened { time_ms, what: What::ConnectionStart(begun) });
        }
        let Some(known) = self.known.get_mut(&connection) else { return };
        match flow {
            FlowEvent::Protocol { guess, .. } => return known.guesses.push(guess),
            FlowEvent::Bytes { up, down, .. } => (known.up, known.down) = (up, down),
            FlowEvent::Close { up, down, by, .. } => {
                (known.up, known.down, known.ended) = (up, down, Some((time_ms, by.as_str())));
            }
            FlowEvent::Refused { .. } => known.ended = Some((time_ms, "refused")),
            FlowEvent::Open { .. } | FlowEvent::Handshake { .. } | FlowEvent::Flag { .. } => {}
        }
        if known.ended.is_some() {
            let ended = known.told(time_ms);
            let what = What::ConnectionEnd(self.connection(connection, Some(ended)));
            happened.push(Happened { time_ms, what });
        }
    }

    /// Tells what never ended while it was recorded.
    pub(super) fn finish(&mut self, time_ms: u64, happened: &mut Vec<Happened>) {
        for (number, known) in std::mem::take(&mut self.known) {
            if known.ended.is_none() {
                let what = What::ConnectionEnd(self.connection(number, Some(known.told(time_ms))));
                happened.push(Happened { time_ms, what });
            }
        }
    }

    fn connection(&self, connection: u64, ended: Option<Ended>) -> Box<Connection> {
        Box::new(Connection { connection, host: self.host.clone(), port: self.port, ended })
    }
}

impl Known {
    fn told(&self, now_ms: u64) -> Ended {
        let looks: Vec<String> = self.guesses.iter().map(|guess| printable(&guess.to_string())).collect();
        let mut looks_like = looks.join(", ");
        looks_like.truncate(looks_like.floor_char_boundary(LOOKS_MAX));
        Ended {
            duration_ms: self.ended.map_or(now_ms, |(ended_ms, _)| ended_ms).saturating_sub(self.opened_ms),
            bytes_up: self.up,
            bytes_down: self.down,
            protocol: self.guesses.first().map(|guess| printable(&guess.protocol)).unwrap_or_default(),
            looks_like,
            ended_by: self.ended.map(|(_, by)| by),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::asciicast::Side;

    fn connections() -> Connections {
        let mut header = Header::new(0);
        header.postern = json!({"host": "db.example.com", "port": 5432}).as_object().cloned();
        Connections::of(&header)
    }

    fn told(flows: Vec<(u64, FlowEvent)>, finish_ms: Option<u64>) -> Vec<(u64, &'static str, Value)> {
        let (mut connections, mut happened) = (connections(), Vec::new());
        for (time_ms, flow) in flows {
            connections.follow(time_ms, flow, &mut happened);
        }
        finish_ms.into_iter().for_each(|time_ms| connections.finish(time_ms, &mut happened));
        let shown = |happened: Happened| match happened.what {
            What::ConnectionStart(about) => (happened.time_ms, "start", serde_json::to_value(about).unwrap()),
            What::ConnectionEnd(about) => (happened.time_ms, "end", serde_json::to_value(about).unwrap()),
            other => panic!("{other:?}"),
        };
        happened.into_iter().map(shown).collect()
    }

    #[test]
    fn a_connection_is_told_when_it_begins_and_with_all_it_was_when_it_ends() {
        let guess = Guess {
            protocol: "tls".to_owned(),
            server_name: Some("db\u{1b}[2J.example.com".to_owned()),
            ..Guess::default()
        };
        let told = told(
            vec![
                (100, FlowEvent::Open { connection: 1 }),
                (110, FlowEvent::Protocol { connection: 1, from: Side::Client, guess }),
                (900, FlowEvent::Bytes { connection: 1, up: 5, down: 6 }),
                (1100, FlowEvent::Close { connection: 1, up: 7, down: 8, by: Side::Client }),
                (1200, FlowEvent::Bytes { connection: 1, up: 7, down: 80 }),
            ],
            Some(2000),
        );
        let start = json!({"connection": 1, "host": "db.example.com", "port": 5432});
        let end = |down: u64| {
            json!({
                "connection": 1, "host": "db.example.com", "port": 5432, "durationMs": 1000, "bytesUp": 7,
                "bytesDown": down, "protocol": "tls", "looksLike": "tls db[2J.example.com", "endedBy": "client",
            })
        };
        assert_eq!(told, [(100, "start", start), (1100, "end", end(8)), (1200, "end", end(80))]);
    }

    #[test]
    fn a_refused_one_and_one_that_never_ended_are_told_too() {
        let told = told(
            vec![
                (5, FlowEvent::Open { connection: 1 }),
                (6, FlowEvent::Open { connection: 2 }),
                (7, FlowEvent::Refused { connection: 2 }),
                (8, FlowEvent::Close { connection: 9, up: 1, down: 1, by: Side::Client }),
            ],
            Some(50),
        );
        let ends: Vec<_> = told.iter().filter(|(_, what, _)| *what == "end").map(|(_, _, end)| end).collect();
        assert_eq!((&ends[0]["connection"], &ends[0]["endedBy"]), (&json!(2), &json!("refused")));
        assert_eq!((&ends[1]["connection"], &ends[1]["durationMs"]), (&json!(1), &json!(45)));
        assert_eq!((ends[1].get("endedBy"), ends.len()), (None, 2));
    }

    #[test]
    fn however_many_connections_a_session_has_few_are_remembered() {
        let (mut connections, mut happened) = (connections(), Vec::new());
        for connection in 1..=10_000 {
            connections.follow(0, FlowEvent::Open { connection }, &mut happened);
        }
        assert_eq!((connections.known.len(), happened.len()), (REMEMBERED_MAX, 10_000));
    }
}
