//! Which message an event is: sequence numbers, streams, exact bytes.
//!
//! Every output message is exactly one `o` line (`x` for an exit code), and
//! its sequence number is one more than that of the line before. An `s` line
//! before it says otherwise: `s 17` (this one is 17), `s stderr 17`, `s exit 17`
//! or `s -` (no message; the gateway's own). So the lines alone tell what a
//! recording covers, through re-compression and after a crash.
//!
//! More `s` lines are for a gateway that takes a session over: `s owed 17`
//! (the client may lack messages from 17 on; `s owed -`: none any more),
//! `s input 5` (the next `i` line is input message 5) and `s settled` (the
//! client takes messages: what it is silent about, it has). `s hidden` says of
//! the next `i` line that `*` stands for text that the terminal did not show.
//! Of a port session there is `s flow {…}`, see [`super::FlowState`].

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::encode::{begin, decimal};
use super::{Event, EventCode};

/// Which stream of the agent a message is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output or the terminal: payload type 1.
    Output,
    /// Standard error: payload type 11.
    StdErr,
    /// The command's exit code as text: payload type 12.
    ExitCode,
}

/// One `o` or `x` event with what its mark said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered<T> {
    /// The message's sequence number; `None` if it was no message.
    pub sequence: Option<i64>,
    /// The stream it came from.
    pub stream: Stream,
    /// The event's bytes or lines, as asked for.
    pub content: T,
}

/// Follows `s` marks through the lines of a recording, in order.
#[derive(Debug, Default, Clone)]
pub struct Marks {
    next: Option<i64>,
    said: Option<(Stream, Option<i64>)>,
}

impl Marks {
    /// Takes the next line's code and data; tells what an `o` or `x` is.
    pub fn follow(&mut self, code: EventCode, data: &[u8]) -> Option<Covered<()>> {
        match code {
            EventCode::SEQUENCE => {
                self.said = parse_mark(data);
                None
            }
            EventCode::Output | EventCode::Exit => {
                let usual = if code == EventCode::Exit { Stream::ExitCode } else { Stream::Output };
                let (stream, sequence) = self.said.take().unwrap_or((usual, self.next));
                if let Some(sequence) = sequence {
                    self.next = sequence.checked_add(1);
                }
                Some(Covered { sequence, stream, content: () })
            }
            _ => None,
        }
    }

    /// Says that the message with this number was just written.
    pub fn wrote(&mut self, sequence: i64) {
        self.said = None;
        self.next = sequence.checked_add(1);
    }

    /// The sequence number that the next message should have.
    pub fn expected(&self) -> Option<i64> {
        self.next
    }

    /// Whether a message of that stream needs no `s` line before it.
    pub fn implies(&self, stream: Stream, sequence: i64) -> bool {
        stream != Stream::StdErr && self.next == Some(sequence)
    }
}

/// What an `s` line says to a gateway that takes the session over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// The client may lack output from this number on; `None`: it has all.
    Owed(Option<i64>),
    /// The next input event is the input message of this number.
    Input(i64),
    /// The client acknowledges in order: what it is silent about it has.
    Settled,
    /// The next input event has a `*` for text that was not shown.
    Hidden,
}

impl Handover {
    /// Appends the line.
    pub fn encode(self, into: &mut Vec<u8>, time_ms: u64) {
        begin(into, time_ms, EventCode::SEQUENCE);
        let (word, sequence) = match self {
            Self::Owed(sequence) => (b"owed ".as_slice(), sequence),
            Self::Input(sequence) => (b"input ".as_slice(), Some(sequence)),
            Self::Settled => return into.extend_from_slice(b"settled\"]\n"),
            Self::Hidden => return into.extend_from_slice(b"hidden\"]\n"),
        };
        into.extend_from_slice(word);
        number(into, sequence);
        into.extend_from_slice(b"\"]\n");
    }

    /// Reads the data of an `s` line; `None` if it says something else.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let parsed = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
        match data {
            b"settled" => return Some(Self::Settled),
            b"hidden" => return Some(Self::Hidden),
            _ => {}
        }
        if let Some(digits) = data.strip_prefix(b"input ") {
            return parsed(digits).map(Self::Input);
        }
        match data.strip_prefix(b"owed ")? {
            b"-" => Some(Self::Owed(None)),
            digits => parsed(digits).map(|sequence| Self::Owed(Some(sequence))),
        }
    }
}

/// Appends an `s` line; `None` says that the next event is no message.
pub fn encode_mark(into: &mut Vec<u8>, time_ms: u64, stream: Stream, sequence: Option<i64>) {
    begin(into, time_ms, EventCode::SEQUENCE);
    match stream {
        Stream::Output => {}
        Stream::StdErr => into.extend_from_slice(b"stderr "),
        Stream::ExitCode => into.extend_from_slice(b"exit "),
    }
    number(into, sequence);
    into.extend_from_slice(b"\"]\n");
}

fn number(into: &mut Vec<u8>, sequence: Option<i64>) {
    let Some(number) = sequence else { return into.push(b'-') };
    if number < 0 {
        into.push(b'-');
    }
    decimal(into, number.unsigned_abs());
}

fn parse_mark(data: &[u8]) -> Option<(Stream, Option<i64>)> {
    let (stream, rest) = match (data.strip_prefix(b"stderr "), data.strip_prefix(b"exit ")) {
        (Some(rest), _) => (Stream::StdErr, rest),
        (_, Some(rest)) => (Stream::ExitCode, rest),
        _ => (Stream::Output, data),
    };
    if rest == b"-" {
        return Some((stream, None));
    }
    let sequence = std::str::from_utf8(rest).ok()?.parse().ok()?;
    Some((stream, Some(sequence)))
}

/// Rebuilds the exact bytes of every output event, in order.
///
/// What is no output is skipped. The bytes of one stream, joined, are what
/// the agent sent on it.
pub fn exact_output<'a, I>(events: I) -> impl Iterator<Item = Covered<Cow<'a, [u8]>>>
where
    I: IntoIterator<Item = &'a Event>,
{
    let mut marks = Marks::default();
    let mut companion = None;
    events.into_iter().filter_map(move |event| {
        if event.code == EventCode::BYTES {
            companion = STANDARD.decode(&event.data).ok();
            return None;
        }
        let covered = marks.follow(event.code, event.data.as_bytes());
        if event.code == EventCode::SEQUENCE {
            return None;
        }
        let exact = companion.take();
        let content = exact.map_or(Cow::Borrowed(event.data.as_bytes()), Cow::Owned);
        covered.map(|covered| Covered { sequence: covered.sequence, stream: covered.stream, content })
    })
}
