//! One connection of a data channel, and the tries to get one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, Sink, SinkExt, StreamExt};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message as Frame};

use super::{Break, End, Socket};

/// Between two pings, as spec'd for clients behind idle-timing balancers.
const PING_EVERY: Duration = Duration::from_secs(30);
/// A link that was silent for so long, pongs included, is broken.
const DEAD_AFTER: Duration = Duration::from_secs(45);
/// First pause between two tries; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the last frames to be written.
const FAREWELL: Duration = Duration::from_secs(1);
/// Frames taken from a connection before anything else has its turn.
const TURN: usize = 64;
/// Time to read acknowledges in before anything is taken for lost.
const UNREAD_GRACE: Duration = Duration::from_millis(500);

/// One connection.
pub(super) struct Link {
    pub(super) outbox: Outbox,
    pub(super) stream: SplitStream<Socket>,
    next_ping: Instant,
    heard: Instant,
    /// Nothing is sent again before: acknowledges may lie unread till then.
    pub(super) repeats_from: Instant,
    /// The connection is broken; said once all that came is handed over.
    pub(super) lost: Option<String>,
}

impl Link {
    pub(super) fn new(socket: Socket) -> Self {
        let (sink, stream) = socket.split();
        let now = Instant::now();
        let outbox = Outbox { sink, waiting: VecDeque::new(), unflushed: false };
        Self { outbox, stream, next_ping: now + PING_EVERY, heard: now, repeats_from: now, lost: None }
    }

    /// Takes what has come, at most a turn's worth, `first` among it.
    pub(super) fn take(&mut self, first: Option<Result<Frame, SocketError>>, mut each: impl FnMut(Bytes)) {
        self.heard = Instant::now();
        let mut next = first;
        for turn in 1..=TURN {
            match next {
                Some(Ok(Frame::Binary(raw))) => each(raw),
                Some(Ok(_)) => {}
                Some(Err(error)) => return self.lost = Some(error.to_string()),
                None => return self.lost = Some("closed".to_owned()),
            }
            match (turn < TURN).then(|| self.stream.next().now_or_never()).flatten() {
                Some(another) => next = another,
                None => return,
            }
        }
    }

    /// Nobody reads for now: the far side's silence means nothing.
    pub(super) fn not_read(&mut self) {
        self.heard = Instant::now();
        self.repeats_from = self.heard + UNREAD_GRACE;
    }

    /// Last acknowledges and a close; the far side may be gone already.
    pub(super) async fn farewell(&mut self) -> Break {
        self.outbox.waiting.push_back(Frame::Close(None));
        let _ = timeout(FAREWELL, self.outbox.flush()).await;
        Break::End(End::Closed)
    }

    /// When [`Link::tick`] has something to do.
    pub(super) fn next_tick(&self) -> Instant {
        self.next_ping.min(self.heard + DEAD_AFTER)
    }

    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.heard) >= DEAD_AFTER {
            self.lost = Some("no pong".to_owned());
        }
        if now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            self.outbox.waiting.push_back(Frame::Ping(Bytes::from_static(b"keepalive")));
        }
    }
}

/// What waits to be written to a connection.
pub(super) struct Outbox {
    sink: SplitSink<Socket, Frame>,
    pub(super) waiting: VecDeque<Frame>,
    unflushed: bool,
}

impl Outbox {
    pub(super) fn is_busy(&self) -> bool {
        self.unflushed || !self.waiting.is_empty()
    }

    /// Writes what waits; may be dropped half-way and called again.
    pub(super) async fn flush(&mut self) -> Result<(), SocketError> {
        poll_fn(|cx| self.poll_flush(cx)).await
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
pub(super) struct Tries {
    since: Instant,
    pause: Option<Duration>,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), pause: None }
    }

    /// Waits its turn: not at all the first time.
    pub(super) async fn wait(&mut self) {
        let pause = self.pause.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX));
        if self.pause.replace(pause).is_some() {
            sleep(pause / 2 + jitter(pause / 2)).await;
        }
    }

    pub(super) fn last_longer_than(&self, limit: Duration) -> bool {
        self.since.elapsed() >= limit
    }
}

fn jitter(up_to: Duration) -> Duration {
    let mut random = [0u8; 2];
    // Without randomness the pause is only less evenly spread.
    let _ = SystemRandom::new().fill(&mut random);
    up_to.mul_f64(f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX))
}
