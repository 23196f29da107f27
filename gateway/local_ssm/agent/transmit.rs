//! What the agent sends: output in numbered messages, again until heard.

use std::time::Instant;

use bytes::Bytes;
use data_channel::message::{CHUNK, SYN};
use data_channel::payload::encode_exit_code;
use data_channel::sequence::Outgoing;
use data_channel::{Acknowledge, Draft, HandshakeComplete, Message, MessageType, PayloadType};
use uuid::Uuid;

use super::{Agent, PING_EVERY, SILENCE_MAX, Stage, mode, now_ms};
use crate::local_ssm::document::Work;
use crate::local_ssm::runes::payloads;
use crate::local_ssm::sessions::{Counters, Session, Status};

/// What a client is told that prints standard error as output.
const OLD_CLIENT: &str = "Standard output and error are separate from session manager plugin 1.2.312.0 on.";
/// What a client prints of a session with a key.
const ENCRYPTED: &str = "This session is encrypted using AWS KMS.";

/// What is done a few milliseconds after it could be.
pub(super) enum Later {
    Acknowledge(Acknowledge),
    CompleteHandshake,
}

impl Agent {
    /// Cuts what the endpoint gave into payloads: text where runes end.
    pub(super) fn output(&mut self, kind: PayloadType, bytes: &[u8]) {
        if matches!(self.work, Work::Port(_)) {
            return self.unsent.extend(bytes.chunks(CHUNK).map(|payload| (kind, payload.to_vec())));
        }
        let ([out, err], [fresh_out, fresh_err]) = (&mut self.runes, &mut self.fresh);
        let (runes, fresh) = if kind == PayloadType::StdErr { (err, fresh_err) } else { (out, fresh_out) };
        let mut whole = if std::mem::replace(fresh, bytes.ends_with(b"\n")) {
            runes.take(self.work.separator(kind).as_bytes())
        } else {
            Vec::new()
        };
        whole.extend(runes.take(bytes));
        self.unsent.extend(payloads(&whole).map(|payload| (kind, payload.to_vec())));
    }

    /// Adds what is left, and the exit code if it is asked for.
    pub(super) fn process_ended(&mut self) {
        for (runes, kind) in self.runes.iter_mut().zip([PayloadType::Output, PayloadType::StdErr]) {
            let rest = runes.rest();
            if !rest.is_empty() {
                self.unsent.push_back((kind, rest));
            }
        }
        let code = self.endpoint.exit_code();
        if let (true, Some(code)) = (self.work.has_separate_streams(), code) {
            self.unsent.push_back((PayloadType::ExitCode, encode_exit_code(code)));
        }
        self.ended(Status::Terminated, "");
    }

    /// Whether the endpoint may be read: nothing it gave has to queue.
    pub(super) fn wants_output(&self) -> bool {
        let running = matches!(self.stage, Stage::Running);
        running && self.unsent.is_empty() && !self.outgoing.is_full() && self.has_room()
    }

    /// Sends again what is due, then what is new, while there is room.
    pub(super) fn transmit(&mut self) {
        let now = self.epoch.elapsed();
        if let Some(wire) = &mut self.wire {
            while wire.has_room()
                && let Some(raw) = self.outgoing.due(now)
            {
                self.unseen = resent(&self.session, self.unseen, &raw);
                wire.send(raw);
            }
        }
        while self.has_room()
            && self.paced_until <= now
            && let Some((payload_type, payload)) = self.unsent.front()
        {
            let encryption = self.encryption.as_ref();
            let sealed = encryption.and_then(|e| e.sealed(*payload_type, payload, &self.session));
            let draft = draft(&self.outgoing, *payload_type, sealed.as_deref().unwrap_or(payload));
            let Ok(raw) = self.outgoing.send(draft, now) else { break };
            if matches!(payload_type, PayloadType::Output | PayloadType::StdErr) {
                self.session.keep(payload);
                if !self.service.habits.pace.is_zero() {
                    self.paced_until = now + self.service.habits.pace;
                }
            }
            let completes = *payload_type == PayloadType::HandshakeComplete;
            self.unsent.pop_front();
            if let Some(wire) = &mut self.wire {
                wire.send(raw);
                self.unseen = self.outgoing.next_sequence();
                if let Some(late) = self.late.take_if(|_| completes) {
                    wire.send(late.encode(now_ms()));
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.wire.as_ref().is_none_or(|wire| wire.has_room())
    }

    /// Acknowledges, completes the handshake and pings when it is time.
    pub(super) fn do_what_is_due(&mut self) {
        let now = Instant::now();
        while self.later.front().is_some_and(|(due, _)| *due <= now) {
            match self.later.pop_front() {
                Some((_, Later::Acknowledge(acknowledge))) => {
                    if let Some(wire) = &mut self.wire {
                        wire.send(acknowledge.encode(now_ms()));
                    }
                }
                Some((_, Later::CompleteHandshake)) => self.complete_handshake(),
                None => break,
            }
        }
        if self.ping_at <= now {
            self.ping_at = now + PING_EVERY;
            match &mut self.wire {
                Some(_) if self.heard_at + SILENCE_MAX <= now => self.detach(),
                Some(wire) => wire.ping(),
                None => {}
            }
        }
    }

    fn complete_handshake(&mut self) {
        let Stage::Answered { since } = self.stage else { return };
        let took = i64::try_from((since - self.epoch).as_nanos()).unwrap_or(i64::MAX);
        let old = self.work.has_separate_streams() && mode::cannot_separate(&self.client_version);
        let mut customer_message = if old { OLD_CLIENT.to_owned() } else { String::new() };
        if self.encryption.is_some() {
            customer_message.push_str(ENCRYPTED);
        }
        let complete = HandshakeComplete { handshake_time_to_complete: took, customer_message };
        self.unsent.push_back((PayloadType::HandshakeComplete, complete.encode()));
        self.start_endpoint();
    }
}

fn draft<'a>(outgoing: &Outgoing, payload_type: PayloadType, payload: &'a [u8]) -> Draft<'a> {
    let flags = if outgoing.next_sequence() == 0 { SYN } else { 0 };
    let (message_type, created_ms, id) = (MessageType::OutputStreamData, now_ms(), Uuid::new_v4());
    Draft { message_type, created_ms, sequence: 0, flags, id, payload_type, payload }
}

/// Counts a message that is sent again; the next number never sent.
fn resent(session: &Session, unseen: i64, raw: &Bytes) -> i64 {
    let sequence = Message::parse(raw.clone()).map_or(0, |message| message.sequence());
    if sequence < unseen {
        Counters::count(&session.counters.resends);
    }
    unseen.max(sequence.saturating_add(1))
}
