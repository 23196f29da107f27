//! The data channel from the engineer's side: it survives its connections.

mod conversation;
mod line;
mod link;
mod socket;
mod window;

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_channel::message::CHUNK;
use data_channel::{Flag, Size};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message as Frame;

pub use conversation::{CLIENT_VERSION, Carries, Conversation, Event, Moment, PORT_SESSION};
pub use line::Line;
use link::{Link, Tries};
pub use socket::{Dialer, Socket};

use crate::client::{ClientError, Opened};

/// How long a lost session is tried to be taken up again.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5 * 60);
/// How long the first connection is tried; nobody waits for a shell longer.
const FIRST_GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// A connection that held for so long was a good one: pauses begin anew.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// An agent that is there has said something by then (observed: 1 s).
const FIRST_ANSWER: Duration = Duration::from_secs(60);
/// Frames that may wait for the socket before input is held back.
const TYPE_BELOW: usize = 64;
/// Frames that may wait for the socket before reading stops: acknowledges of
/// 300 bytes, so about a megabyte.
const READ_BELOW: usize = 4096;

/// What the person does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Keys, or bytes of a port.
    Input(Bytes),
    /// The terminal has a new size.
    Resize(Size),
    /// A flag of a port session.
    Flag(Flag),
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
    /// Taken from the commands, not yet sent.
    typing: Bytes,
    events: mpsc::Sender<Event>,
}

/// How far the handing over of events came.
enum Handed {
    All,
    /// Some wait for room.
    Waits,
    /// The session is over.
    Last,
    /// Nobody takes them any more.
    Left,
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
        carries: Carries,
        (commands, events): (mpsc::Receiver<Command>, mpsc::Sender<Event>),
    ) -> Self {
        let conversation = Conversation::new(carries);
        let (began, typing) = (Instant::now(), Bytes::new());
        Self { conversation, dialer, resume, opened, began, commands, typing, events }
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
            self.type_on(&mut link);
            let blocked = match self.hand_over() {
                Handed::All => false,
                Handed::Waits => true,
                Handed::Last => return Ok(link.farewell().await),
                Handed::Left => return Ok(Break::End(End::Left)),
            };
            if let Some(why) = link.lost.take_if(|_| !blocked) {
                return Ok(Break::Lost(why));
            }
            let may_read = !blocked && link.outbox.waiting.len() < READ_BELOW;
            let may_type = self.typing.is_empty() && self.may_type(&link);
            let wake = self.next_wake(&link, blocked);
            tokio::select! {
                sent = link.outbox.flush(), if link.outbox.is_busy() && link.lost.is_none() => {
                    link.lost = sent.err().map(|error| error.to_string());
                }
                frame = link.stream.next(), if may_read => {
                    let now = self.now();
                    link.take(frame, |raw| self.conversation.receive(raw, now));
                }
                () = has_room(&self.events), if blocked => link.not_read(),
                command = self.commands.recv(), if may_type => match command {
                    Some(command) => self.obey(command),
                    None => return Ok(Break::End(End::Left)),
                },
                () = sleep_until(wake) => self.tick(&mut link, blocked)?,
            }
        }
    }

    /// Moves what was typed, as far as it may go, and all that it causes.
    fn type_on(&mut self, link: &mut Link) {
        loop {
            while let Some(raw) = self.conversation.next_message() {
                link.outbox.waiting.push_back(Frame::Binary(raw));
            }
            if self.typing.is_empty() || !self.may_type(link) {
                return;
            }
            let chunk = self.typing.split_to(self.typing.len().min(CHUNK));
            let now = self.now();
            self.conversation.type_input(&chunk, now);
        }
    }

    fn may_type(&self, link: &Link) -> bool {
        self.conversation.may_type() && link.outbox.waiting.len() < TYPE_BELOW
    }

    /// Hands on what the far side said, as far as there is room.
    fn hand_over(&mut self) -> Handed {
        while self.conversation.has_event() {
            let room = match self.events.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(())) => return Handed::Waits,
                Err(TrySendError::Closed(())) => return Handed::Left,
            };
            if let Some(event) = self.conversation.next_event() {
                let is_last = matches!(event, Event::Closed(_));
                room.send(event);
                if is_last {
                    return Handed::Last;
                }
            }
        }
        Handed::All
    }

    fn next_wake(&self, link: &Link, blocked: bool) -> Instant {
        let due = self.conversation.next_tick().filter(|_| !blocked);
        let due = due.map(|since| (self.began + since).max(link.repeats_from));
        due.unwrap_or(link.next_tick()).min(link.next_tick())
    }

    fn tick(&mut self, link: &mut Link, blocked: bool) -> Result<(), ClientError> {
        if blocked {
            link.not_read();
        } else if Instant::now() >= link.repeats_from {
            let now = self.now();
            self.conversation.tick(now);
        }
        link.tick();
        if !self.conversation.was_heard() && self.began.elapsed() >= FIRST_ANSWER {
            return Err(ClientError::Channel(
                "the target did not answer within 60 s; try again, or look at its SSM agent".to_owned(),
            ));
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Input(bytes) => self.typing = bytes,
            Command::Resize(size) => self.conversation.resize(size, now),
            Command::Flag(flag) => self.conversation.raise(flag, now),
        }
    }

    fn now(&self) -> Moment {
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Moment { since: self.began.elapsed(), ms: u64::try_from(ms).unwrap_or(u64::MAX) }
    }
}

/// Waits until another event can be given, or nobody takes them.
async fn has_room(events: &mpsc::Sender<Event>) {
    let _ = events.reserve().await;
}

#[cfg(test)]
mod tests;
