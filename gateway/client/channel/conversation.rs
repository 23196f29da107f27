//! What client and agent say to each other, without I/O or clock.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use data_channel::handshake::{HandshakeComplete, HandshakeRequest, HandshakeResponse};
use data_channel::message::CHUNK;
use data_channel::payload::exit_code;
use data_channel::sequence::{Incoming, Outgoing};
use data_channel::{Acknowledge, ChannelClosed, Draft, Flag, Message, MessageType, PayloadType, Size, Uuid};

use crate::client::channel::window::Window;
use crate::client::error::{shown, shown_lines};

/// The version this client gives itself: above every feature switch of the
/// agent (1.2.331) and the least that AWS supports (1.2.764), of four parts.
pub const CLIENT_VERSION: &str = "1.2.999.0";

/// The session type of everything that carries a port.
pub const PORT_SESSION: &str = "Port";
/// An agent that has said nothing by then is taken for a plain, silent
/// program; handshakes begin at once.
const SILENCE: Duration = Duration::from_secs(3);

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Since the conversation began; never runs backwards.
    pub since: Duration,
    /// Milliseconds since the Unix epoch.
    pub ms: u64,
}

/// What a session is for, as far as this end must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Keys and output of a terminal of this size.
    Terminal(Size),
    /// Bytes of a port; always begins with a handshake.
    Port,
}

/// What the far side said.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The agent's version, the session's type and its properties.
    Handshake(HandshakeRequest),
    /// Bytes for the terminal, or of the port.
    Output(Bytes),
    /// Bytes for standard error.
    StdErr(Bytes),
    /// The remote command's exit code, and how the agent wrote it.
    ExitCode(Option<i32>, Bytes),
    /// A sentence of the agent to the person, safe to show.
    Message(String),
    /// What this client cannot do, safe to show; the session is lost.
    Unsupported(String),
    /// A signal of a port session.
    Flag(Flag),
    /// The session is over; the text is safe to show.
    Closed(String),
    /// The connection was lost; it is being made anew.
    Lost,
    /// The connection is back and the session goes on.
    Back,
}

/// How far the session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was heard yet: it may begin with a handshake.
    Quiet,
    /// A handshake is going on; the agent throws input away.
    Handshake,
    /// The session can be used.
    Open,
}

/// One session's data channel, over all its connections.
#[derive(Debug)]
pub struct Conversation {
    outgoing: Outgoing,
    incoming: Incoming,
    phase: Phase,
    window: Window,
    carries: Carries,
    delivered: Vec<Message>,
    to_send: VecDeque<Bytes>,
    events: VecDeque<Event>,
    heard: bool,
}

impl Conversation {
    /// A session that has just been started.
    pub fn new(carries: Carries) -> Self {
        let window = match carries {
            Carries::Terminal(_) => Window::for_keys(),
            Carries::Port => Window::for_a_port(),
        };
        Self {
            outgoing: Outgoing::default().with_limit(window.most()),
            incoming: Incoming::default(),
            phase: Phase::Quiet,
            window,
            carries,
            delivered: Vec::new(),
            to_send: VecDeque::new(),
            events: VecDeque::new(),
            heard: false,
        }
    }

    /// Takes one binary message as it came.
    pub fn receive(&mut self, raw: Bytes, now: Moment) {
        let message = match Message::parse(raw) {
            Ok(message) if message.digest_matches() => message,
            // Not acknowledged, so the agent sends it again.
            Ok(_) => return tracing::debug!("a message with a wrong digest was dropped"),
            Err(error) => return tracing::debug!(%error, "a message was dropped"),
        };
        match message.message_type() {
            MessageType::OutputStreamData => self.take_output(message, now),
            MessageType::Acknowledge => {
                if let Ok(acknowledge) = Acknowledge::parse(message.payload()) {
                    self.take_acknowledge(acknowledge.sequence, now);
                }
            }
            MessageType::ChannelClosed => {
                let closed = ChannelClosed::parse(message.payload()).unwrap_or_default();
                self.events.push_back(Event::Closed(shown_lines(&closed.output)));
            }
            other => tracing::debug!(kind = other.as_str(), "a message was passed over"),
        }
    }

    /// Sends input; at most [`CHUNK`] bytes go into a message.
    ///
    /// Ask [`Conversation::may_type`] first: what does not fit is dropped.
    pub fn type_input(&mut self, bytes: &[u8], now: Moment) {
        for chunk in bytes.chunks(CHUNK) {
            self.send(PayloadType::Output, chunk, now);
        }
    }

    /// Tells the far side the terminal's size, once it can be told.
    ///
    /// A port has none: there the size goes nowhere.
    pub fn resize(&mut self, size: Size, now: Moment) {
        if matches!(self.carries, Carries::Terminal(old) if old != size) {
            self.carries = Carries::Terminal(size);
            self.send_size(now);
        }
    }

    /// Raises a flag of a port session, behind all that was typed.
    ///
    /// Shells take a flag for keys, so there it goes nowhere.
    pub fn raise(&mut self, flag: Flag, now: Moment) {
        if self.carries == Carries::Port {
            self.send(PayloadType::Flag, &flag.encode(), now);
        }
    }

    /// Whether input can be taken from the person now.
    pub fn may_type(&self) -> bool {
        self.phase == Phase::Open && self.window.has_room(&self.outgoing)
    }

    /// Does what is due by now: silence ends, messages are sent again.
    pub fn tick(&mut self, now: Moment) {
        if self.waits_in_silence() && now.since >= SILENCE {
            self.open(now);
        }
        while let Some(raw) = self.outgoing.due(now.since) {
            self.to_send.push_back(raw);
        }
    }

    /// When [`Conversation::tick`] has something to do next.
    pub fn next_tick(&self) -> Option<Duration> {
        let silence = self.waits_in_silence().then_some(SILENCE);
        [silence, self.outgoing.next_due()].into_iter().flatten().min()
    }

    /// A new connection is there: everything unacknowledged goes out again.
    ///
    /// Numbers go on and there is no new handshake.
    pub fn reconnected(&mut self, now: Moment) {
        // Acknowledges for the old connection would only be repeats.
        self.to_send.clear();
        self.outgoing.reconnected();
        self.tick(now);
        self.events.push_back(Event::Back);
    }

    /// The next message for the socket.
    pub fn next_message(&mut self) -> Option<Bytes> {
        self.to_send.pop_front()
    }

    /// Whether the far side has said something that nobody took yet.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next thing the far side said.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Adds something that the connection has to say.
    pub fn announce(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Whether the far side has shown that it is there.
    pub fn was_heard(&self) -> bool {
        self.heard
    }

    /// A port never begins without a handshake, however long it takes.
    fn waits_in_silence(&self) -> bool {
        self.phase == Phase::Quiet && self.carries != Carries::Port
    }

    fn take_acknowledge(&mut self, sequence: i64, now: Moment) {
        let was_used = self.window.is_used(&self.outgoing);
        let waited = self.outgoing.waiting_since().map(|sent| now.since.saturating_sub(sent));
        if !self.outgoing.acknowledged(sequence, now.since) {
            return;
        }
        self.heard = true;
        if let Some(waited) = waited {
            self.window.acknowledged(waited, was_used, now.since);
        }
    }

    fn take_output(&mut self, message: Message, now: Moment) {
        self.heard = true;
        let acknowledge = Acknowledge::of(&message);
        let mut delivered = std::mem::take(&mut self.delivered);
        let arrival = self.incoming.receive(message, &mut delivered);
        if arrival.wants_acknowledge() {
            self.to_send.push_back(acknowledge.encode(now.ms));
        }
        for message in delivered.drain(..) {
            self.deliver(&message, now);
        }
        self.delivered = delivered;
    }

    fn deliver(&mut self, message: &Message, now: Moment) {
        let event = match message.payload_type() {
            PayloadType::HandshakeRequest => return self.shake_hands(message, now),
            PayloadType::HandshakeComplete => return self.handshake_done(message, now),
            PayloadType::EncChallengeRequest => Event::Unsupported(KMS.to_owned()),
            PayloadType::StdErr => Event::StdErr(message.payload_bytes()),
            PayloadType::ExitCode => Event::ExitCode(exit_code(message.payload()), message.payload_bytes()),
            PayloadType::Flag => match Flag::parse(message.payload()) {
                Ok(flag) => Event::Flag(flag),
                Err(_) => return,
            },
            _ => Event::Output(message.payload_bytes()),
        };
        if self.phase == Phase::Quiet {
            self.open(now);
        }
        self.events.push_back(event);
    }

    fn shake_hands(&mut self, message: &Message, now: Moment) {
        self.phase = Phase::Handshake;
        let Ok(request) = HandshakeRequest::parse(message.payload()) else {
            return self.events.push_back(Event::Unsupported(
                "the target began a handshake that this client cannot read".to_owned(),
            ));
        };
        let answer = HandshakeResponse::answering(&request, CLIENT_VERSION);
        self.send(PayloadType::HandshakeResponse, &answer.encode(), now);
        let action = request.session_type();
        let session_type = action.map(|action| action.session_type).unwrap_or_default();
        if session_type == PORT_SESSION && self.carries != Carries::Port {
            // A document of the account's own can turn out to be a port.
            self.carries = Carries::Port;
            self.window = Window::for_a_port();
            self.outgoing = std::mem::take(&mut self.outgoing).with_limit(self.window.most());
        }
        self.events.push_back(match request.kms_encryption() {
            Some(_) => Event::Unsupported(KMS.to_owned()),
            None if answer.is_success() => Event::Handshake(request),
            None => Event::Unsupported(format!(
                "this client cannot do what the target asks for ({})",
                shown(&session_type)
            )),
        });
    }

    fn handshake_done(&mut self, message: &Message, now: Moment) {
        let done = HandshakeComplete::parse(message.payload()).unwrap_or_default();
        if !done.customer_message.is_empty() {
            self.events.push_back(Event::Message(shown_lines(&done.customer_message)));
        }
        self.open(now);
    }

    fn open(&mut self, now: Moment) {
        self.phase = Phase::Open;
        self.send_size(now);
    }

    fn send_size(&mut self, now: Moment) {
        if let (Phase::Open, Carries::Terminal(size)) = (self.phase, self.carries) {
            self.send(PayloadType::Size, &size.encode(), now);
        }
    }

    fn send(&mut self, payload_type: PayloadType, payload: &[u8], now: Moment) {
        if payload.is_empty() {
            // Real peers cannot write an empty payload.
            return;
        }
        let draft = Draft {
            message_type: MessageType::InputStreamData,
            created_ms: now.ms,
            sequence: 0,
            flags: 0,
            id: Uuid::new_v4(),
            payload_type,
            payload,
        };
        // The message is kept before it is sent: no acknowledge is too early.
        match self.outgoing.send(draft, now.since) {
            Ok(raw) => self.to_send.push_back(raw),
            Err(error) => tracing::debug!(%error, "input was dropped"),
        }
    }
}

const KMS: &str = "the session asks for KMS encryption, which the gateway does and this client does not; \
                   connect through a gateway";

#[cfg(test)]
mod tests {
    use super::*;
    use data_channel::handshake::HandshakeComplete;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    fn at(since: Duration) -> Moment {
        Moment { since, ms: 1 }
    }

    fn say(sequence: i64, payload_type: PayloadType, payload: &[u8]) -> Bytes {
        let message_type = MessageType::OutputStreamData;
        let id = Uuid::new_v4();
        Draft { message_type, created_ms: 1, sequence, flags: 0, id, payload_type, payload }.encode()
    }

    /// Acknowledges of what is on its way, but for acknowledges.
    fn answers(conversation: &mut Conversation) -> Vec<Bytes> {
        let sent =
            std::iter::from_fn(|| conversation.next_message()).filter_map(|raw| Message::parse(raw).ok());
        let input = sent.filter(|message| message.message_type() == MessageType::InputStreamData);
        input.map(|message| Acknowledge::of(&message).encode(1)).collect()
    }

    /// Types for so many round trips; how many messages the last one took.
    fn typed(conversation: &mut Conversation, trips: u32, now: &mut Duration) -> usize {
        let mut last = 0;
        for _ in 0..trips {
            while conversation.may_type() {
                conversation.type_input(&[7; CHUNK], at(*now));
            }
            *now += ROUND_TRIP;
            let answers = answers(conversation);
            last = answers.len();
            answers.into_iter().for_each(|answer| conversation.receive(answer, at(*now)));
        }
        last
    }

    #[test]
    fn distance_does_not_slow_a_port_down_and_keys_are_never_far_ahead() {
        for (carries, session_type, most) in [
            (Carries::Port, "Port", 4095),
            (Carries::Terminal(Size { cols: 80, rows: 24 }), "NonInteractiveCommands", 255),
        ] {
            let (mut conversation, mut now) = (Conversation::new(carries), Duration::ZERO);
            let request = HandshakeRequest::new("3.3.0.0", session_type, serde_json::Value::Null);
            conversation.receive(say(0, PayloadType::HandshakeRequest, &request.encode()), at(now));
            let complete = HandshakeComplete::default().encode();
            conversation.receive(say(1, PayloadType::HandshakeComplete, &complete), at(now));
            now += ROUND_TRIP;
            for answer in answers(&mut conversation) {
                conversation.receive(answer, at(now));
            }
            assert_eq!(typed(&mut conversation, 30, &mut now), most, "{session_type}");
        }
    }

    #[test]
    fn a_port_says_nothing_before_its_handshake_however_late_that_is() {
        let mut conversation = Conversation::new(Carries::Port);
        conversation.tick(at(Duration::from_secs(50)));
        assert!(!conversation.may_type() && conversation.next_message().is_none());
        assert_eq!(conversation.next_tick(), None);
    }
}
