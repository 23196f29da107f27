//! One event of a recording: when, what, and its text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};

use super::CastError;

/// Latest time an event may carry: ten years, in milliseconds.
const TIME_MAX_MS: f64 = 10.0 * 366.0 * 86_400_000.0;

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventCode {
    /// `o`: shown on the terminal.
    Output,
    /// `i`: typed by the person.
    Input,
    /// `r`: the window's size, as `80x24`.
    Resize,
    /// `m`: a mark with a label.
    Marker,
    /// `x`: the exit status of the command.
    Exit,
    /// Any other code; players skip it.
    Other(char),
}

impl EventCode {
    /// `s`: sequence number and stream of the next event.
    pub const SEQUENCE: Self = Self::Other('s');
    /// `b`: the exact bytes of the next event, base64.
    pub const BYTES: Self = Self::Other('b');
    /// `f`: something happened to a connection of a port session.
    pub const FLOW: Self = Self::Other('f');
    /// `t`: captured bytes of a connection.
    pub const TRAFFIC: Self = Self::Other('t');

    /// The code as asciicast writes it.
    pub fn as_char(self) -> char {
        match self {
            Self::Output => 'o',
            Self::Input => 'i',
            Self::Resize => 'r',
            Self::Marker => 'm',
            Self::Exit => 'x',
            Self::Other(code) => code,
        }
    }
}

impl From<char> for EventCode {
    fn from(code: char) -> Self {
        match code {
            'o' => Self::Output,
            'i' => Self::Input,
            'r' => Self::Resize,
            'm' => Self::Marker,
            'x' => Self::Exit,
            other => Self::Other(other),
        }
    }
}

/// One event: milliseconds since the start, code, text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds since the recording began.
    pub time_ms: u64,
    /// What it is.
    pub code: EventCode,
    /// Its text.
    pub data: String,
}

impl Event {
    /// Reads one event line; the line feed may be there or not.
    ///
    /// Times of other programs with µs are rounded to ms.
    pub fn parse(line: &[u8]) -> Result<Self, CastError> {
        serde_json::from_slice(line).map_err(|error| CastError::Event(error.to_string()))
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EventVisitor)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = Event;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[time, code, data]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Event, A::Error> {
        let missing = |what| A::Error::custom(format_args!("its {what} is missing"));
        let seconds: f64 = parts.next_element()?.ok_or_else(|| missing("time"))?;
        let code: char = parts.next_element()?.ok_or_else(|| missing("code"))?;
        let data: String = parts.next_element()?.ok_or_else(|| missing("data"))?;
        if parts.next_element::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("it has more than three parts"));
        }
        let ms = (seconds * 1000.0).round();
        if !(0.0..=TIME_MAX_MS).contains(&ms) {
            return Err(A::Error::custom("its time is out of range"));
        }
        Ok(Event { time_ms: ms as u64, code: code.into(), data })
    }
}

/// What a line that [`super::encode_event`] wrote begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek<'a> {
    /// Milliseconds since the recording began.
    pub time_ms: u64,
    /// What it is.
    pub code: EventCode,
    /// The data, still escaped as JSON.
    pub escaped: &'a [u8],
}

/// Reads time and code of a line of our own without parsing its data.
///
/// `None` for any line that is not exactly in the form that
/// [`super::encode_event`] writes; such lines still may be valid asciicast.
pub fn peek(line: &[u8]) -> Option<Peek<'_>> {
    let rest = line.strip_prefix(b"[")?;
    let dot = rest.iter().take(16).position(|b| *b == b'.')?;
    let (seconds, rest) = rest.split_at_checked(dot)?;
    let (fraction, rest) = rest.strip_prefix(b".")?.split_at_checked(3)?;
    let rest = rest.strip_prefix(b",\"")?;
    let (code, rest) = rest.split_first()?;
    let escaped = rest.strip_prefix(b"\",\"")?;
    let escaped = escaped.strip_suffix(b"\n").unwrap_or(escaped).strip_suffix(b"\"]")?;
    let time_ms = digits(seconds)?.checked_mul(1000)?.checked_add(digits(fraction)?)?;
    let code = code.is_ascii_alphabetic().then_some(char::from(*code))?;
    Some(Peek { time_ms, code: code.into(), escaped })
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
