//! What a client sent: acknowledges, input, the handshake's answer.

use std::time::Instant;

use data_channel::{Acknowledge, Flag, HandshakeResponse, Message, MessageType, PayloadType, Size};

use super::transmit::Later;
use super::{Agent, Stage};
use crate::local_ssm::sessions::{Counters, Status};
use crate::local_ssm::wire::Heard;

/// Acknowledges that may wait; at 3 ms each that is a million a second.
const LATER_MAX: usize = 4_096;

impl Agent {
    /// Takes what came; silence is measured from here.
    pub(super) fn heard(&mut self, heard: Heard) {
        if !matches!(heard, Heard::Room) {
            self.heard_at = Instant::now();
        }
        match heard {
            Heard::Binary(raw) => match Message::parse(raw) {
                Ok(message) if message.digest_matches() => self.receive(message),
                // Both real peers drop what they cannot read.
                _ => Counters::count(&self.session.counters.rejects),
            },
            Heard::Text(_) => Counters::count(&self.session.counters.rejects),
            Heard::Alive | Heard::Room => {}
            Heard::Gone => self.detach(),
        }
    }

    fn receive(&mut self, message: Message) {
        match message.message_type() {
            MessageType::Acknowledge => self.acknowledged(&message),
            MessageType::InputStreamData => self.stream(message),
            _ => {}
        }
    }

    fn acknowledged(&mut self, message: &Message) {
        let counters = &self.session.counters;
        let Ok(acknowledge) = Acknowledge::parse(message.payload()) else {
            return Counters::count(&counters.rejects);
        };
        let known = self.outgoing.acknowledged(acknowledge.sequence, self.epoch.elapsed());
        Counters::count(if known { &counters.acknowledges } else { &counters.stray_acknowledges });
    }

    fn stream(&mut self, message: Message) {
        // What cannot be handled now is neither taken nor acknowledged; the
        // client sends it again.
        let next = message.sequence() == self.incoming.expected();
        let stuck = !self.endpoint.has_room() || matches!(self.stage, Stage::Ended { .. });
        let unread =
            self.later.len() >= LATER_MAX || self.wire.as_ref().is_some_and(|wire| wire.is_stuffed());
        if (next && stuck) || unread {
            return;
        }
        let acknowledge = Acknowledge::of(&message);
        let Some(message) = self.opened(message) else {
            return Counters::count(&self.session.counters.rejects);
        };
        let duplicate = message.sequence() < self.incoming.expected();
        let is_answer = message.payload_type() == PayloadType::HandshakeResponse && !duplicate;
        let mut delivered = std::mem::take(&mut self.delivered);
        let arrival = self.incoming.receive(message, &mut delivered);
        if duplicate {
            Counters::count(&self.session.counters.duplicates);
        }
        if self.service.habits.acknowledge_after_complete && is_answer {
            self.late = Some(acknowledge);
        } else if arrival.wants_acknowledge() {
            let due = Instant::now() + self.service.habits.acknowledge_delay;
            self.later.push_back((due, Later::Acknowledge(acknowledge)));
        }
        for message in delivered.drain(..) {
            self.deliver(&message);
        }
        self.delivered = delivered;
    }

    /// Handles a message whose turn it is; its payload is read here only.
    fn deliver(&mut self, message: &Message) {
        match (&self.stage, message.payload_type()) {
            (Stage::Handshake { .. }, PayloadType::HandshakeResponse) => self.answered(message.payload()),
            (Stage::Handshake { .. }, PayloadType::EncChallengeResponse) => self.proved(message.payload()),
            // Before the handshake is complete all else is discarded.
            (Stage::Running, PayloadType::Output) => self.endpoint.take(message.payload_bytes()),
            (Stage::Running, PayloadType::Size) => {
                if let Ok(size) = Size::parse(message.payload()) {
                    self.endpoint.resize(size);
                }
            }
            (Stage::Running, PayloadType::Flag) => self.flagged(message.payload()),
            _ => {}
        }
    }

    fn flagged(&mut self, payload: &[u8]) {
        if Flag::parse(payload).is_ok_and(|flag| self.endpoint.flag(flag)) {
            self.ended(Status::Terminated, "");
        }
    }

    fn answered(&mut self, payload: &[u8]) {
        let answer = HandshakeResponse::parse(payload).ok().filter(HandshakeResponse::is_success);
        let Some(answer) = answer else {
            return self.ended(Status::Failed, "Handshake with the client failed.");
        };
        self.client_version.clone_from(&answer.client_version);
        match self.encryption {
            Some(_) => self.take_key(&answer),
            None => self.handshake_answered(),
        }
    }

    pub(super) fn handshake_answered(&mut self) {
        let now = Instant::now();
        self.stage = Stage::Answered { since: now };
        // The acknowledge goes first: a plugin does not expect anything
        // between HandshakeComplete and the session's first output.
        self.later.push_back((now + self.service.habits.acknowledge_delay, Later::CompleteHandshake));
    }
}
