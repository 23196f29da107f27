//! The acknowledge: one stream message has been accepted.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use uuid::Uuid;

use crate::message::{Draft, Message, MessageError, MessageType, SYN_FIN};
use crate::payload::PayloadType;

/// Bytes of the longest acknowledge payload, with some to spare.
const PAYLOAD_MAX: usize = 256;
/// Bytes of an id in its hyphenated form.
const ID_LEN: usize = 36;
/// Most digits of a sequence number that always fits an i64.
const DIGITS_MAX: usize = 18;

// The payload as both peers write it, in pieces.
const TYPE: &str = r#"{"AcknowledgedMessageType":""#;
const ID: &str = r#"","AcknowledgedMessageId":""#;
const SEQUENCE: &str = r#"","AcknowledgedMessageSequenceNumber":"#;
const END: &str = r#","IsSequentialMessage":true}"#;

/// Which stream message has been accepted.
///
/// Receivers match on the sequence number alone. One acknowledge stands for
/// one message, never for those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledge {
    /// The type of that message.
    pub message_type: MessageType,
    /// Its id.
    pub message_id: Uuid,
    /// Its sequence number.
    pub sequence: i64,
}

impl Acknowledge {
    /// The acknowledge of a message.
    pub fn of(message: &Message) -> Self {
        Self { message_type: message.message_type(), message_id: message.id(), sequence: message.sequence() }
    }

    /// Reads the payload; allocates nothing when a real peer wrote it.
    ///
    /// Other JSON is read by key. Only the sequence number is needed there;
    /// a missing type is `Unknown` and a missing id is nil.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        match Self::parse_usual(payload) {
            Some(acknowledge) => Ok(acknowledge),
            None => Self::parse_any(payload),
        }
    }

    /// The whole message with a random id.
    pub fn encode(&self, created_ms: u64) -> Bytes {
        self.encode_as(Uuid::new_v4(), created_ms)
    }

    /// The whole message with the given id.
    pub fn encode_as(&self, id: Uuid, created_ms: u64) -> Bytes {
        let mut payload = BytesMut::with_capacity(PAYLOAD_MAX);
        let message_type = self.message_type.as_str();
        let message_id = self.message_id.as_hyphenated();
        let sequence = self.sequence;
        // Writing to a growing buffer does not fail.
        let _ = write!(payload, "{TYPE}{message_type}{ID}{message_id}{SEQUENCE}{sequence}{END}");
        Draft {
            message_type: MessageType::Acknowledge,
            created_ms,
            sequence: 0,
            flags: SYN_FIN,
            id,
            payload_type: PayloadType::Unset,
            payload: &payload,
        }
        .encode()
    }

    fn parse_usual(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(TYPE.as_bytes())?;
        let (name, rest) = rest.split_at_checked(rest.iter().position(|b| *b == b'"')?)?;
        let message_type = MessageType::named(name);
        let rest = rest.strip_prefix(ID.as_bytes())?;
        let (id, rest) = rest.split_first_chunk::<ID_LEN>()?;
        let message_id = Uuid::try_parse_ascii(id).ok()?;
        let digits = rest.strip_prefix(SEQUENCE.as_bytes())?.strip_suffix(END.as_bytes())?;
        let sequence = decimal(digits)?;
        // An escape or stray byte in the name is for the full parser to judge.
        (message_type != MessageType::Unknown).then_some(Self { message_type, message_id, sequence })
    }

    fn parse_any(payload: &[u8]) -> Result<Self, MessageError> {
        #[derive(Deserialize)]
        struct Json<'a> {
            #[serde(rename = "AcknowledgedMessageType", default, borrow)]
            message_type: Cow<'a, str>,
            #[serde(rename = "AcknowledgedMessageId", default, borrow)]
            message_id: Cow<'a, str>,
            #[serde(rename = "AcknowledgedMessageSequenceNumber")]
            sequence: i64,
        }
        let json: Json<'_> =
            serde_json::from_slice(payload).map_err(|_| MessageError::Payload("acknowledge"))?;
        Ok(Self {
            message_type: MessageType::named(json.message_type.as_bytes()),
            message_id: Uuid::try_parse(&json.message_id).unwrap_or_default(),
            sequence: json.sequence,
        })
    }
}

/// The number, if it is plain JSON digits that surely fit.
fn decimal(digits: &[u8]) -> Option<i64> {
    let leading_zero = digits.len() > 1 && digits.first() == Some(&b'0');
    if digits.is_empty() || digits.len() > DIGITS_MAX || leading_zero {
        return None;
    }
    digits
        .iter()
        .try_fold(0i64, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests;
