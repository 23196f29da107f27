//! A simulated agent and the service before it, as stock as they come.
//!
//! It sends the oldest unacknowledged message again by its timer, loses
//! acknowledges that come within 2 ms, and acknowledges repeats again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use data_channel::acknowledge::Acknowledge;
use data_channel::control::ChannelClosed;
use data_channel::handshake::HandshakeRequest;
use data_channel::message::{Draft, Message, MessageType};
use data_channel::payload::PayloadType;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::carried::Serving;
use super::link::Far;
use super::weather::{Dice, Weather};

/// Both real programs enter a message in their resend list after sending it.
const LISTED_AFTER: Duration = Duration::from_millis(2);
/// How often the resend list is looked at, and how old its first must be.
const RESEND_EVERY: Duration = Duration::from_millis(100);
const RESEND_AFTER: Duration = Duration::from_millis(200);

enum Event {
    /// The script goes on.
    Speak,
    /// The message is in the resend list now.
    Listed(i64),
    /// Look at the resend list.
    Resend,
    /// To the gateway, on the connection of then.
    ToRelay(u64, Bytes),
    /// From the gateway, having passed the service.
    ToAgent(Bytes),
    /// The connection ends, by a close or without a word.
    Break(u64),
    /// Everything is acknowledged; is everything printed?
    Over,
}

/// The far side of the gateway.
pub(super) struct Agent {
    weather: Weather,
    dice: Dice,
    events: BTreeMap<(Instant, u64), Event>,
    counter: u64,
    link: Option<Far>,
    /// Connections that are open and dead.
    frozen: Vec<Far>,
    generation: u64,
    breaks: u64,
    next: i64,
    listed: BTreeMap<i64, (Bytes, Instant)>,
    unlisted: HashMap<i64, Bytes>,
    resending: bool,
    ready: Instant,
    shaken: bool,
    expected: i64,
    early: BTreeMap<i64, Message>,
    over: bool,
    ending: bool,
    /// Bytes that the plugin has printed, of how many.
    pub(super) printed: Arc<AtomicUsize>,
    said_bytes: usize,
    /// What was said, by payload.
    pub(super) said: Vec<(i64, Vec<u8>)>,
    /// What arrived, in order.
    pub(super) heard: Vec<u8>,
    wanted: usize,
    /// The connections of a port session in smux.
    serving: Option<Serving>,
    /// When each number was first put on its way to the gateway.
    pub(super) put: HashMap<i64, Instant>,
    pauses: u64,
}

impl Agent {
    pub(super) fn new(weather: &Weather, dice: Dice, wanted: usize) -> Self {
        let now = Instant::now();
        let mut agent = Self {
            weather: weather.clone(),
            dice,
            events: BTreeMap::new(),
            counter: 0,
            link: None,
            frozen: Vec::new(),
            generation: 0,
            breaks: weather.upstream_cuts,
            next: 0,
            listed: BTreeMap::new(),
            unlisted: HashMap::new(),
            resending: false,
            ready: now,
            shaken: weather.handshake.is_none(),
            expected: 0,
            early: BTreeMap::new(),
            over: false,
            ending: false,
            printed: Arc::default(),
            said_bytes: 0,
            said: Vec::new(),
            heard: Vec::new(),
            wanted,
            serving: weather.streams().map(Serving::new),
            put: HashMap::new(),
            pauses: weather.long_pauses,
        };
        agent.ready = now + agent.dice.millis(0..=300);
        agent
    }

    /// Lives until it is dropped; `acknowledged` judges each acknowledge.
    pub(super) async fn run(
        &mut self,
        mut links: UnboundedReceiver<Far>,
        mut acknowledged: impl FnMut(&Self, i64),
    ) {
        self.at(Duration::ZERO, Event::Speak);
        loop {
            let due = self.events.first_key_value().map(|((at, _), _)| *at);
            tokio::select! {
                biased;
                Some(link) = links.recv() => self.connected(link),
                raw = hear(&mut self.link) => match raw {
                    Some(raw) => {
                        self.passes(&raw, &mut acknowledged);
                        if self.survives() {
                            self.at_once_or_late(Event::ToAgent, raw);
                        }
                    }
                    None => self.link = None,
                },
                () = at(due) => {
                    if let Some((_, event)) = self.events.pop_first() {
                        self.happens(event);
                    }
                }
            }
        }
    }

    fn connected(&mut self, link: Far) {
        self.generation += 1;
        self.link = Some(link);
        if self.over {
            self.close();
        } else if self.breaks > 0 && self.dice.among(0..=1) == 0 {
            self.breaks -= 1;
            let after = self.dice.millis(0..=20_000);
            self.at(after, Event::Break(self.generation));
        }
    }

    /// What the service sees of the gateway's messages.
    fn passes(&self, raw: &Bytes, acknowledged: &mut impl FnMut(&Self, i64)) {
        let message = Message::parse(raw.clone()).unwrap();
        assert!(message.digest_matches());
        if message.message_type() == MessageType::Acknowledge {
            let acknowledge = Acknowledge::parse(message.payload()).unwrap();
            assert_eq!(acknowledge.message_type, MessageType::OutputStreamData);
            acknowledged(self, acknowledge.sequence);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Speak => self.speak(),
            Event::Listed(number) => {
                if let Some(raw) = self.unlisted.remove(&number) {
                    self.listed.insert(number, (raw, Instant::now()));
                    self.resend_later();
                }
            }
            Event::Resend => self.resend(),
            Event::ToRelay(generation, raw) => {
                if generation == self.generation
                    && let Some(link) = &self.link
                {
                    let message = Message::parse(raw.clone()).unwrap();
                    if message.message_type() == MessageType::OutputStreamData {
                        self.put.entry(message.sequence()).or_insert_with(Instant::now);
                    }
                    link.put(raw);
                }
            }
            Event::ToAgent(raw) => self.hear(Message::parse(raw).unwrap()),
            Event::Break(generation) if generation == self.generation => match self.dice.among(0..=3) {
                0 => self.link.iter().for_each(Far::bye),
                // Finding that out takes as long as a quiet session lives.
                1 if self.weather.idle_timeout.is_none() => {
                    // Neither a word nor a pong comes any more.
                    if let Some(link) = self.link.take() {
                        link.freeze();
                        self.frozen.push(link);
                    }
                }
                _ => self.link = None,
            },
            Event::Break(_) => {}
            // A client that is gone without a word is not left without the rest.
            Event::Over if self.printed.load(Ordering::Relaxed) < self.said_bytes => {
                self.at(Duration::from_secs(1), Event::Over);
            }
            Event::Over => {
                self.over = true;
                self.close();
            }
        }
    }

    fn speak(&mut self) {
        if self.next == 0
            && let Some(kind) = self.weather.handshake
        {
            let request = HandshakeRequest::new("3.3.0.0", kind, self.weather.properties());
            self.say(PayloadType::HandshakeRequest, &request.encode());
            return;
        }
        if self.serving.is_none() && self.said.len() as u64 >= self.weather.output {
            return;
        }
        let len = self.dice.among(1..=1024) as usize;
        let (payload_type, payload) = match self.dice.among(0..=19) {
            _ if let Some(serving) = &mut self.serving => {
                let Some(payload) = serving.next(len, &mut self.dice) else { return };
                (PayloadType::Output, payload)
            }
            0 if self.weather.handshake == Some("NonInteractiveCommands") => {
                (PayloadType::StdErr, self.dice.bytes(len))
            }
            _ => (PayloadType::Output, self.dice.bytes(len)),
        };
        self.said_bytes += payload.len();
        self.said.push((self.next, payload.clone()));
        self.say(payload_type, &payload);
        let left = self.weather.output.saturating_sub(self.said.len() as u64);
        let pause = match self.dice.among(0..=left) {
            pause if pause < self.pauses => {
                self.pauses -= 1;
                self.dice.millis(62_000..=90_000)
            }
            _ if self.dice.among(0..=9) == 0 => self.dice.millis(1..=4_000),
            _ => Duration::from_millis(1),
        };
        self.at(pause, Event::Speak);
    }

    fn say(&mut self, payload_type: PayloadType, payload: &[u8]) {
        let number = self.next;
        self.next += 1;
        let raw = Draft {
            message_type: MessageType::OutputStreamData,
            created_ms: 1,
            sequence: number,
            flags: u64::from(number == 0),
            id: Uuid::from_u128(number as u128),
            payload_type,
            payload,
        }
        .encode();
        self.unlisted.insert(number, raw.clone());
        self.at(LISTED_AFTER, Event::Listed(number));
        self.send(raw);
    }

    /// Through the service, which has its moods.
    fn send(&mut self, raw: Bytes) {
        let generation = self.generation;
        if self.survives() {
            self.at_once_or_late(|raw| Event::ToRelay(generation, raw), raw.clone());
        }
        if self.dice.one_in_a_thousand(self.weather.doubled) {
            self.at_once_or_late(|raw| Event::ToRelay(generation, raw), raw);
        }
    }

    fn survives(&mut self) -> bool {
        !self.dice.one_in_a_thousand(self.weather.lost)
    }

    fn at_once_or_late(&mut self, event: impl FnOnce(Bytes) -> Event, raw: Bytes) {
        let late = self.dice.one_in_a_thousand(self.weather.delayed);
        let more = if late { self.dice.millis(1..=400) } else { Duration::ZERO };
        self.at(self.weather.upstream_latency + more, event(raw));
    }

    fn resend_later(&mut self) {
        if !self.resending && !self.listed.is_empty() {
            self.resending = true;
            self.at(RESEND_EVERY, Event::Resend);
        }
    }

    /// Only the oldest one, ever.
    fn resend(&mut self) {
        self.resending = false;
        let now = Instant::now();
        let oldest = self.listed.iter_mut().next().filter(|(_, (_, sent))| now - *sent > RESEND_AFTER);
        if let Some((_, (raw, sent))) = oldest {
            *sent = now;
            let raw = raw.clone();
            self.send(raw);
        }
        self.resend_later();
    }

    fn hear(&mut self, message: Message) {
        if message.message_type() == MessageType::Acknowledge {
            let number = Acknowledge::parse(message.payload()).unwrap().sequence;
            assert!(number < self.next, "an acknowledge of {number}, which was never said");
            self.listed.remove(&number);
            return self.end_if_done();
        }
        let number = message.sequence();
        if number == self.expected && Instant::now() < self.ready {
            return;
        }
        let acknowledge = Acknowledge::of(&message).encode(1);
        if number == self.expected {
            self.act(message);
        } else if number > self.expected {
            self.early.insert(number, message);
        }
        self.send(acknowledge);
        while let Some(message) = self.early.remove(&self.expected) {
            self.act(message);
        }
        self.end_if_done();
    }

    fn act(&mut self, message: Message) {
        self.expected += 1;
        match message.payload_type() {
            PayloadType::HandshakeResponse => {
                assert!(!self.shaken, "a second answer blocks the agent for ever");
                self.shaken = true;
                let complete = br#"{"HandshakeTimeToComplete":1000000,"CustomerMessage":""}"#;
                self.say(PayloadType::HandshakeComplete, complete);
                self.at(Duration::ZERO, Event::Speak);
            }
            PayloadType::Output => {
                self.heard.extend_from_slice(message.payload());
                let idle =
                    self.serving.as_mut().is_some_and(|it| it.hears(message.payload(), &mut self.dice));
                if idle {
                    self.at(Duration::ZERO, Event::Speak);
                }
            }
            _ => {}
        }
    }

    fn end_if_done(&mut self) {
        let said = match &self.serving {
            Some(serving) => serving.is_done(),
            None => self.said.len() as u64 >= self.weather.output,
        };
        let waits = !self.listed.is_empty() || !self.unlisted.is_empty() || self.heard.len() < self.wanted;
        if said && !waits && !self.ending {
            self.ending = true;
            self.at(Duration::from_millis(300), Event::Over);
        }
    }

    /// The service says that it is over; a closed connection says so too.
    fn close(&mut self) {
        if let Some(link) = &self.link {
            link.put(ChannelClosed::message("alice-1", "", 1));
        }
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.counter += 1;
        self.events.insert((Instant::now() + after, self.counter), event);
    }

    /// Where it stands, for the report of a session that jams.
    pub(super) fn state(&self) -> String {
        format!(
            "agent: said {}, next {}, listed {:?}, heard {} of {} bytes, connected {}",
            self.said.len(),
            self.next,
            self.listed.keys().take(5).collect::<Vec<_>>(),
            self.heard.len(),
            self.wanted,
            self.link.is_some(),
        )
    }
}

/// The next message of a connection, if there is one.
pub(super) async fn hear(link: &mut Option<Far>) -> Option<Bytes> {
    match link {
        Some(link) => link.hear().await,
        None => std::future::pending().await,
    }
}

/// Waits until then, or for ever.
pub(super) async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
