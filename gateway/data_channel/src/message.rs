//! One message of the data channel: a 120-byte header and a payload.

use bytes::{BufMut, Bytes, BytesMut};
use ring::digest::{SHA256, digest};
use uuid::Uuid;

use crate::payload::PayloadType;

/// Bytes before the payload of a message as both peers write it.
pub const HEADER_LEN: usize = 120;
/// Most payload bytes of a stream message; both peers cut here.
pub const CHUNK: usize = 1024;
/// Header flag of an agent's first stream message.
pub const SYN: u64 = 1;
/// Header flags of acknowledges and of the agent's state.
pub const SYN_FIN: u64 = 3;

/// The value of HeaderLength: the offset of PayloadLength, not 120.
const HEADER_LENGTH: u32 = 116;
/// Width of the PayloadLength field, which HeaderLength leaves out.
const PAYLOAD_LENGTH_WIDTH: usize = 4;
/// Width of the MessageType field, padded with spaces.
const TYPE_WIDTH: usize = 32;
/// The only SchemaVersion there is.
const SCHEMA_VERSION: u32 = 1;
/// Bytes of a SHA-256 digest.
const DIGEST_LEN: usize = 32;
/// Where the header holds the SequenceNumber.
const SEQUENCE: std::ops::Range<usize> = 48..56;

/// Why bytes are not a message, or a payload not what its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The header does not fit.
    #[error("the message has {0} bytes, its header alone has 120")]
    TooShort(usize),
    /// HeaderLength is zero or points into the header itself.
    #[error("the header length is {0}, it must be 116 or more")]
    HeaderLength(u32),
    /// HeaderLength points past the end; both real peers go deaf on it.
    #[error("the header length is {header_length}, past the end of {len} bytes")]
    PastEnd {
        /// What the header says.
        header_length: u32,
        /// Bytes of the whole message.
        len: usize,
    },
    /// MessageType is blank.
    #[error("the message has no type")]
    NoType,
    /// CreatedDate is zero.
    #[error("the message has no creation date")]
    NoDate,
    /// The payload is not what its type says; the text names the type.
    #[error("the payload is not a valid {0}")]
    Payload(&'static str),
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// A stream message from client to agent.
    InputStreamData,
    /// A stream message from agent to client.
    OutputStreamData,
    /// One stream message has been accepted.
    Acknowledge,
    /// The session is over.
    ChannelClosed,
    /// The other side is there: the agent may send.
    StartPublication,
    /// The other side is away: the agent should wait.
    PausePublication,
    /// The agent tells the service how its session is.
    AgentSessionState,
    /// A session starts, on the control channel.
    InteractiveShell,
    /// A session has ended, on the control channel.
    AgentTaskComplete,
    /// The end of a session was heard, on the control channel.
    AgentTaskAcknowledge,
    /// Any other type; peers ignore such a message.
    Unknown,
}

impl MessageType {
    /// The type's name on the wire; `unknown` for any other.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InputStreamData => "input_stream_data",
            Self::OutputStreamData => "output_stream_data",
            Self::Acknowledge => "acknowledge",
            Self::ChannelClosed => "channel_closed",
            Self::StartPublication => "start_publication",
            Self::PausePublication => "pause_publication",
            Self::AgentSessionState => "agent_session_state",
            Self::InteractiveShell => "interactive_shell",
            Self::AgentTaskComplete => "agent_task_complete",
            Self::AgentTaskAcknowledge => "agent_task_acknowledge",
            Self::Unknown => "unknown",
        }
    }

    /// The type with exactly this name, else `Unknown`.
    pub fn named(name: &[u8]) -> Self {
        match name {
            b"output_stream_data" => Self::OutputStreamData,
            b"acknowledge" => Self::Acknowledge,
            b"input_stream_data" => Self::InputStreamData,
            b"channel_closed" => Self::ChannelClosed,
            b"start_publication" => Self::StartPublication,
            b"pause_publication" => Self::PausePublication,
            b"agent_session_state" => Self::AgentSessionState,
            b"interactive_shell" => Self::InteractiveShell,
            b"agent_task_complete" => Self::AgentTaskComplete,
            b"agent_task_acknowledge" => Self::AgentTaskAcknowledge,
            _ => Self::Unknown,
        }
    }

    /// Whether it carries a sequence number and wants an acknowledge.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::InputStreamData | Self::OutputStreamData)
    }

    /// Whether receivers take it as a signal and ignore its content.
    pub fn is_publication(self) -> bool {
        matches!(self, Self::StartPublication | Self::PausePublication)
    }

    /// Reads the header field: NULs, then white space trimmed, as peers do.
    fn from_field(field: &[u8; TYPE_WIDTH]) -> Result<Self, MessageError> {
        let usual = Self::named(field.trim_ascii_end());
        if usual != Self::Unknown {
            return Ok(usual);
        }
        // Bytes that are not UTF-8 are neither blank nor a known name.
        let Ok(text) = std::str::from_utf8(field) else { return Ok(Self::Unknown) };
        match text.trim_matches('\0').trim() {
            "" => Err(MessageError::NoType),
            name => Ok(Self::named(name.as_bytes())),
        }
    }
}

/// A message as it came, its header read; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    raw: Bytes,
    payload_start: usize,
    sequence: i64,
    created_ms: u64,
    flags: u64,
    id: Uuid,
    message_type: MessageType,
    payload_type: PayloadType,
}

impl Message {
    /// Reads the header in place; copies and allocates nothing.
    ///
    /// Accepts what both real peers accept: the payload is everything after
    /// the header whatever PayloadLength says, and start and pause
    /// publications need no date. A header length that points into the header
    /// is refused; no peer writes one, and it would hide bytes.
    /// The digest is not checked, see [`Message::digest_matches`].
    pub fn parse(raw: Bytes) -> Result<Self, MessageError> {
        let len = raw.len();
        if len < HEADER_LEN {
            return Err(MessageError::TooShort(len));
        }
        let mut fields = Fields { rest: &raw, len };
        let header_length = u32::from_be_bytes(fields.take()?);
        let message_type = MessageType::from_field(&fields.take()?)?;
        let _schema_version: [u8; 4] = fields.take()?;
        let created_ms = u64::from_be_bytes(fields.take()?);
        let sequence = i64::from_be_bytes(fields.take()?);
        let flags = u64::from_be_bytes(fields.take()?);
        let id = swap_halves(Uuid::from_bytes(fields.take()?));
        let _digest: [u8; DIGEST_LEN] = fields.take()?;
        let payload_type = PayloadType::from(u32::from_be_bytes(fields.take()?));

        let payload_start = payload_start(header_length, len, message_type)?;
        if created_ms == 0 && !message_type.is_publication() {
            return Err(MessageError::NoDate);
        }
        Ok(Self { raw, payload_start, sequence, created_ms, flags, id, message_type, payload_type })
    }

    /// What the message is for.
    pub fn message_type(&self) -> MessageType {
        self.message_type
    }

    /// Its number in its direction; 0 for other than stream messages.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// What its payload holds.
    pub fn payload_type(&self) -> PayloadType {
        self.payload_type
    }

    /// Its id in natural order (on the wire the halves are swapped).
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The sender's clock, milliseconds since the Unix epoch.
    pub fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// Header flags: bit 0 SYN, bit 1 FIN; no receiver looks at them.
    pub fn flags(&self) -> u64 {
        self.flags
    }

    /// The payload, in place.
    pub fn payload(&self) -> &[u8] {
        self.raw.get(self.payload_start..).unwrap_or_default()
    }

    /// The payload, sharing the message's memory.
    pub fn payload_bytes(&self) -> Bytes {
        let mut raw = self.raw.clone();
        raw.split_off(self.payload_start.min(raw.len()))
    }

    /// The whole message, byte for byte as it came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The same message under another number: a copy, for one leg.
    ///
    /// The digest covers the payload alone, so it stays right.
    pub fn renumbered(&self, sequence: i64) -> Self {
        let mut raw = BytesMut::from(self.raw.as_ref());
        if let Some(field) = raw.get_mut(SEQUENCE) {
            field.copy_from_slice(&sequence.to_be_bytes());
        }
        Self { raw: raw.freeze(), sequence, ..self.clone() }
    }

    /// The message under its number, id, date and flags with another payload.
    pub fn with_payload(&self, payload_type: PayloadType, payload: &[u8]) -> Bytes {
        let Self { message_type, created_ms, sequence, flags, id, .. } = *self;
        Draft { message_type, created_ms, sequence, flags, id, payload_type, payload }.encode()
    }

    /// Whether the payload has the SHA-256 digest that the header says.
    ///
    /// Always true for an empty payload and for start and pause publications,
    /// where no receiver looks.
    pub fn digest_matches(&self) -> bool {
        let payload = self.payload();
        if payload.is_empty() || self.message_type.is_publication() {
            return true;
        }
        self.raw.get(80..80 + DIGEST_LEN) == Some(digest(&SHA256, payload).as_ref())
    }
}

/// A message to be written.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// What it is for.
    pub message_type: MessageType,
    /// The sender's clock in milliseconds; 0 is ignored by receivers.
    pub created_ms: u64,
    /// Its number in its direction; 0 for other than stream messages.
    pub sequence: i64,
    /// Header flags, see [`SYN`] and [`SYN_FIN`].
    pub flags: u64,
    /// Its id in natural order.
    pub id: Uuid,
    /// What its payload holds.
    pub payload_type: PayloadType,
    /// The payload; peers never send an empty one.
    pub payload: &'a [u8],
}

impl Draft<'_> {
    /// The message as bytes, in one allocation of the right size.
    pub fn encode(&self) -> Bytes {
        let mut raw = BytesMut::with_capacity(HEADER_LEN + self.payload.len());
        self.encode_into(&mut raw);
        raw.freeze()
    }

    /// Appends the message to a buffer that the caller reuses.
    pub fn encode_into(&self, into: &mut BytesMut) {
        into.reserve(HEADER_LEN + self.payload.len());
        let name = self.message_type.as_str();
        into.put_u32(HEADER_LENGTH);
        into.put_slice(name.as_bytes());
        into.put_bytes(b' ', TYPE_WIDTH.saturating_sub(name.len()));
        into.put_u32(SCHEMA_VERSION);
        into.put_u64(self.created_ms);
        into.put_i64(self.sequence);
        into.put_u64(self.flags);
        into.put_slice(swap_halves(self.id).as_bytes());
        into.put_slice(digest(&SHA256, self.payload).as_ref());
        into.put_u32(self.payload_type.into());
        into.put_u32(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
        into.put_slice(self.payload);
    }
}

/// Where the payload starts, by the rules of both peers.
fn payload_start(header_length: u32, len: usize, kind: MessageType) -> Result<usize, MessageError> {
    if header_length < HEADER_LENGTH {
        // The plugin skips every check on these two and ignores their content.
        return if kind.is_publication() { Ok(len) } else { Err(MessageError::HeaderLength(header_length)) };
    }
    let start = usize::try_from(header_length).ok().and_then(|h| h.checked_add(PAYLOAD_LENGTH_WIDTH));
    match start {
        Some(start) if start <= len => Ok(start),
        _ => Err(MessageError::PastEnd { header_length, len }),
    }
}

/// The id with its two halves exchanged, as it is on the wire and back.
fn swap_halves(id: Uuid) -> Uuid {
    let (high, low) = id.as_u64_pair();
    Uuid::from_u64_pair(low, high)
}

/// Fixed-width fields, taken one after the other.
struct Fields<'a> {
    rest: &'a [u8],
    len: usize,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(MessageError::TooShort(self.len))?;
        self.rest = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests;
