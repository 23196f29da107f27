//! One session's task: service and agent of one data channel.

mod basic;
mod destination;
mod endpoint;
mod events;
mod kms;
mod mode;
mod mux;
mod receive;
mod stream;
mod transmit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_channel::sequence::{Incoming, Outgoing};
use data_channel::{Acknowledge, ChannelClosed, HandshakeRequest, Message, PayloadType};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use endpoint::{Endpoint, Happened};
use events::Event;
use kms::Encryption;
use mode::Mode;
use transmit::Later;

use super::Service;
use super::document::Work;
use super::runes::Runes;
use super::sessions::{Counters, Order, Session, Status};
use super::settings::LocalTarget;
use super::wire::Wire;

/// How long the agent waits for the handshake's answer; its own value.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(15);
/// How long an ended session waits for acknowledges; the agent's value.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// How often a client is asked whether it is there; load balancers often
/// cut at 60 s.
const PING_EVERY: Duration = Duration::from_secs(30);
/// A client not heard of for so long is gone: three pings unanswered.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Most messages sent but not acknowledged: then the terminal is not read.
const UNACKNOWLEDGED_MAX: usize = 10_000;

/// Where a session is.
enum Stage {
    /// The client has to answer the handshake.
    Handshake { until: Instant },
    /// The answer is acknowledged next, then the endpoint starts.
    Answered { since: Instant },
    /// The endpoint gives and takes bytes.
    Running,
    /// The endpoint has ended: what it wrote is still being delivered.
    Ended { ending: Ending, until: Option<Instant> },
}

/// How a session ends.
pub(super) struct Ending {
    status: Status,
    output: String,
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
    /// Whether output and errors are at the start of a line.
    fresh: [bool; 2],
    later: VecDeque<(Instant, Later)>,
    /// The acknowledge that goes after HandshakeComplete.
    late: Option<Acknowledge>,
    /// The next number that was never written to a client.
    unseen: i64,
    epoch: Instant,
    heard_at: Instant,
    ping_at: Instant,
    detached_at: Instant,
    quiet_until: Instant,
    orders: mpsc::Receiver<Order>,
    shutdown: watch::Receiver<bool>,
    /// When the next new message may go, at the agent's pace.
    paced_until: Duration,
    /// What the client said it is; empty without a handshake.
    client_version: String,
    wire: Option<Box<Wire>>,
    endpoint: Endpoint,
    encryption: Option<Encryption>,
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
        let challenges = service.habits.kms_challenge;
        // Agents never encrypt ports.
        let key = target.kms_key.as_deref().filter(|_| !matches!(work, Work::Port(_)));
        let encryption = key.map(|key| Encryption::new(key, challenges));
        let has_handshake = work.has_handshake() || encryption.is_some();
        Self {
            stage: Stage::Running,
            outgoing: Outgoing::default().with_limit(UNACKNOWLEDGED_MAX),
            incoming: Incoming::default(),
            delivered: Vec::new(),
            unsent: VecDeque::new(),
            runes: Default::default(),
            fresh: [true; 2],
            later: VecDeque::new(),
            late: None,
            unseen: 0,
            epoch: now,
            heard_at: now,
            ping_at: now + PING_EVERY,
            detached_at: now,
            quiet_until: if has_handshake { now } else { now + service.habits.initial_delay },
            shutdown: service.shutdown.clone(),
            paced_until: Duration::ZERO,
            client_version: String::new(),
            wire: None,
            endpoint: Endpoint::Nothing,
            encryption,
            service,
            session,
            target,
            work,
            orders,
        }
    }

    /// Runs the session to its end.
    pub(super) async fn run(mut self) {
        if self.work.has_handshake() || self.encryption.is_some() {
            let (kind, mut properties) = (self.work.session_type(), self.work.properties());
            if let (Some(named), Some(lie)) =
                (properties.get_mut("portNumber"), self.service.habits.handshake_port)
            {
                *named = lie.to_string().into();
            }
            let mut request = HandshakeRequest::new(self.target.agent_version(), kind, properties);
            if let Some(encryption) = &self.encryption {
                request = encryption.asked_for(request);
            }
            self.unsent.push_back((PayloadType::HandshakeRequest, request.encode()));
            self.stage = Stage::Handshake { until: self.epoch + HANDSHAKE_WAIT };
        } else {
            self.start_endpoint();
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
            Event::Endpoint(Happened::Output(kind, bytes)) => self.output(kind, &bytes),
            Event::Endpoint(Happened::ProcessEnd) => self.process_ended(),
            Event::Endpoint(Happened::Over(status, why)) => self.ended(status, &why),
            Event::Endpoint(Happened::Moved) | Event::Tick => {}
        }
        self.do_what_is_due();
        None
    }

    fn obey(&mut self, order: Order) -> Option<Ending> {
        match order {
            Order::Attach(wire) => self.attach(wire),
            Order::Cut(told) => {
                let connected = self.wire.take().is_some();
                self.detach();
                // Whoever asked may have stopped waiting.
                let _ = told.send(connected);
            }
            Order::Bye(told) => {
                let wire = self.wire.take();
                let _ = told.send(wire.is_some());
                if let Some(wire) = wire {
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

    fn start_endpoint(&mut self) {
        let started = match &self.work {
            Work::Port(port) => {
                let mode = Mode::of(port.forwards, &self.client_version, self.target.agent_version());
                let (target, every) = (Arc::clone(&self.target), self.service.habits.keep_alive);
                Ok(Endpoint::port(port.clone(), target, mode, every))
            }
            work => Endpoint::process(work, &self.target),
        };
        match started {
            Ok(endpoint) => {
                self.endpoint = endpoint;
                self.stage = Stage::Running;
            }
            Err(why) => self.ended(Status::Failed, &why),
        }
    }

    fn ended(&mut self, status: Status, output: &str) {
        self.endpoint.disconnect();
        let ending = Ending { status, output: output.to_owned() };
        self.stage = Stage::Ended { ending, until: None };
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
    fn wake_at(&self) -> Instant {
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
        if !self.unsent.is_empty() && self.paced_until > self.epoch.elapsed() {
            times.push(self.epoch + self.paced_until);
        }
        times.into_iter().min().unwrap_or(self.ping_at)
    }

    async fn finish(mut self, ending: Ending) {
        self.session.set_status(Status::Terminating);
        let stopped = std::mem::replace(&mut self.endpoint, Endpoint::Nothing).end();
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

/// The clock of message headers.
pub(super) fn now_ms() -> u64 {
    let ms = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    u64::try_from(ms).unwrap_or(1)
}
