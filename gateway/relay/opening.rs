//! The moment in which a multiplexed port session begins at its client.
//!
//! Between HandshakeComplete and the end of its set-up a stock plugin dies of
//! any message, also of an acknowledge, and real agents may acknowledge the
//! answer to the handshake exactly then. So that acknowledge goes before
//! HandshakeComplete, and everything else waits a while after it. No I/O;
//! time is an argument.

use std::collections::VecDeque;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use data_channel::acknowledge::Acknowledge;
use data_channel::message::{Message, MessageType};
use data_channel::payload::PayloadType;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::flows::Flows;
use super::pump::Pump;
use crate::session::now_ms;

/// How long nothing is sent after HandshakeComplete; set-up takes some ms.
const QUIET: Duration = Duration::from_millis(100);
/// Messages that may wait meanwhile; both ends repeat what is dropped.
const HELD_MAX: usize = 1024;

/// What the client of a port session may be sent now.
#[derive(Default)]
pub(super) struct Opening {
    /// What acknowledges the client's answer.
    answer: Option<Acknowledge>,
    /// The client has that acknowledge.
    acknowledged: bool,
    /// The agent's own one is still to come, and is not needed.
    drop_one: bool,
    until: Option<Instant>,
    held: VecDeque<Bytes>,
}

impl Opening {
    /// The client answers the handshake.
    pub(super) fn answered(&mut self, message: &Message) {
        self.answer.get_or_insert_with(|| Acknowledge::of(message));
    }

    /// HandshakeComplete is sent now; gives what has to go before it.
    ///
    /// It may be sent again, on another connection too: it is quiet then too.
    fn begins(&mut self, now: Instant) -> Option<Bytes> {
        self.until = Some(now + QUIET);
        if self.acknowledged {
            return None;
        }
        let acknowledge = self.answer?;
        (self.acknowledged, self.drop_one) = (true, true);
        Some(acknowledge.encode(now_ms()))
    }

    /// The message as it may be sent now; `None`: it waits, or is not needed.
    fn takes(&mut self, raw: Bytes) -> Option<Bytes> {
        if self.is_acknowledge(&raw) {
            if std::mem::take(&mut self.drop_one) {
                return None;
            }
            self.acknowledged = true;
        }
        if self.until.is_none() {
            return Some(raw);
        }
        if self.held.len() < HELD_MAX {
            self.held.push_back(raw);
        }
        None
    }

    fn is_acknowledge(&self, raw: &Bytes) -> bool {
        let Some(answer) = self.answer.filter(|_| self.drop_one || !self.acknowledged) else { return false };
        let message = Message::parse(raw.clone()).ok();
        let message = message.filter(|message| message.message_type() == MessageType::Acknowledge);
        message.and_then(|message| Acknowledge::parse(message.payload()).ok()).is_some_and(|acknowledge| {
            acknowledge.sequence == answer.sequence && acknowledge.message_type == answer.message_type
        })
    }

    /// What waited, once it may be sent.
    fn ends(&mut self, now: Instant) -> Option<VecDeque<Bytes>> {
        self.until.take_if(|until| *until <= now)?;
        Some(std::mem::take(&mut self.held))
    }

    /// Another connection: what waited for the one before is repeated.
    pub(super) fn restart(&mut self) {
        (self.until, self.held) = (None, VecDeque::new());
    }

    /// Until when nothing may be sent.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Whether the next output message is one after which it has to be quiet.
    pub(super) fn opens_next(&self) -> bool {
        self.flows.as_ref().is_some_and(Flows::is_multiplexed)
            && self.output.next_type() == Some(PayloadType::HandshakeComplete)
    }

    /// Sends before HandshakeComplete what may not come after it.
    pub(super) fn open(&mut self) {
        let before = self.opening.begins(self.now);
        if let (Some(raw), Some(leg)) = (before, &mut self.client) {
            leg.queue(raw);
        }
    }

    /// Acknowledges and repeats; with no client there they are not missed.
    pub(super) fn queue_for_client(&mut self, raw: Bytes) {
        let raw = if self.flows.is_some() { self.opening.takes(raw) } else { Some(raw) };
        if let (Some(leg), Some(raw)) = (&mut self.client, raw) {
            leg.queue(raw);
        }
    }

    /// Sends output again that the agent repeats.
    pub(super) fn repeat_for_client(&mut self, raw: Bytes) {
        let is_quiet = self.opening.until().is_some();
        let opens = self.flows.as_ref().is_some_and(Flows::is_multiplexed)
            && Message::parse(raw.clone())
                .is_ok_and(|message| message.payload_type() == PayloadType::HandshakeComplete);
        // While it is quiet a repeat is what it must be quiet for.
        match (opens, is_quiet) {
            (true, true) => {}
            (true, false) => {
                self.open();
                if let Some(leg) = &mut self.client {
                    leg.queue(raw);
                }
            }
            (false, _) => self.queue_for_client(raw),
        }
    }

    /// Sends what waited while it had to be quiet, once that is over.
    pub(super) fn end_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(held) = self.opening.ends(self.now) else { return false };
        for raw in held {
            self.queue_for_client(raw);
        }
        self.send_output(cx);
        true
    }
}

#[cfg(test)]
mod tests {
    use data_channel::message::Draft;
    use uuid::Uuid;

    use super::*;

    fn message(message_type: MessageType, payload_type: PayloadType, payload: &[u8]) -> Message {
        let (id, sequence, flags) = (Uuid::new_v4(), 0, 0);
        let draft = Draft { message_type, created_ms: 1, sequence, flags, id, payload_type, payload };
        Message::parse(draft.encode()).unwrap()
    }

    fn answered() -> (Opening, Bytes) {
        let answer = message(MessageType::InputStreamData, PayloadType::HandshakeResponse, b"{}");
        let mut opening = Opening::default();
        opening.answered(&answer);
        (opening, Acknowledge::of(&answer).encode(1))
    }

    #[test]
    fn an_acknowledge_that_came_before_is_not_made_again() {
        let (mut opening, acknowledge) = answered();
        let now = Instant::now();
        assert_eq!(opening.takes(acknowledge.clone()), Some(acknowledge.clone()));
        assert_eq!(opening.begins(now), None);
        // On a later connection neither.
        opening.restart();
        assert_eq!(opening.begins(now), None);
    }

    #[test]
    fn an_acknowledge_that_is_late_goes_before_and_is_dropped_once() {
        let (mut opening, acknowledge) = answered();
        let now = Instant::now();
        let before = Message::parse(opening.begins(now).unwrap()).unwrap();
        let made = Acknowledge::parse(before.payload()).unwrap();
        let real = Acknowledge::parse(Message::parse(acknowledge.clone()).unwrap().payload()).unwrap();
        assert_eq!((made.sequence, made.message_id), (real.sequence, real.message_id));
        assert_eq!(opening.takes(acknowledge.clone()), None);
        assert!(opening.ends(now + QUIET).unwrap().is_empty(), "it is not kept either");
        assert_eq!(opening.takes(acknowledge.clone()), Some(acknowledge), "the client asks again");
    }

    #[test]
    fn everything_waits_until_the_quiet_is_over_and_stays_in_order() {
        let (mut opening, acknowledge) = answered();
        let now = Instant::now();
        opening.takes(acknowledge);
        opening.begins(now);
        let said = [b"one", b"two"]
            .map(|text| message(MessageType::OutputStreamData, PayloadType::Output, text).raw().clone());
        for raw in &said {
            assert_eq!(opening.takes(raw.clone()), None);
        }
        assert_eq!(opening.ends(now + QUIET - Duration::from_millis(1)), None);
        assert_eq!(opening.until(), Some(now + QUIET));
        assert_eq!(opening.ends(now + QUIET).unwrap(), said);
        assert_eq!(opening.takes(said[0].clone()), Some(said[0].clone()));
        // What waits is bounded.
        opening.begins(now);
        for _ in 0..2 * HELD_MAX {
            opening.takes(said[0].clone());
        }
        assert_eq!(opening.ends(now + QUIET).unwrap().len(), HELD_MAX);
    }
}
