//! A simulated stock plugin: what it prints, ignores, loses and repeats.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_channel::acknowledge::Acknowledge;
use data_channel::handshake::{HandshakeComplete, HandshakeRequest, HandshakeResponse};
use data_channel::message::{Draft, Message, MessageType};
use data_channel::payload::{PayloadType, Size};
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::Role;
use uuid::Uuid;

use super::super::Control;
use super::agent::{at, hear};
use super::link::{Far, Link, connect};
use super::weather::{Dice, Weather};
use super::world::BANNER;

const LISTED_AFTER: Duration = Duration::from_millis(2);
const RESEND_EVERY: Duration = Duration::from_millis(100);
const RESEND_AFTER: Duration = Duration::from_millis(200);
/// Messages that are held out of order; more are ignored.
const EARLY_MAX: usize = 10_000;

enum Event {
    /// Come (back).
    Attach,
    /// The person types the next thing.
    Type,
    Listed(i64),
    Resend,
    ToRelay(u64, Bytes),
    ToPlugin(u64, Bytes),
    Break(u64),
    /// The session's handler is registered.
    Ready,
}

/// Where the gateway is reached now; every process has its own.
pub(super) type Door = Arc<Mutex<Sender<Control<Link>>>>;

/// The client side of the gateway.
pub(super) struct Plugin {
    weather: Weather,
    dice: Dice,
    events: BTreeMap<(Instant, u64), Event>,
    counter: u64,
    door: Door,
    link: Option<Far>,
    frozen: Vec<Far>,
    generation: u64,
    cuts: u64,
    breaks: u64,
    expected: i64,
    early: HashMap<i64, Message>,
    /// Whether it knows what kind of session this is.
    typed: bool,
    ready: bool,
    next: i64,
    listed: BTreeMap<i64, (Bytes, Instant)>,
    unlisted: HashMap<i64, Bytes>,
    resending: bool,
    to_type: VecDeque<Vec<u8>>,
    /// How many bytes it has printed, for whoever waits for that.
    pub(super) count: Arc<AtomicUsize>,
    /// What it printed of the agent's.
    pub(super) printed: Vec<u8>,
    /// What it printed of the gateway's, with when.
    pub(super) notices: Vec<(Instant, String)>,
    /// What it printed at the end of the handshake.
    pub(super) told: String,
    pub(super) closed: bool,
    /// Whether it was ever there.
    pub(super) attached: Arc<AtomicBool>,
}

impl Plugin {
    pub(super) fn new(weather: &Weather, dice: Dice, to_type: VecDeque<Vec<u8>>, door: Door) -> Self {
        Self {
            weather: weather.clone(),
            dice,
            events: BTreeMap::new(),
            counter: 0,
            door,
            link: None,
            frozen: Vec::new(),
            generation: 0,
            cuts: weather.client_cuts,
            breaks: weather.client_cuts,
            expected: 0,
            early: HashMap::new(),
            typed: false,
            ready: false,
            next: 0,
            listed: BTreeMap::new(),
            unlisted: HashMap::new(),
            resending: false,
            to_type,
            count: Arc::default(),
            printed: Vec::new(),
            notices: Vec::new(),
            told: String::new(),
            closed: false,
            attached: Arc::default(),
        }
    }

    /// Lives until the session is closed; then it hangs up.
    pub(super) async fn run(&mut self) {
        let first = self.dice.millis(0..=3_000);
        self.at(first, Event::Attach);
        while !self.closed {
            let due = self.events.first_key_value().map(|((at, _), _)| *at);
            tokio::select! {
                biased;
                raw = hear(&mut self.link) => match raw {
                    Some(raw) => self.at(self.weather.client_latency, Event::ToPlugin(self.generation, raw)),
                    None => self.lost(),
                },
                () = at(due) => {
                    if let Some((_, event)) = self.events.pop_first() {
                        self.happens(event).await;
                    }
                }
            }
        }
        self.link = None;
    }

    /// Gone without a word; it comes back with a token of its own.
    fn lost(&mut self) {
        self.link = None;
        // What was on its way is gone with the connection.
        self.generation += 1;
        let away = self.dice.millis(100..=self.weather.away_ms.max(101));
        self.at(away, Event::Attach);
    }

    async fn happens(&mut self, event: Event) {
        match event {
            Event::Attach => self.attach().await,
            Event::Type => self.type_next(),
            Event::Listed(number) => {
                if let Some(raw) = self.unlisted.remove(&number) {
                    self.listed.insert(number, (raw, Instant::now()));
                    self.resend_later();
                }
            }
            Event::Resend => self.resend(),
            Event::ToRelay(generation, raw) if generation == self.generation => {
                if let Some(link) = &self.link {
                    link.put(raw);
                }
            }
            Event::ToPlugin(generation, raw) if generation == self.generation => {
                self.take(Message::parse(raw).unwrap());
            }
            Event::Break(generation) if generation == self.generation => {
                if self.dice.among(0..=2) == 0 {
                    // The cable is pulled: nobody hangs up.
                    if let Some(link) = self.link.take() {
                        link.freeze();
                        self.frozen.push(link);
                    }
                }
                self.lost();
            }
            Event::Ready => {
                self.ready = true;
                // The first thing that a terminal's handler does.
                if self.weather.port.is_none() {
                    self.say(PayloadType::Size, &Size { cols: 80, rows: 24 }.encode());
                }
                let soon = self.dice.millis(0..=500);
                self.at(soon, Event::Type);
            }
            Event::ToRelay(..) | Event::ToPlugin(..) | Event::Break(_) => {}
        }
    }

    async fn attach(&mut self) {
        let lives = self.weather.lives(&mut self.dice, &mut self.cuts);
        let (near, far) = connect(lives, Role::Server).await;
        let orders = self.door.lock().unwrap().clone();
        if orders.send(Control::Attach(Box::new(near))).await.is_err() {
            // The gateway is away, or over.
            return self.at(Duration::from_millis(300), Event::Attach);
        }
        self.attached.store(true, Ordering::Relaxed);
        self.generation += 1;
        self.link = Some(far);
        if self.breaks > 0 && self.dice.among(0..=1) == 0 {
            self.breaks -= 1;
            let after = self.dice.millis(0..=20_000);
            self.at(after, Event::Break(self.generation));
        }
    }

    fn type_next(&mut self) {
        if self.link.is_none() {
            // A person waits; a stock plugin ends when something is typed now.
            return self.at(Duration::from_millis(500), Event::Type);
        }
        let Some(typed) = self.to_type.pop_front() else { return };
        if self.dice.among(0..=5) == 0 && self.weather.port.is_none() {
            self.say(PayloadType::Size, &Size { cols: 80, rows: 24 }.encode());
        }
        self.say(PayloadType::Output, &typed);
        let pause = match self.dice.among(0..=3) {
            0 => self.dice.millis(1..=3_000),
            _ => Duration::from_millis(1),
        };
        self.at(pause, Event::Type);
    }

    fn say(&mut self, payload_type: PayloadType, payload: &[u8]) {
        let number = self.next;
        self.next += 1;
        let raw = Draft {
            message_type: MessageType::InputStreamData,
            created_ms: 1,
            sequence: number,
            flags: 0,
            id: Uuid::from_u128(number as u128),
            payload_type,
            payload,
        }
        .encode();
        self.unlisted.insert(number, raw.clone());
        self.at(LISTED_AFTER, Event::Listed(number));
        self.send(raw);
    }

    fn send(&mut self, raw: Bytes) {
        self.at(self.weather.client_latency, Event::ToRelay(self.generation, raw));
    }

    fn resend_later(&mut self) {
        if !self.resending && !self.listed.is_empty() {
            self.resending = true;
            self.at(RESEND_EVERY, Event::Resend);
        }
    }

    fn resend(&mut self) {
        self.resending = false;
        let now = Instant::now();
        let oldest = self.listed.iter_mut().next().filter(|(_, (_, sent))| now - *sent > RESEND_AFTER);
        // It never notes that it did: from then on every 100 ms.
        if let Some((_, (raw, _))) = oldest {
            let raw = raw.clone();
            self.send(raw);
        }
        self.resend_later();
    }

    fn take(&mut self, message: Message) {
        assert!(message.digest_matches(), "the gateway passed a wrong digest on");
        match message.message_type() {
            MessageType::Acknowledge => {
                let number = Acknowledge::parse(message.payload()).unwrap().sequence;
                self.listed.remove(&number);
            }
            MessageType::ChannelClosed => self.closed = true,
            MessageType::OutputStreamData => self.take_output(message),
            other => panic!("a client never gets {other:?}"),
        }
    }

    fn take_output(&mut self, message: Message) {
        let number = message.sequence();
        if number > self.expected {
            if self.early.len() < EARLY_MAX {
                self.acknowledge(&message);
                self.early.insert(number, message);
            }
            return;
        }
        // A repeat is passed over in silence.
        if number < self.expected || !self.process(&message) {
            return;
        }
        self.expected += 1;
        while let Some(message) = self.early.remove(&self.expected) {
            // As it is in the source: nobody looks whether this worked.
            if matches!(
                message.payload_type(),
                PayloadType::HandshakeRequest | PayloadType::HandshakeComplete
            ) || self.typed && !self.ready
            {
                panic!("message {number} came before its turn and is lost on a stock plugin");
            }
            self.print(&message);
            self.expected += 1;
        }
    }

    /// The message whose turn it is; false if it is dropped without a trace.
    fn process(&mut self, message: &Message) -> bool {
        match message.payload_type() {
            PayloadType::HandshakeRequest => {
                self.acknowledge(message);
                let request = HandshakeRequest::parse(message.payload()).unwrap();
                let answer = HandshakeResponse::answering(&request, "1.2.764.0").encode();
                self.say(PayloadType::HandshakeResponse, &answer);
            }
            PayloadType::HandshakeComplete => {
                self.acknowledge(message);
                let complete = HandshakeComplete::parse(message.payload()).unwrap();
                self.told = complete.customer_message;
                self.learn_type();
            }
            _ if self.typed && !self.ready => return false,
            _ => {
                self.print(message);
                self.acknowledge(message);
                if !self.typed {
                    assert_eq!(message.payload_type(), PayloadType::Output, "a stock plugin hangs");
                    self.learn_type();
                }
            }
        }
        true
    }

    fn learn_type(&mut self) {
        self.typed = true;
        let soon = self.dice.millis(0..=120);
        self.at(soon, Event::Ready);
    }

    fn print(&mut self, message: &Message) {
        let payload = message.payload();
        let own = payload.strip_prefix(b"\r\n*** postern: ").and_then(|rest| rest.strip_suffix(b" ***\r\n"));
        match own {
            Some(sentence) => {
                self.notices.push((Instant::now(), String::from_utf8(sentence.to_vec()).unwrap()));
            }
            None => {
                self.printed.extend_from_slice(payload);
                let banner =
                    if self.weather.banner && self.weather.port.is_none() { BANNER.len() + 2 } else { 0 };
                self.count.store(self.printed.len().saturating_sub(banner), Ordering::Relaxed);
            }
        }
    }

    fn acknowledge(&mut self, message: &Message) {
        self.send(Acknowledge::of(message).encode(1));
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.counter += 1;
        self.events.insert((Instant::now() + after, self.counter), event);
    }

    /// Where it stands, for the report of a session that jams.
    pub(super) fn state(&self) -> String {
        format!(
            "plugin: expects {}, holds {}, typed {}, waits for {:?}, to type {}, connected {}, ready {}",
            self.expected,
            self.early.len(),
            self.next,
            self.listed.keys().take(5).collect::<Vec<_>>(),
            self.to_type.len(),
            self.link.is_some(),
            self.ready,
        )
    }
}
