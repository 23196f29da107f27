//! From the client to the target: input at once, acknowledges when recorded.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use data_channel::acknowledge::Acknowledge;
use data_channel::message::{Message, MessageType};
use data_channel::payload::PayloadType;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Ended;
use super::leg::Heard;
use super::output::Owed;
use super::pump::{HeldInput, Pump, Step, TURN, Upstream, recording_failed};
use crate::recorder::Position;
use crate::session::now_ms;

/// Client messages kept while upstream is redialled; then reading stops.
const BACKLOG_MAX: usize = 1024;
const BACKLOG_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Malformed messages after which a leg is closed.
const MALFORMED_MAX: u32 = 64;

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn hear_client(&mut self, cx: &mut Context<'_>) -> Step {
        let mut moved = false;
        for _ in 0..TURN {
            if self.backlog_is_full() || !self.tap.has_room() {
                self.client.iter_mut().for_each(|leg| leg.not_read(self.now));
                break;
            }
            let Some(leg) = &mut self.client else { break };
            let Poll::Ready(heard) = leg.poll_heard(cx, self.now) else { break };
            moved = true;
            match heard {
                Heard::Binary(raw) => self.take_from_client(raw, cx)?,
                Heard::Text => self.malformed("text", cx),
                Heard::Gone => self.client_gone(),
            }
        }
        Ok(moved)
    }

    pub(super) fn take_from_client(&mut self, raw: Bytes, cx: &mut Context<'_>) -> Result<(), Ended> {
        let Ok(message) = Message::parse(raw) else {
            self.malformed("malformed", cx);
            return Ok(());
        };
        if !message.digest_matches() {
            self.malformed("digest", cx);
            return Ok(());
        }
        match message.message_type() {
            MessageType::Acknowledge => self.client_acknowledge(&message),
            MessageType::InputStreamData => {
                if self.kms.is_too_early(&message) {
                    self.outside.meters.dropped("too_early");
                    return Ok(());
                }
                match message.payload_type() {
                    PayloadType::Output | PayloadType::Size => self.output.settle(),
                    PayloadType::HandshakeResponse => {
                        self.output.answered();
                        self.opening.answered(&message);
                    }
                    _ => {}
                }
                let message = self.only_read(message, cx)?;
                if let Some(passes_at) = self.observe_input(&message)? {
                    self.pass_input(&message, passes_at, cx)?;
                }
                while let Some((message, passes_at)) = self.next_input()? {
                    self.pass_input(&message, passes_at, cx)?;
                }
            }
            // Nothing else may reach the agent through a user's connection.
            _ => self.outside.meters.dropped("unknown_type"),
        }
        Ok(())
    }

    fn pass_input(
        &mut self,
        message: &Message,
        passes_at: Position,
        cx: &mut Context<'_>,
    ) -> Result<(), Ended> {
        let bytes = message.payload().len();
        self.outside.counters.add_input(bytes);
        self.outside.meters.input_bytes.inc_by(bytes as u64);
        self.outside.meters.input_messages.inc();
        self.backlog.extend(self.kms.upward(message)?.map(|raw| (passes_at, raw)));
        self.send_backlog(cx);
        Ok(())
    }

    pub(super) fn client_acknowledge(&mut self, message: &Message) {
        let Ok(acknowledge) = Acknowledge::parse(message.payload()) else {
            self.outside.meters.dropped("malformed");
            return;
        };
        if acknowledge.message_type != MessageType::OutputStreamData {
            return;
        }
        let Some((owed, lost)) = self.output.acknowledged(acknowledge.sequence) else { return };
        self.outside.counters.output_shown(acknowledge.sequence);
        self.hold_all(lost);
        // The agent knows nothing of the gateway's notices, and counts without them.
        if let Some(owed) = owed {
            let raw = if owed.renumbered {
                owed.acknowledge.encode_as(message.id(), message.created_ms())
            } else {
                message.raw().clone()
            };
            self.hold(&owed, raw);
        }
        self.settle();
    }

    /// Acknowledges that no client has given, or will give.
    pub(super) fn hold_all(&mut self, owed: Vec<Owed>) {
        for owed in owed {
            let raw = owed.acknowledge.encode(now_ms());
            self.hold(&owed, raw);
        }
    }

    fn hold(&mut self, owed: &Owed, raw: Bytes) {
        let due = owed.received + self.outside.times.acknowledge_after;
        let position = owed.position.max(self.tap.before());
        self.held.hold(owed.acknowledge.sequence, position, (self.now, due), raw);
    }

    fn backlog_is_full(&self) -> bool {
        let bytes = || self.backlog.iter().map(|(_, raw)| raw.len()).sum::<usize>();
        self.backlog.len() >= BACKLOG_MAX || (!self.backlog.is_empty() && bytes() >= BACKLOG_BYTES_MAX)
    }

    /// Passes on the client's input; kept while upstream is dialled again.
    pub(super) fn send_backlog(&mut self, cx: &mut Context<'_>) -> bool {
        let Upstream::Open(leg) = &mut self.upstream else { return false };
        let mut moved = false;
        while !self.backlog.is_empty() && leg.has_room(cx) {
            // A recording that failed shows with the next message.
            if let Some((passes_at, _)) = self.backlog.front()
                && self.tap.poll_written(cx, *passes_at).is_pending()
            {
                break;
            }
            let Some((_, raw)) = self.backlog.pop_front() else { break };
            leg.queue(raw);
            moved = true;
        }
        if self.backlog.is_empty() && self.backlog.capacity() > TURN {
            self.backlog = VecDeque::new();
        }
        moved
    }

    /// What the client typed counts as taken only once it is recorded.
    ///
    /// Else keys of the last milliseconds before a crash would be in no record.
    pub(super) fn pass_input_acknowledge(&mut self, raw: Bytes) {
        let (held, position) = (self.tap.last_held(), self.tap.unrecorded_input());
        if held.is_none() && position.is_none() && self.typed.is_empty() {
            return self.queue_for_client(raw);
        }
        self.typed.push_back(HeldInput { held, position: position.unwrap_or_default(), raw });
    }

    /// Lets the agent's acknowledges pass whose keys are in the recording.
    pub(super) fn release_input_acknowledges(&mut self, cx: &mut Context<'_>) -> Step {
        let mut moved = false;
        while let Some(front) = self.typed.front_mut() {
            if let Some(held) = front.held {
                if !self.tap.is_released(held) {
                    break;
                }
                (front.held, front.position) = (None, self.tap.position());
            }
            match self.tap.poll_recorded(cx, front.position) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(recording_failed(&error)),
                Poll::Ready(Ok(())) => {}
            }
            let Some(front) = self.typed.pop_front() else { break };
            self.queue_for_client(front.raw);
            moved = true;
        }
        Ok(moved)
    }

    /// Lets acknowledges pass whose messages are in the recording.
    pub(super) fn release_acknowledges(&mut self, cx: &mut Context<'_>) -> Step {
        let Upstream::Open(leg) = &mut self.upstream else { return Ok(false) };
        let mut moved = false;
        while let Some((position, _)) = self.held.waiting_for() {
            match self.tap.poll_recorded(cx, position) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(recording_failed(&error)),
                Poll::Ready(Ok(())) => {}
            }
            if !leg.has_room(cx) {
                break;
            }
            let Some((raw, since)) = self.held.release(position, self.now) else { break };
            leg.queue(raw);
            moved = true;
            self.outside
                .meters
                .acknowledge_wait_seconds
                .observe(self.now.duration_since(since).as_secs_f64());
        }
        Ok(moved)
    }

    pub(super) fn malformed(&mut self, reason: &str, cx: &mut Context<'_>) {
        self.outside.meters.dropped(reason);
        let Some(leg) = &mut self.client else { return };
        leg.malformed += 1;
        if leg.malformed > MALFORMED_MAX || reason == "text" {
            leg.close(true);
            leg.poll_flushed(cx);
            self.client_gone();
        }
    }
}
