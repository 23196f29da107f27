//! A data-channel client that a test drives message by message.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use data_channel::message::{CHUNK, SYN};
use data_channel::{
    Acknowledge, Arrival, ChannelClosed, Draft, HandshakeRequest, HandshakeResponse, Incoming, Message,
    MessageType, OpenDataChannel, Outgoing, PayloadType, Size, Uuid,
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::web::{Call, Door};
use super::{PATIENCE, Person, Ticket, within};

/// Messages of a paste that may wait for their acknowledges.
const PASTED_MAX: usize = 2000;

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// What a terminal heard.
#[derive(Debug)]
pub enum Heard {
    /// An output message.
    Output,
    /// An acknowledge of an input message.
    Acknowledge,
    /// The session is over, and why.
    Closed(String),
    /// The connection is gone; the code if it was closed politely.
    Gone(Option<u16>),
}

/// A terminal on a stream URL; keeps its state over connections.
pub struct Terminal {
    pub session: String,
    pub client_id: String,
    socket: Option<Socket>,
    outgoing: Outgoing,
    incoming: Incoming,
    epoch: Instant,
    /// Terminal output in order, each message once.
    pub output: Vec<u8>,
    /// How often each output message came, over all connections.
    pub arrivals: BTreeMap<i64, u32>,
    /// Output messages whose acknowledge is kept back.
    pub kept_back: BTreeMap<i64, Message>,
    /// Which numbers to keep back when they come; all from `keep_from`.
    pub keep: BTreeSet<i64>,
    pub keep_from: Option<i64>,
    /// Output messages that were acknowledged.
    pub acknowledged: BTreeSet<i64>,
    /// Output that is dropped without a trace when its turn has come, as a
    /// stock client does whose session handler is not registered yet.
    pub unready: u32,
    /// The handshake requests that were answered.
    pub requests: Vec<Vec<u8>>,
    /// Says nothing to a message that came before, as the stock plugin.
    pub silent_on_repeats: bool,
    /// Payload types other than output, in order.
    pub others: Vec<(PayloadType, Vec<u8>)>,
}

impl Terminal {
    /// Opens the stream URL of a ticket as an ordinary client.
    pub async fn open(door: &Door, ticket: &Ticket) -> Self {
        let mut terminal = Self::new(&ticket.session);
        terminal.attach(door, ticket).await;
        terminal
    }

    pub fn new(session: &str) -> Self {
        Self {
            session: session.to_owned(),
            client_id: Uuid::new_v4().to_string(),
            socket: None,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            epoch: Instant::now(),
            output: Vec::new(),
            arrivals: BTreeMap::new(),
            kept_back: BTreeMap::new(),
            keep: BTreeSet::new(),
            keep_from: None,
            acknowledged: BTreeSet::new(),
            unready: 0,
            requests: Vec::new(),
            silent_on_repeats: false,
            others: Vec::new(),
        }
    }

    /// A session of a person and a terminal on it, its prompt shown.
    pub async fn shell(person: &Person, target: &str) -> Self {
        let ticket = person.start(target).await;
        let mut terminal = Self::open(&person.door, &ticket).await;
        terminal.until("$ ").await;
        terminal
    }

    /// Connects (again); what is not acknowledged is sent again.
    pub async fn attach(&mut self, door: &Door, ticket: &Ticket) {
        self.attach_with(door, ticket, &[]).await;
    }

    /// The same, with more headers on the upgrade.
    pub async fn attach_with(&mut self, door: &Door, ticket: &Ticket, headers: &[(String, String)]) {
        let mut socket = upgrade(door, &ticket.url, headers).await;
        let opening = OpenDataChannel::new(&ticket.token, &self.client_id, Some("1.2.764.0")).to_text();
        socket.send(Frame::text(opening)).await.unwrap();
        self.socket = Some(socket);
        self.outgoing.reconnected();
        while let Some(raw) = self.outgoing.due(self.epoch.elapsed()) {
            self.put(Frame::Binary(raw)).await;
        }
    }

    /// Asks for a token and comes back.
    pub async fn resume(&mut self, person: &Person) {
        let ticket = person.resume(&self.session).await.expect("the session can be resumed");
        self.attach(&person.door, &ticket).await;
    }

    /// Cuts the TCP connection without a word of TLS or WebSocket.
    pub fn cut(&mut self) {
        let socket = self.socket.take().unwrap();
        let (tcp, _) = socket.get_ref().get_ref();
        tcp.set_zero_linger().unwrap();
    }

    /// The connection, which then nobody looks at any more.
    pub fn abandon(&mut self) -> impl Sized + use<> {
        self.socket.take().unwrap()
    }

    /// Sends whatever a test likes.
    pub async fn put(&mut self, frame: Frame) {
        // A connection that was cut is noticed when reading.
        let _ = self.socket.as_mut().unwrap().send(frame).await;
    }

    pub async fn put_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.put(Frame::Binary(bytes.into())).await;
    }

    /// Sends one input message.
    pub async fn send(&mut self, payload_type: PayloadType, payload: &[u8]) {
        let raw = self.outgoing.send(draft(payload_type, payload), self.epoch.elapsed()).unwrap();
        self.put(Frame::Binary(raw)).await;
    }

    pub async fn type_line(&mut self, line: &str) {
        self.send(PayloadType::Output, format!("{line}\r").as_bytes()).await;
    }

    /// Types so much that it takes many messages; waits when too many wait.
    pub async fn paste(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(CHUNK) {
            while self.outgoing.waiting() >= PASTED_MAX {
                self.next().await;
            }
            self.send(PayloadType::Output, chunk).await;
        }
    }

    pub async fn resize(&mut self, cols: u16, rows: u16) {
        self.send(PayloadType::Size, &Size { cols, rows }.encode()).await;
    }

    /// Acknowledges what was kept back, and from now on everything.
    pub async fn release_all(&mut self) {
        self.keep_from = None;
        for message in std::mem::take(&mut self.kept_back).into_values() {
            self.acknowledge(&message).await;
        }
    }

    async fn acknowledge(&mut self, message: &Message) {
        self.acknowledged.insert(message.sequence());
        self.put(Frame::Binary(Acknowledge::of(message).encode(1))).await;
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// The number that the next new output message will have.
    pub fn expected(&self) -> i64 {
        self.incoming.expected()
    }

    /// Reads until the output holds the text.
    pub async fn until(&mut self, text: &str) {
        let mut seen = 0;
        loop {
            let fresh = self.output.get(seen..).unwrap_or_default();
            if fresh.windows(text.len()).any(|window| window == text.as_bytes()) {
                return;
            }
            seen = self.output.len().saturating_sub(text.len());
            match self.next().await {
                Heard::Output | Heard::Acknowledge => {}
                other => panic!("{other:?} before {text:?}: {}", self.tail()),
            }
        }
    }

    /// Reads until the session is closed, then hangs up; what the user is told.
    pub async fn closed(&mut self) -> String {
        loop {
            match self.next().await {
                Heard::Closed(text) => {
                    self.socket = None;
                    return text;
                }
                Heard::Gone(code) => panic!("gone ({code:?}) before it was closed: {}", self.tail()),
                _ => {}
            }
        }
    }

    /// Reads until the connection is gone.
    pub async fn gone(&mut self) -> Option<u16> {
        loop {
            if let Heard::Gone(code) = self.next().await {
                return code;
            }
        }
    }

    /// Reads until every input message sent is acknowledged.
    pub async fn delivered(&mut self) {
        while self.outgoing.waiting() > 0 {
            let heard = self.next().await;
            assert!(matches!(heard, Heard::Output | Heard::Acknowledge), "{heard:?}");
        }
    }

    fn tail(&self) -> String {
        let from = self.output.len().saturating_sub(300);
        let (waiting, kept) = (self.outgoing.waiting(), self.kept_back.len());
        let text = String::from_utf8_lossy(&self.output[from..]);
        format!("{waiting} typed wait, {kept} kept back, next is {}; {text:?}", self.incoming.expected())
    }

    /// The next thing; output is acknowledged unless it is kept back.
    pub async fn next(&mut self) -> Heard {
        loop {
            let socket = self.socket.as_mut().unwrap();
            let due = self.outgoing.next_due().map(|due| (self.epoch + due).into());
            let heard = tokio::select! {
                heard = timeout(PATIENCE, socket.next()) => heard,
                () = resend_time(due) => {
                    while let Some(raw) = self.outgoing.due(self.epoch.elapsed()) {
                        self.put(Frame::Binary(raw)).await;
                    }
                    continue;
                }
            };
            let Ok(heard) = heard else { panic!("nothing comes: {}", self.tail()) };
            match heard {
                Some(Ok(Frame::Binary(raw))) => {
                    if let Some(heard) = self.take(Message::parse(raw).unwrap()).await {
                        return heard;
                    }
                }
                Some(Ok(Frame::Close(frame))) => return Heard::Gone(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Heard::Gone(None),
            }
        }
    }

    async fn take(&mut self, message: Message) -> Option<Heard> {
        assert!(message.digest_matches(), "the gateway passed a wrong digest on");
        match message.message_type() {
            MessageType::Acknowledge => {
                let sequence = Acknowledge::parse(message.payload()).unwrap().sequence;
                self.outgoing.acknowledged(sequence, self.epoch.elapsed());
                Some(Heard::Acknowledge)
            }
            MessageType::ChannelClosed => {
                Some(Heard::Closed(ChannelClosed::parse(message.payload()).unwrap().output))
            }
            MessageType::OutputStreamData => Some(self.take_output(message).await),
            other => panic!("a client never gets {other:?}"),
        }
    }

    async fn take_output(&mut self, message: Message) -> Heard {
        let sequence = message.sequence();
        *self.arrivals.entry(sequence).or_default() += 1;
        let spoken = message.payload_type() == PayloadType::Output;
        if self.unready > 0 && spoken && sequence == self.incoming.expected() {
            self.unready -= 1;
            return Heard::Output;
        }
        let mut delivered = Vec::new();
        let arrival = self.incoming.receive(message.clone(), &mut delivered);
        let silent = self.silent_on_repeats && matches!(arrival, Arrival::Duplicate);
        let wanted = arrival.wants_acknowledge() && !silent;
        let kept = self.keep.contains(&sequence) || self.keep_from.is_some_and(|from| sequence >= from);
        if kept {
            self.kept_back.insert(sequence, message);
        } else if wanted {
            self.acknowledge(&message).await;
        }
        for message in delivered {
            match message.payload_type() {
                PayloadType::Output => self.output.extend_from_slice(message.payload()),
                PayloadType::HandshakeRequest => {
                    self.requests.push(message.payload().to_vec());
                    let request = HandshakeRequest::parse(message.payload()).unwrap();
                    let answer = HandshakeResponse::answering(&request, "1.2.764.0");
                    self.send(PayloadType::HandshakeResponse, &answer.encode()).await;
                }
                other => self.others.push((other, message.payload().to_vec())),
            }
        }
        Heard::Output
    }
}

async fn resend_time(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// An input message that is not numbered yet.
pub fn draft(payload_type: PayloadType, payload: &[u8]) -> Draft<'_> {
    Draft {
        message_type: MessageType::InputStreamData,
        created_ms: 1,
        sequence: 0,
        flags: SYN,
        id: Uuid::new_v4(),
        payload_type,
        payload,
    }
}

/// Upgrades a connection to WebSocket; more headers as a test likes.
pub async fn upgrade(door: &Door, url: &str, headers: &[(String, String)]) -> Socket {
    let stream = door.connect().await;
    let mut request =
        tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(url).unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let upgraded = within("an upgrade", tokio_tungstenite::client_async(request, stream)).await;
    upgraded.unwrap_or_else(|error| panic!("{url} is not upgraded: {error}")).0
}

/// Opens a stream with any headers and opening text; what it is told.
pub async fn refusal(door: &Door, url: &str, headers: &[(String, String)], opening: &str) -> String {
    let mut socket = upgrade(door, url, headers).await;
    socket.send(Frame::text(opening)).await.unwrap();
    let mut terminal = Terminal::new("refused");
    terminal.socket = Some(socket);
    terminal.closed().await
}

/// The headers of an upgrade that somebody signed.
pub fn signed_upgrade(person: &Person, url: &str) -> Vec<(String, String)> {
    let path = url.split_once(&person.door.address.to_string()).unwrap().1;
    let now = time::OffsetDateTime::now_utc();
    Call::get(path).signed(&person.door, &person.keys(), "ssmmessages", now).headers
}
