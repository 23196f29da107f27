//! Port sessions: what is seen of them is recorded before it counts.

use data_channel::handshake::HandshakeComplete;
use data_channel::message::Message;
use data_channel::payload::PayloadType;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Ended;
use super::flows::{Fault, Flows, Note};
use super::pump::{Pump, end, recording_failed};
use super::typed::Typed;
use crate::recorder::{FlowEvent, Position, Side};

/// What was seen of a message.
pub(super) struct Seen {
    /// Its acknowledge waits until this is recorded.
    pub(super) position: Position,
    /// It passes itself once this is recorded; zero: at once.
    pub(super) passes_at: Position,
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Looks at the next output message; its acknowledge waits for the position.
    pub(super) fn observe_output(&mut self, message: &Message) -> Result<Seen, Ended> {
        let Some(flows) = &mut self.flows else {
            self.active = self.now;
            let position = self.tap.output(message, self.now).map_err(|e| recording_failed(&e))?;
            return Ok(Seen { position, passes_at: Position::default() });
        };
        let mut notes = Vec::new();
        let seen = flows.output(message, self.now, &mut notes);
        let is_event = notes.iter().any(|note| matches!(note, Note::Event(_))) || flows.has_new_stage();
        self.after(seen, notes, is_event)
    }

    /// Looks at an input message; `None` if it must not reach the agent now,
    /// else what must be recorded before it does.
    pub(super) fn observe_input(&mut self, message: &Message) -> Result<Option<Position>, Ended> {
        let Some(flows) = &mut self.flows else {
            self.active = self.now;
            let passes = self.tap.input(message, self.now).map_err(|e| recording_failed(&e))?;
            if !passes {
                self.outside.meters.dropped("too_early");
            }
            return Ok(passes.then(Position::default));
        };
        if let Err(reason) = flows.admits(message) {
            self.outside.meters.dropped(reason);
            return Ok(None);
        }
        match self.tap.arrival(message) {
            // So old that nobody knows any more what it was.
            Typed::Fresh if flows.has_seen(message.sequence()) => {
                self.outside.meters.dropped("too_late");
                return Ok(None);
            }
            Typed::Fresh => {}
            Typed::Repeat => return Ok((!flows.holds(message.sequence())).then(Position::default)),
            // Which of the two the agent would act upon, nobody could tell.
            Typed::Other => {
                self.outside.meters.dropped("other_payload");
                return Ok(None);
            }
            Typed::TooEarly => {
                self.outside.meters.dropped("too_early");
                return Ok(None);
            }
        }
        if !flows.takes(message) {
            return Ok(None);
        }
        self.look_at_input(message).map(Some)
    }

    /// The input message that may follow the one that just passed, and what
    /// must be recorded before it does.
    pub(super) fn next_input(&mut self) -> Result<Option<(Message, Position)>, Ended> {
        let Some(message) = self.flows.as_mut().and_then(Flows::held) else { return Ok(None) };
        let passes_at = self.look_at_input(&message)?;
        Ok(Some((message, passes_at)))
    }

    fn look_at_input(&mut self, message: &Message) -> Result<Position, Ended> {
        let mut notes = Vec::new();
        let Some(flows) = &mut self.flows else { return Ok(Position::default()) };
        flows.is_next(self.tap.digest(message));
        let seen = flows.input(message, self.now, &mut notes);
        self.after(seen, notes, true).map(|seen| seen.passes_at)
    }

    /// Notes what open connections carried, when that is due.
    pub(super) fn observe_time(&mut self) {
        let mut notes = Vec::new();
        if let Some(flows) = &mut self.flows {
            flows.tick(self.now, &mut notes);
        }
        if !notes.is_empty() {
            self.keep(notes, false);
        }
    }

    /// Notes the end of every connection, with that of the session.
    pub(super) fn observe_end(&mut self) {
        let mut notes = Vec::new();
        if let Some(flows) = &mut self.flows {
            flows.finish(&mut notes);
        }
        self.keep(notes, true);
        // A recording that failed is why the session ends, if it does fail.
        let _ = self.note_flows_now();
    }

    /// Puts the banner where clients of port sessions print it.
    ///
    /// Not for SSH: there the client's standard output is the protocol.
    pub(super) fn with_notice(&self, message: Message) -> Message {
        let forwards = self.flows.as_ref().is_some_and(Flows::is_local_forwarding);
        if message.payload_type() != PayloadType::HandshakeComplete || !forwards {
            return message;
        }
        let Some(banner) = self.rules.banner.clone() else { return message };
        let Ok(mut complete) = HandshakeComplete::parse(message.payload()) else { return message };
        let before = std::mem::take(&mut complete.customer_message);
        let parts = [banner, before].into_iter().filter(|part| !part.is_empty());
        complete.customer_message = parts.collect::<Vec<_>>().join("\n");
        let told = message.with_payload(message.payload_type(), &complete.encode());
        Message::parse(told).unwrap_or(message)
    }

    /// Keeps what was seen, also of a message that ends the session.
    fn after(&mut self, seen: Result<bool, Fault>, notes: Vec<Note>, waits: bool) -> Result<Seen, Ended> {
        let position = self.keep(notes, waits);
        let active = seen.map_err(|fault| end(fault.reason(), &fault.to_string()))?;
        if active {
            self.active = self.now;
        }
        Ok(Seen { position, passes_at: if waits { position } else { Position::default() } })
    }

    fn keep(&mut self, notes: Vec<Note>, urgent: bool) -> Position {
        for note in &notes {
            self.count(note);
        }
        self.tap.saw(notes, urgent)
    }

    fn count(&self, note: &Note) {
        let (meters, counters) = (&self.outside.meters, &self.outside.counters);
        match note {
            Note::Event(FlowEvent::Open { .. }) => {
                meters.flow_opened();
                counters.flow_opened();
            }
            Note::Event(FlowEvent::Close { by, .. }) => {
                meters.flow_ended(match by {
                    Side::Client => "client",
                    Side::Target => "target",
                    Side::Session => "session",
                });
                counters.flow_ended();
            }
            Note::Event(FlowEvent::Refused { .. }) => {
                meters.flow_ended("refused");
                counters.flow_ended();
            }
            Note::Event(_) | Note::Traffic(..) => {}
        }
    }
}
