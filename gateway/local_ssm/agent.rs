//! One session's task: service and agent of one data channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_channel::sequence::{Incoming, Outgoing};
use data_channel::{
    Acknowledge, ChannelClosed, Draft, HandshakeComplete, HandshakeRequest, Message, MessageType, PayloadType,
};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use uuid::Uuid;

use super::Service;
use super::document::Work;
use super::events::Event;
use super::input::Input;
use super::process::Process;
use super::runes::{Runes, payloads};
use super::sessions::{Counters, Order, Session, Status};
use super::settings::LocalTarget;
use super::wire::{Heard, Wire};

/// What the agent says it is: new enough for every feature of a plugin.
pub(super) const AGENT_VERSION: &str = "3.3.1957.0";
/// How long the agent waits for the handshake's answer; its own value.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(15);
/// How long an ended session waits for acknowledges; the agent's value.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// How often a client is asked whether it is there; load balancers often
/// cut at 60 s.
const PING_EVERY: Duration = Duration::from_secs(30);
/// A client not heard of for so long is gone: three pings unanswered.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Acknowledges that may wait; at 3 ms each that is a million a second.
const LATER_MAX: usize = 4_096;
/// Most messages sent but not acknowledged: then the terminal is not read.
const UNACKNOWLEDGED_MAX: usize = 10_000;

/// Where a session is.
enum Stage {
    /// The client has to answer the handshake.
    Handshake { until: Instant },
    /// The answer is acknowledged next, then the command starts.
    Answered { since: Instant },
    /// The process runs.
    Running,
    /// The process has ended: what it wrote is still being delivered.
    Ended { ending: Ending, until: Option<Instant> },
}

/// How a session ends.
pub(super) struct Ending {
    status: Status,
    output: String,
}

/// What is done a few milliseconds after it could be.
enum Later {
    Acknowledge(Acknowledge),
    CompleteHandshake,
}

/// The state of one session's task.
pub(super) struct Agent {
    service: Arc<Service>,
    session: Arc<Session>,
    target: Arc<LocalTarget>,
    work: Work,
    stage: Stage,
    outgoing: Outgoing,
    incoming: Incoming,
    delivered: Vec<Message>,
    unsent: VecDeque<(PayloadType, Vec<u8>)>,
    runes: [Runes; 2],
    later: VecDeque<(Instant, Later)>,
    /// The next number that was never written to a client.
    unseen: i64,
    epoch: Instant,
    heard_at: Instant,
    ping_at: Instant,
    detached_at: Instant,
    pub(super) quiet_until: Instant,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) shutdown: watch::Receiver<bool>,
    pub(super) wire: Option<Box<Wire>>,
    pub(super) process: Option<Process>,
    pub(super) input: Input,
}

impl Agent {
    /// The task of a session that was just added.
    pub(super) fn new(
        service: Arc<Service>,
        session: Arc<Session>,
        target: Arc<LocalTarget>,
        work: Work,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let now = Instant::now();
        Self {
            stage: Stage::Running,
            outgoing: Outgoing::default().with_limit(UNACKNOWLEDGED_MAX),
            incoming: Incoming::default(),
            delivered: Vec::new(),
            unsent: VecDeque::new(),
            runes: Default::default(),
            later: VecDeque::new(),
            unseen: 0,
            epoch: now,
            heard_at: now,
            ping_at: now + PING_EVERY,
            detached_at: now,
            quiet_until: if work.has_handshake() { now } else { now + service.habits.initial_delay },
            shutdown: service.shutdown.clone(),
            wire: None,
            process: None,
            input: Input::default(),
            service,
            session,
            target,
            work,
            orders,
        }
    }

    /// Runs the session to its end.
    pub(super) async fn run(mut self) {
        if self.work.has_handshake() {
            let request = HandshakeRequest::new(AGENT_VERSION, self.work.session_type(), serde_json::Value::Null);
            self.unsent.push_back((PayloadType::HandshakeRequest, request.encode()));
            self.stage = Stage::Handshake { until: self.epoch + HANDSHAKE_WAIT };
        } else {
            self.start_process();
        }
        let ending = loop {
            self.transmit();
            let event = self.next().await;
            if let Some(ending) = self.handle(event).or_else(|| self.over()) {
                break ending;
            }
        };
        self.finish(ending).await;
    }

    fn handle(&mut self, event: Event) -> Option<Ending> {
        match event {
            Event::Order(order) => return self.obey(order),
            Event::Shutdown => return Some(Ending { status: Status::Terminated, output: String::new() }),
            Event::Heard(heard) => self.heard(heard),
            Event::Output(kind, bytes) => self.output(kind, &bytes),
            Event::OutputEnd => self.process_ended(),
            Event::Typed | Event::Tick => {}
        }
        self.do_what_is_due();
        None
    }

    fn obey(&mut self, order: Order) -> Option<Ending> {
        match order {
            Order::Attach(wire) => self.attach(wire),
            Order::Cut => self.detach(),
            Order::Bye => {
                if let Some(wire) = self.wire.take() {
                    tokio::spawn(wire.close(CloseCode::Normal, "Bye"));
                }
                self.detach();
            }
            Order::Terminate => return Some(Ending { status: Status::Terminated, output: String::new() }),
        }
        None
    }

    fn attach(&mut self, wire: Box<Wire>) {
        self.detach();
        self.wire = Some(wire);
        self.outgoing.reconnected();
        (self.heard_at, self.ping_at) = (Instant::now(), Instant::now() + PING_EVERY);
        Counters::count(&self.session.counters.connections);
        self.session.set_status(Status::Connected);
    }

    fn detach(&mut self) {
        self.wire = None;
        self.detached_at = Instant::now();
        // The client will send again what it has no acknowledge of.
        self.later.retain(|(_, later)| matches!(later, Later::CompleteHandshake));
        if let Stage::Ended { until, .. } = &mut self.stage {
            *until = None;
        }
        self.session.set_status(Status::Disconnected);
    }

    fn heard(&mut self, heard: Heard) {
        self.heard_at = Instant::now();
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
        let stuck = !self.input.has_room() || matches!(self.stage, Stage::Ended { .. });
        if (next && stuck) || self.later.len() >= LATER_MAX {
            return;
        }
        let acknowledge = Acknowledge::of(&message);
        let duplicate = message.sequence() < self.incoming.expected();
        let mut delivered = std::mem::take(&mut self.delivered);
        let arrival = self.incoming.receive(message, &mut delivered);
        if duplicate {
            Counters::count(&self.session.counters.duplicates);
        }
        if arrival.wants_acknowledge() {
            let due = Instant::now() + self.service.habits.acknowledge_delay;
            self.later.push_back((due, Later::Acknowledge(acknowledge)));
        }
        for message in delivered.drain(..) {
            self.deliver(&message);
        }
        self.delivered = delivered;
    }

    fn deliver(&mut self, message: &Message) {
        match (&self.stage, message.payload_type()) {
            (Stage::Handshake { .. }, PayloadType::HandshakeResponse) => self.answered(message.payload()),
            // Before the handshake is complete all else is discarded.
            (Stage::Running, PayloadType::Output) => self.typed(message),
            (Stage::Running, PayloadType::Size) => {
                if let (Some(process), Ok(size)) = (&self.process, data_channel::Size::parse(message.payload())) {
                    process.resize(size);
                }
            }
            _ => {}
        }
    }

    fn typed(&mut self, message: &Message) {
        let Some(process) = &self.process else { return };
        if process.has_terminal() {
            self.input.push(message.payload_bytes());
        } else {
            self.input.interrupt(process, message.payload());
        }
    }

    fn answered(&mut self, payload: &[u8]) {
        let answer = data_channel::HandshakeResponse::parse(payload);
        if answer.is_ok_and(|answer| answer.is_success()) {
            let now = Instant::now();
            self.stage = Stage::Answered { since: now };
            // The acknowledge goes first: a plugin does not expect anything
            // between HandshakeComplete and the session's first output.
            self.later.push_back((now + self.service.habits.acknowledge_delay, Later::CompleteHandshake));
        } else {
            self.ended(Status::Failed, "Handshake with the client failed.");
        }
    }

    fn start_process(&mut self) {
        match Process::start(&self.work, &self.target) {
            Ok(process) => {
                self.process = Some(process);
                self.stage = Stage::Running;
            }
            Err(error) => self.ended(Status::Failed, &format!("Unable to start command: {error}")),
        }
    }

    fn output(&mut self, kind: PayloadType, bytes: &[u8]) {
        let [out, err] = &mut self.runes;
        let runes = if kind == PayloadType::StdErr { err } else { out };
        let whole = runes.take(bytes);
        self.unsent.extend(payloads(&whole).map(|payload| (kind, payload.to_vec())));
    }

    fn process_ended(&mut self) {
        for (runes, kind) in self.runes.iter_mut().zip([PayloadType::Output, PayloadType::StdErr]) {
            let rest = runes.rest();
            if !rest.is_empty() {
                self.unsent.push_back((kind, rest));
            }
        }
        let code = self.process.as_ref().and_then(Process::exit_code);
        if let (Work::NonInteractiveCommand { separate: true, .. }, Some(code)) = (&self.work, code) {
            self.unsent.push_back((PayloadType::ExitCode, data_channel::payload::encode_exit_code(code)));
        }
        self.ended(Status::Terminated, "");
    }

    fn ended(&mut self, status: Status, output: &str) {
        let ending = Ending { status, output: output.to_owned() };
        self.stage = Stage::Ended { ending, until: None };
    }

    /// Sends again what is due, then what is new, while there is room.
    fn transmit(&mut self) {
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
            && let Some((payload_type, payload)) = self.unsent.front()
        {
            let draft = draft(&self.outgoing, *payload_type, payload);
            let Ok(raw) = self.outgoing.send(draft, now) else { break };
            if matches!(payload_type, PayloadType::Output | PayloadType::StdErr) {
                self.session.keep(payload);
            }
            self.unsent.pop_front();
            if let Some(wire) = &mut self.wire {
                wire.send(raw);
                self.unseen = self.outgoing.next_sequence();
            }
        }
    }

    fn has_room(&self) -> bool {
        self.wire.as_ref().is_none_or(|wire| wire.has_room())
    }

    fn do_what_is_due(&mut self) {
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
        let complete = HandshakeComplete { handshake_time_to_complete: took, customer_message: String::new() };
        self.unsent.push_back((PayloadType::HandshakeComplete, complete.encode()));
        self.start_process();
    }

    /// Whether the session is over now, and how.
    fn over(&mut self) -> Option<Ending> {
        let now = Instant::now();
        let attached = self.wire.is_some();
        if !attached && self.detached_at + self.service.habits.disconnected_end <= now {
            return Some(Ending { status: Status::Terminated, output: String::new() });
        }
        let delivered = self.unsent.is_empty() && self.outgoing.waiting() == 0;
        match &mut self.stage {
            Stage::Handshake { until } if *until <= now => {
                let why = "Handshake timed out. Please ensure that you have the latest version of the session manager plugin.";
                self.ended(Status::Failed, why);
                None
            }
            Stage::Ended { ending, until } if attached => {
                let until = *until.get_or_insert(now + DRAIN_WAIT);
                let ending = Ending { status: ending.status, output: std::mem::take(&mut ending.output) };
                if delivered || until <= now {
                    return Some(ending);
                }
                self.stage = Stage::Ended { ending, until: Some(until) };
                None
            }
            _ => None,
        }
    }

    /// When something has to be done even if nothing happens.
    pub(super) fn wake_at(&self) -> Instant {
        let mut times = vec![self.ping_at];
        times.extend(self.later.front().map(|(due, _)| *due));
        match (&self.stage, &self.wire) {
            (Stage::Handshake { until }, _) => times.push(*until),
            (Stage::Ended { until, .. }, Some(_)) => times.extend(*until),
            _ => {}
        }
        match &self.wire {
            None => times.push(self.detached_at + self.service.habits.disconnected_end),
            Some(wire) if wire.has_room() => {
                times.extend(self.outgoing.next_due().map(|due| self.epoch + due));
            }
            Some(_) => {}
        }
        times.into_iter().min().unwrap_or(self.ping_at)
    }

    /// Whether the process may be read: nothing it wrote has to queue.
    pub(super) fn wants_output(&self) -> bool {
        let running = matches!(self.stage, Stage::Running);
        running && self.unsent.is_empty() && !self.outgoing.is_full() && self.has_room()
    }

    async fn finish(mut self, ending: Ending) {
        self.session.set_status(Status::Terminating);
        let process = self.process.take();
        let stopped = async {
            if let Some(process) = process {
                process.end().await;
            }
        };
        let wire = self.wire.take();
        let closed = ChannelClosed::message(self.session.id.as_str(), &ending.output, now_ms());
        let told = async {
            if let Some(mut wire) = wire {
                wire.send(closed);
                wire.close(CloseCode::Normal, "").await;
            }
        };
        tokio::join!(stopped, told);
        self.session.set_status(ending.status);
        self.service.sessions.retire(&self.session);
    }
}

fn draft<'a>(outgoing: &Outgoing, payload_type: PayloadType, payload: &'a [u8]) -> Draft<'a> {
    let flags = if outgoing.next_sequence() == 0 { data_channel::message::SYN } else { 0 };
    let (message_type, created_ms, id) = (MessageType::OutputStreamData, now_ms(), Uuid::new_v4());
    Draft { message_type, created_ms, sequence: 0, flags, id, payload_type, payload }
}

/// Counts a message that is sent again; the next number never sent.
fn resent(session: &Session, unseen: i64, raw: &bytes::Bytes) -> i64 {
    let sequence = Message::parse(raw.clone()).map_or(0, |message| message.sequence());
    if sequence < unseen {
        Counters::count(&session.counters.resends);
    }
    unseen.max(sequence.saturating_add(1))
}

/// The clock of message headers.
pub(super) fn now_ms() -> u64 {
    let ms = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    u64::try_from(ms).unwrap_or(1)
}
