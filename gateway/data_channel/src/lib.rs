//! The bytes of the SSM data channel: no I/O, no clock, time is an argument.
//!
//! One message is one binary WebSocket message. [`Message::parse`] reads one
//! in place and [`Draft::encode`] writes one; the other modules hold what
//! their payloads say. A message can be read without its digest being right:
//! ask [`Message::digest_matches`] before its payload is believed.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`message`] | the 120-byte header, message types, the digest |
//! | [`payload`] | payload types, `Size`, `Flag`, exit codes |
//! | [`acknowledge`] | the one message that is sent most |
//! | [`control`] | open, closed, agent state |
//! | [`handshake`] | what a handshake asks and answers |
//! | [`encryption`] | the two keys of a session with KMS, and their use |
//! | [`sequence`] | what to send again, what to deliver in order |
//! | [`smux`] | the connections that a port session carries |

pub mod acknowledge;
pub mod control;
pub mod encryption;
pub mod handshake;
mod json;
pub mod message;
pub mod payload;
pub mod sequence;
pub mod smux;

pub use acknowledge::Acknowledge;
pub use control::{AgentSessionState, ChannelClosed, OpenDataChannel, SessionState};
pub use encryption::{Cipher, DataKey, EncryptionError};
pub use handshake::{
    EncChallenge, HandshakeComplete, HandshakeRequest, HandshakeResponse, KmsAction, KmsResult,
};
pub use message::{Draft, Message, MessageError, MessageType};
pub use payload::{Flag, PayloadType, Size};
pub use sequence::{Arrival, Incoming, Outgoing, QueueFull};
pub use uuid::Uuid;
