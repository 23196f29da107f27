//! The connections of a port session, as a table.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::{End, ReplayError, Timeline};
use crate::asciicast::{Event, FlowEvent, Guess, Header, Mode};
use crate::session::printable;

/// Rows kept, some 300 bytes each; a recording with more is cut, and says so.
const ROWS_MAX: usize = 200_000;

/// What a port session did.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlowTable {
    /// The session, if the header says.
    pub session: Option<String>,
    /// Where its connections went.
    pub host: Option<String>,
    /// And to which port.
    pub port: Option<u16>,
    /// Whether the bytes themselves are in the recording.
    pub traffic: bool,
    /// How connections were carried, once both ends agreed.
    pub mode: Option<Mode>,
    /// Its connections, in the order in which they opened.
    pub connections: Vec<Flow>,
    /// Connections that the table has no room for.
    pub omitted: u64,
}

/// One connection of a port session.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Its number in the session, from 1.
    pub connection: u64,
    /// When it opened, milliseconds since the session began.
    pub opened_ms: u64,
    /// When it ended, if it did while it was recorded.
    pub closed_ms: Option<u64>,
    /// Bytes from the client.
    pub up: u64,
    /// Bytes to the client.
    pub down: u64,
    /// What its first bytes look like: a guess, by whose bytes.
    pub guesses: Vec<Guess>,
    /// `client`, `target`, `session` or `refused`; none: not recorded.
    pub end: Option<&'static str>,
}

/// Whether a recording is one of connections instead of a screen.
pub fn holds_flows(header: &Header) -> bool {
    header.said("content").is_some_and(|content| content.starts_with("flows"))
}

/// Whether the bytes of the connections are in it too.
pub(super) fn holds_traffic(header: &Header) -> bool {
    header.said("content") == Some("flows+traffic")
}

/// Reads a recording to its end and makes the table.
pub fn flow_table(timeline: &mut Timeline) -> Result<(FlowTable, End), ReplayError> {
    let header = timeline.header();
    let port = header.postern.as_ref().and_then(|about| about.get("port")?.as_u64());
    let mut table = FlowTable {
        session: header.said("session").map(printable),
        host: header.said("host").map(printable),
        port: port.and_then(|port| u16::try_from(port).ok()),
        traffic: holds_traffic(header),
        ..FlowTable::default()
    };
    let mut rows = BTreeMap::new();
    while let Some(event) = timeline.next_event()? {
        table.take(&event, &mut rows);
    }
    table.connections = rows.into_values().collect();
    Ok((table, timeline.end()))
}

impl FlowTable {
    fn take(&mut self, event: &Event, rows: &mut BTreeMap<u64, Flow>) {
        // One that cannot be read takes nothing from the others.
        let Some(Ok(flow)) = FlowEvent::of(event) else { return };
        match flow {
            FlowEvent::Handshake { mode, .. } => self.mode = Some(mode),
            FlowEvent::Open { .. } if rows.len() >= ROWS_MAX => self.omitted += 1,
            FlowEvent::Open { connection } => {
                let row = Flow { connection, opened_ms: event.time_ms, ..Flow::default() };
                rows.insert(connection, row);
            }
            other => {
                if let Some(row) = other.connection().and_then(|number| rows.get_mut(&number)) {
                    row.take(event.time_ms, other);
                }
            }
        }
    }

    /// Writes the table for people; every line ends with a line feed.
    pub fn write(&self, out: &mut impl Write) -> Result<(), ReplayError> {
        self.write_lines(out).map_err(ReplayError::Write)
    }

    fn write_lines(&self, out: &mut impl Write) -> std::io::Result<()> {
        let (host, port) = (self.host.as_deref().unwrap_or("?"), self.port.unwrap_or_default());
        let (up, down) =
            self.connections.iter().fold((0, 0), |(up, down), flow| (up + flow.up, down + flow.down));
        let count = self.connections.len() as u64 + self.omitted;
        writeln!(out, "{count} connections to {host}:{port}, {up} bytes up, {down} bytes down")?;
        if count == 0 {
            return Ok(());
        }
        let headings = ["CONNECTION", "OPENED", "CLOSED", "UP", "DOWN", "LOOKS LIKE", "ENDED BY"];
        let rows = self.connections.iter().map(Flow::cells);
        let rows: Vec<[String; 7]> = [headings.map(str::to_owned)].into_iter().chain(rows).collect();
        let mut widths = [0; 7];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        match self.omitted {
            0 => Ok(()),
            more => writeln!(out, "and {more} more"),
        }
    }
}

impl Flow {
    fn take(&mut self, time_ms: u64, event: FlowEvent) {
        match event {
            FlowEvent::Protocol { guess, .. } => self.guesses.push(guess),
            FlowEvent::Bytes { up, down, .. } => (self.up, self.down) = (up, down),
            FlowEvent::Close { up, down, by, .. } => {
                (self.up, self.down, self.closed_ms) = (up, down, Some(time_ms));
                self.end = Some(by.as_str());
            }
            FlowEvent::Refused { .. } => (self.closed_ms, self.end) = (Some(time_ms), Some("refused")),
            FlowEvent::Handshake { .. } | FlowEvent::Open { .. } | FlowEvent::Flag { .. } => {}
        }
    }

    fn cells(&self) -> [String; 7] {
        [
            self.connection.to_string(),
            clock(self.opened_ms),
            self.closed_ms.map(clock).unwrap_or_default(),
            self.up.to_string(),
            self.down.to_string(),
            self.guesses.iter().map(|guess| printable(&guess.to_string())).collect::<Vec<_>>().join(", "),
            self.end.unwrap_or_default().to_owned(),
        ]
    }
}

/// `0:00:03.120` since the session began.
fn clock(ms: u64) -> String {
    format!("{}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}
