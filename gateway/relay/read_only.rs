//! Sessions in which one only reads: what is typed does not reach the agent.
//!
//! A message of the client keeps its number and loses its payload. The agent
//! takes it and acknowledges it; so the client does not send it on and on,
//! and what comes after it is not taken for a gap.

use std::task::Context;
use std::time::Duration;

use data_channel::message::Message;
use data_channel::payload::PayloadType;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Ended;
use super::pump::{Pump, end};

/// How often somebody who goes on typing is told.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// What they are told.
const SENTENCE: &str = "this session is read only, so what you type is not passed on";

/// When its user was last told that a session is read only.
#[derive(Default)]
pub(super) struct ReadOnly {
    told: Option<Instant>,
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// The message as it may go on; of a read-only session without its keys.
    pub(super) fn only_read(&mut self, message: Message, cx: &mut Context<'_>) -> Result<Message, Ended> {
        let harmless = match message.payload_type() {
            // The window's size, the handshake, and the end of the session.
            PayloadType::Size
            | PayloadType::HandshakeResponse
            | PayloadType::EncChallengeResponse
            | PayloadType::Flag => true,
            _ => message.payload().is_empty(),
        };
        if harmless || !self.rules.read_only {
            return Ok(message);
        }
        self.outside.meters.dropped("read_only");
        let again = self.read_only.told.is_none_or(|told| self.now - told >= TOLD_AGAIN);
        if again && self.can_say() {
            self.read_only.told = Some(self.now);
            self.say(SENTENCE, cx)?;
        }
        let emptied = message.with_payload(message.payload_type(), &[]);
        Message::parse(emptied).map_err(|_| end("read_only", "a message could not be kept from the agent"))
    }
}
