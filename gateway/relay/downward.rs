//! From the target to the client: record, forward, repair.

use std::task::{Context, Poll};

use bytes::Bytes;
use data_channel::acknowledge::Acknowledge;
use data_channel::control::ChannelClosed;
use data_channel::handshake::{HandshakeComplete, HandshakeRequest};
use data_channel::message::{Message, MessageType};
use data_channel::payload::PayloadType;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Ended;
use super::leg::Heard;
use super::output::Arrival;
use super::pump::{Pump, Step, TURN, Upstream, end, recording_failed};
use crate::recorder::Position;
use crate::session::{now_ms, printable};

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn hear_upstream(&mut self, cx: &mut Context<'_>) -> Step {
        let mut moved = false;
        for _ in 0..TURN {
            if !self.takes_output(cx) {
                // An upstream that takes no acknowledges has itself to blame if it is not heard.
                if let Upstream::Open(leg) = &mut self.upstream
                    && self.held.has_room()
                {
                    leg.not_read(self.now);
                }
                break;
            }
            let Upstream::Open(leg) = &mut self.upstream else { break };
            let Poll::Ready(heard) = leg.poll_heard(cx, self.now) else { break };
            moved = true;
            match heard {
                Heard::Binary(raw) => self.take_from_upstream(raw, cx)?,
                Heard::Text => self.outside.meters.dropped("text"),
                Heard::Gone => {
                    self.upstream_gone();
                    break;
                }
            }
        }
        Ok(moved)
    }

    /// With no client there is the window to fill; with one, its socket.
    ///
    /// For a session that is left, what still comes is only recorded.
    fn takes_output(&mut self, cx: &mut Context<'_>) -> bool {
        if self.leaving.is_some() {
            return self.tap.has_room();
        }
        self.output.has_room()
            && self.held.has_room()
            && self.tap.has_room()
            && self.client.as_mut().is_none_or(|leg| leg.has_room(cx))
    }

    pub(super) fn take_from_upstream(&mut self, raw: Bytes, cx: &mut Context<'_>) -> Result<(), Ended> {
        let Ok(message) = Message::parse(raw) else {
            self.outside.meters.dropped("malformed");
            return Ok(());
        };
        match message.message_type() {
            MessageType::OutputStreamData => self.output_message(message, cx),
            MessageType::Acknowledge => {
                if let Ok(acknowledge) = Acknowledge::parse(message.payload()) {
                    self.tap.input_taken(acknowledge.sequence);
                    self.outside.counters.input_taken(acknowledge.sequence);
                }
                self.pass_input_acknowledge(message.raw().clone());
                Ok(())
            }
            MessageType::ChannelClosed => {
                let text =
                    ChannelClosed::parse(message.payload()).map(|closed| closed.output).unwrap_or_default();
                self.told("at its end", &text)?;
                Err(Ended::ByTarget(text))
            }
            // Publication hints and the agent's state are between service and gateway.
            MessageType::StartPublication
            | MessageType::PausePublication
            | MessageType::AgentSessionState => Ok(()),
            _ => {
                self.outside.meters.dropped("unknown_type");
                Ok(())
            }
        }
    }

    pub(super) fn output_message(&mut self, message: Message, cx: &mut Context<'_>) -> Result<(), Ended> {
        self.output.arrives(message.sequence());
        match self.output.arrival(message.sequence()) {
            Arrival::Fresh | Arrival::Early | Arrival::Owed if !message.digest_matches() => {
                self.outside.meters.dropped("digest")
            }
            Arrival::Fresh => {
                self.record_output(message)?;
                while let Some(held) = self.output.take_held() {
                    self.record_output(held)?;
                }
                self.send_output(cx);
            }
            Arrival::Early | Arrival::TooEarly if self.output.is_oldest(message.sequence()) => {
                self.go_on_at(message, cx)?;
            }
            Arrival::Early => {
                if !self.output.hold(message) {
                    self.outside.meters.dropped("too_early");
                }
            }
            Arrival::TooEarly => self.outside.meters.dropped("too_early"),
            Arrival::Owed => self.give_back(message, cx)?,
            Arrival::Repeat => self.repeat_output(message.sequence())?,
            Arrival::Done => self.acknowledge_again(&message),
        }
        Ok(())
    }

    pub(super) fn record_output(&mut self, message: Message) -> Result<(), Ended> {
        let message = if self.flows.is_some() {
            self.with_notice(message)
        } else {
            let message = self.kms.downward(message)?;
            refuse_unrecordable(&message)?;
            message
        };
        if message.payload_type() == PayloadType::HandshakeComplete
            && let Ok(complete) = HandshakeComplete::parse(message.payload())
        {
            self.told("at its beginning", &complete.customer_message)?;
        }
        let banner = self.banner_before(&message);
        let seen = self.observe_output(&message)?;
        let bytes = message.payload().len();
        self.screen.shows(&message);
        let message = match banner {
            Some(banner) => below_banner(&message, &banner),
            None => message,
        };
        self.outside.counters.add_output(bytes);
        self.outside.meters.output_bytes.inc_by(bytes as u64);
        self.outside.meters.output_messages.inc();
        self.output.accept(message, seen.position, self.now);
        self.output.passes_at(seen.passes_at);
        Ok(())
    }

    /// Records what clients print though it is no output: no text that an
    /// agent has shown is off the record.
    fn told(&mut self, when: &str, text: &str) -> Result<(), Ended> {
        if text.is_empty() {
            return Ok(());
        }
        let text = printable(&text.replace(['\r', '\n'], " "));
        let text = format!("the client showed {when}: {text}");
        self.tap.marker(&text, self.now).map_err(|error| recording_failed(&error))
    }

    /// Records the banner before the first output; it is not the agent's.
    ///
    /// It rides on that message, under its number: a stock client drops
    /// what comes right after the first one, and would show the prompt late.
    fn banner_before(&mut self, message: &Message) -> Option<String> {
        if self.rules.banner.is_none() || !self.screen.takes_banner(message) {
            return None;
        }
        let mut banner = self.rules.banner.take()?;
        banner.push_str("\r\n");
        self.tap.above_output(message.payload_type(), &banner, self.now);
        Some(banner)
    }

    /// The agent did not get the acknowledge; the client never repeats it.
    pub(super) fn acknowledge_again(&mut self, message: &Message) {
        if self.held.holds(message.sequence()) {
            return;
        }
        let before = self.tap.before();
        if self.tap.recorded() < before {
            let raw = Acknowledge::of(message).encode(now_ms());
            self.held.hold(message.sequence(), before, (self.now, self.now), raw);
            return;
        }
        if let Upstream::Open(leg) = &mut self.upstream {
            let of_this = Acknowledge::of(message);
            leg.queue(of_this.encode(now_ms()));
            for sequence in self.output.acknowledged_before(message.sequence()) {
                // Both programs look at the number alone.
                leg.queue(Acknowledge { sequence, ..of_this }.encode(now_ms()));
            }
        }
    }

    /// Lets the client try again; with no client there is nobody to try.
    fn repeat_output(&mut self, sequence: i64) -> Result<(), Ended> {
        if self.client.is_none() {
            return Ok(());
        }
        let Some(raw) = self.output.repeat(sequence, self.now) else { return Ok(()) };
        self.repeat_for_client(raw);
        if self.flows.is_some() {
            self.believe_silence(sequence);
            return Ok(());
        }
        if !self.output.is_settled() {
            // Of a handshake there is no record, so nothing less is proof.
            self.believe_silence(sequence);
        }
        let owed = self.output.silence(sequence, self.now);
        self.hold_in_debt(owed)
    }

    fn may_send_output(&mut self, cx: &mut Context<'_>) -> bool {
        let is_quiet = self.leaving.is_some() || self.opening.until().is_some();
        let leg = self.client.as_mut().filter(|_| !is_quiet && !self.output.all_sent());
        leg.is_some_and(|leg| leg.has_room(cx))
    }

    /// Whether output waits for its note; what goes with an acknowledge that
    /// the agent has not given, until that is as durable as it has to be.
    fn waits_for_note(&mut self, cx: &mut Context<'_>, note: Position, acknowledges: bool) -> bool {
        let tap = &mut self.tap;
        let ready = if acknowledges { tap.poll_recorded(cx, note) } else { tap.poll_written(cx, note) };
        ready.is_pending()
    }

    /// Sends what is next in order for as long as the client takes it.
    pub(super) fn send_output(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.may_send_output(cx) {
            let opens = self.opens_next();
            // A recording that failed shows with the next message.
            if let Some(position) = self.output.waits_for()
                && self.waits_for_note(cx, position, opens)
            {
                break;
            }
            let Some(raw) = self.output.send_next(self.now) else { break };
            if opens {
                self.open();
            }
            if let Some(leg) = &mut self.client {
                leg.queue(raw);
            }
            moved = true;
        }
        if moved {
            // One look at the clock for all: they leave together.
            self.outside.meters.relay_seconds.observe(self.now.elapsed().as_secs_f64());
        }
        if moved {
            self.answer_for_client();
        }
        moved
    }
}

/// The message with the banner before its payload.
fn below_banner(message: &Message, banner: &str) -> Message {
    let payload = [banner.as_bytes(), message.payload()].concat();
    let shown = message.with_payload(message.payload_type(), &payload);
    Message::parse(shown).unwrap_or_else(|_| message.clone())
}

/// Ends what only looks like a terminal and is a port.
///
/// The agent names it in its handshake, before any payload.
fn refuse_unrecordable(message: &Message) -> Result<(), Ended> {
    if message.payload_type() != PayloadType::HandshakeRequest {
        return Ok(());
    }
    let recordable = HandshakeRequest::parse(message.payload())
        .is_ok_and(|request| request.session_type().is_some_and(|kind| kind.session_type != "Port"));
    if recordable {
        return Ok(());
    }
    let sentence = "the session carries a port, which this gateway cannot record yet";
    Err(end("not_recordable", sentence))
}
