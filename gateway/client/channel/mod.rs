//! The data channel from the engineer's side: it survives its connections.

mod conversation;
mod socket;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_channel::Size;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt, StreamExt};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message as Frame};

pub use conversation::{CLIENT_VERSION, Conversation, Event, Moment, PORT};
pub use socket::{Dialer, Socket};

use crate::client::{ClientError, Opened};

/// Between two pings, as spec'd for clients behind idle-timing balancers.
const PING_EVERY: Duration = Duration::from_secs(30);
/// A link that was silent for so long, pongs included, is broken.
const DEAD_AFTER: Duration = Duration::from_secs(45);
/// How long a lost session is tried to be taken up again.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5 * 60);
/// How long the first connection is tried; nobody waits for a shell longer.
const FIRST_GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// First pause between two tries; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A connection that held for so long was a good one: pauses begin anew.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// An agent that is there has said something by then (observed: 1 s).
const FIRST_ANSWER: Duration = Duration::from_secs(60);
/// Longest wait for the last frames to be written.
const FAREWELL: Duration = Duration::from_secs(1);
/// Frames that may wait for the socket before input is held back.
const TYPE_BELOW: usize = 64;
/// Frames that may wait for the socket before reading stops: acknowledges of
/// 300 bytes, so about a megabyte.
const READ_BELOW: usize = 4096;

/// What the person does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Keys, at most a kilobyte at a time.
    Input(Bytes),
    /// The terminal has a new size.
    Resize(Size),
}

/// How a channel came to its end.
#[derive(Debug)]
pub enum End {
    /// The far side closed it; what it said went out as [`Event::Closed`].
    Closed,
    /// ResumeSession says that the session is over.
    TimedOut,
    /// Nobody listens to the events any more.
    Left,
}

/// One session's data channel.
pub struct Channel<R> {
    conversation: Conversation,
    dialer: Dialer,
    resume: R,
    opened: Opened,
    began: Instant,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
}

/// Why one connection ended.
enum Break {
    End(End),
    Lost(String),
}

impl<R, F> Channel<R>
where
    R: Fn() -> F,
    F: Future<Output = Result<Option<Opened>, ClientError>>,
{
    /// A channel for a session just started; `resume` asks for a new token.
    pub fn new(
        opened: Opened,
        dialer: Dialer,
        resume: R,
        size: Size,
        (commands, events): (mpsc::Receiver<Command>, mpsc::Sender<Event>),
    ) -> Self {
        let conversation = Conversation::new(size);
        Self { conversation, dialer, resume, opened, began: Instant::now(), commands, events }
    }

    /// Carries the session to its end, over as many connections as it takes.
    pub async fn run(mut self) -> Result<End, ClientError> {
        let mut socket = self.first_connection().await?;
        self.began = Instant::now();
        let mut tries = Tries::new();
        loop {
            let connected = Instant::now();
            match self.converse(socket).await? {
                Break::End(end) => return Ok(end),
                Break::Lost(why) => tracing::debug!(why, "the connection was lost"),
            }
            if connected.elapsed() >= HEALTHY_AFTER {
                tries = Tries::new();
            }
            if self.events.send(Event::Lost).await.is_err() {
                return Ok(End::Left);
            }
            socket = match self.take_up(&mut tries).await? {
                Some(socket) => socket,
                None => return Ok(End::TimedOut),
            };
            let now = self.now();
            self.conversation.reconnected(now);
        }
    }

    async fn first_connection(&self) -> Result<Socket, ClientError> {
        let mut tries = Tries::new();
        loop {
            tries.wait().await;
            match self.dialer.dial(&self.opened).await {
                Err(error) if error.is_passing() && !tries.last_longer_than(FIRST_GIVE_UP_AFTER) => {
                    tracing::debug!(%error, "cannot connect yet");
                }
                other => return other,
            }
        }
    }

    /// ResumeSession and a new connection; `None` when the session is over.
    async fn take_up(&mut self, tries: &mut Tries) -> Result<Option<Socket>, ClientError> {
        loop {
            tries.wait().await;
            let error = match self.try_once().await {
                Err(error) => error,
                other => return other,
            };
            // A person can sign in again meanwhile; a refusal stays one.
            let may_pass = error.is_passing() || matches!(error, ClientError::Credentials(_));
            if !may_pass || tries.last_longer_than(GIVE_UP_AFTER) {
                return Err(error);
            }
            tracing::debug!(%error, "cannot connect yet");
        }
    }

    async fn try_once(&mut self) -> Result<Option<Socket>, ClientError> {
        let Some(fresh) = (self.resume)().await? else { return Ok(None) };
        self.opened.token = fresh.token;
        if !fresh.stream_url.is_empty() {
            self.opened.stream_url = fresh.stream_url;
        }
        self.dialer.dial(&self.opened).await.map(Some)
    }

    async fn converse(&mut self, socket: Socket) -> Result<Break, ClientError> {
        let mut link = Link::new(socket);
        loop {
            while let Some(raw) = self.conversation.next_message() {
                link.outbox.waiting.push_back(Frame::Binary(raw));
            }
            if let Some(event) = self.conversation.next_event() {
                match self.pass_on(event, &mut link).await {
                    Some(end) => return Ok(Break::End(end)),
                    None => continue,
                }
            }
            let may_type = self.conversation.may_type() && link.outbox.waiting.len() < TYPE_BELOW;
            let tick = self.conversation.next_tick().map(|since| self.began + since);
            let wake = tick.unwrap_or(link.next_tick()).min(link.next_tick());
            tokio::select! {
                sent = link.outbox.flush(), if link.outbox.is_busy() => {
                    if let Err(error) = sent {
                        return Ok(Break::Lost(error.to_string()));
                    }
                }
                frame = link.stream.next(), if link.outbox.waiting.len() < READ_BELOW => {
                    match frame {
                        Some(Ok(frame)) => self.take(frame, &mut link),
                        Some(Err(error)) => return Ok(Break::Lost(error.to_string())),
                        None => return Ok(Break::Lost("closed".to_owned())),
                    }
                }
                command = self.commands.recv(), if may_type => match command {
                    Some(command) => self.obey(&command),
                    None => return Ok(Break::End(End::Left)),
                },
                () = sleep_until(wake) => {
                    let now = self.now();
                    self.conversation.tick(now);
                    if let Some(lost) = link.tick() {
                        return Ok(lost);
                    }
                    if !self.conversation.was_heard() && now.since >= FIRST_ANSWER {
                        return Err(ClientError::Channel(
                            "the target did not answer within 60 s; try again, or look at its SSM agent".to_owned(),
                        ));
                    }
                }
            }
        }
    }

    /// Hands an event over; the socket goes on being written meanwhile.
    async fn pass_on(&mut self, event: Event, link: &mut Link) -> Option<End> {
        let is_last = matches!(event, Event::Closed(_));
        let permit = loop {
            tokio::select! {
                permit = self.events.reserve() => break permit,
                sent = link.outbox.flush(), if link.outbox.is_busy() => if sent.is_err() {
                    link.outbox.abandon();
                },
            }
        };
        let Ok(permit) = permit else { return Some(End::Left) };
        permit.send(event);
        // While nobody took events nothing was read: that is no silence.
        link.heard = Instant::now();
        if is_last {
            // Last acknowledges and a farewell; the far side may be gone already.
            link.outbox.waiting.push_back(Frame::Close(None));
            let _ = timeout(FAREWELL, link.outbox.flush()).await;
        }
        is_last.then_some(End::Closed)
    }

    fn take(&mut self, frame: Frame, link: &mut Link) {
        link.heard = Instant::now();
        if let Frame::Binary(raw) = frame {
            let now = self.now();
            self.conversation.receive(raw, now);
        }
    }

    fn obey(&mut self, command: &Command) {
        let now = self.now();
        match command {
            Command::Input(bytes) => self.conversation.type_input(bytes, now),
            Command::Resize(size) => self.conversation.resize(*size, now),
        }
    }

    fn now(&self) -> Moment {
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Moment { since: self.began.elapsed(), ms: u64::try_from(ms).unwrap_or(u64::MAX) }
    }
}

/// One connection.
struct Link {
    outbox: Outbox,
    stream: SplitStream<Socket>,
    next_ping: Instant,
    heard: Instant,
}

impl Link {
    fn new(socket: Socket) -> Self {
        let (sink, stream) = socket.split();
        let now = Instant::now();
        let outbox = Outbox { sink, waiting: VecDeque::new(), unflushed: false };
        Self { outbox, stream, next_ping: now + PING_EVERY, heard: now }
    }

    /// When [`Link::tick`] has something to do.
    fn next_tick(&self) -> Instant {
        self.next_ping.min(self.heard + DEAD_AFTER)
    }

    fn tick(&mut self) -> Option<Break> {
        let now = Instant::now();
        if now.duration_since(self.heard) >= DEAD_AFTER {
            return Some(Break::Lost("no pong".to_owned()));
        }
        if now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            self.outbox.waiting.push_back(Frame::Ping(Bytes::from_static(b"keepalive")));
        }
        None
    }
}

/// What waits to be written to a connection.
struct Outbox {
    sink: SplitSink<Socket, Frame>,
    waiting: VecDeque<Frame>,
    unflushed: bool,
}

impl Outbox {
    fn is_busy(&self) -> bool {
        self.unflushed || !self.waiting.is_empty()
    }

    /// Writes what waits; may be dropped half-way and called again.
    async fn flush(&mut self) -> Result<(), SocketError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Gives up on a broken connection; the next read finds it gone.
    fn abandon(&mut self) {
        self.waiting.clear();
        self.unflushed = false;
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        while !self.waiting.is_empty() {
            ready!(self.sink.poll_ready_unpin(cx))?;
            if let Some(frame) = self.waiting.pop_front() {
                self.unflushed = true;
                Pin::new(&mut self.sink).start_send(frame)?;
            }
        }
        ready!(self.sink.poll_flush_unpin(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }
}

/// Tries to reach the gateway, with growing pauses between them.
struct Tries {
    since: Instant,
    pause: Option<Duration>,
}

impl Tries {
    fn new() -> Self {
        Self { since: Instant::now(), pause: None }
    }

    /// Waits its turn: not at all the first time.
    async fn wait(&mut self) {
        let pause = self.pause.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX));
        if self.pause.replace(pause).is_some() {
            sleep(pause / 2 + jitter(pause / 2)).await;
        }
    }

    fn last_longer_than(&self, limit: Duration) -> bool {
        self.since.elapsed() >= limit
    }
}

fn jitter(up_to: Duration) -> Duration {
    let mut random = [0u8; 2];
    // Without randomness the pause is only less evenly spread.
    let _ = SystemRandom::new().fill(&mut random);
    up_to.mul_f64(f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests;
