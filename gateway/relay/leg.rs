//! One WebSocket leg: what it heard, what it may be given, is it alive.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Pings that may go unanswered before a leg counts as dead.
const SILENT_PINGS: u32 = 3;

/// What came in on a leg.
pub(super) enum Heard {
    /// One binary message.
    Binary(Bytes),
    /// A text message, which has no place after the opening one.
    Text,
    /// The peer closed, or the connection broke.
    Gone,
}

/// One WebSocket leg of a session.
pub(super) struct Leg<S> {
    socket: WebSocketStream<S>,
    unflushed: bool,
    heard_at: Instant,
    pinged_at: Instant,
    /// When the last ping was sent that was answered.
    alive_at: Option<Instant>,
    ponged: bool,
    /// Messages on this leg that were not a data-channel message.
    pub(super) malformed: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Leg<S> {
    pub(super) fn new(socket: WebSocketStream<S>, now: Instant) -> Self {
        Self {
            socket,
            unflushed: false,
            heard_at: now,
            pinged_at: now,
            alive_at: None,
            ponged: true,
            malformed: 0,
        }
    }

    /// The next message; pings are answered and passed over.
    pub(super) fn poll_heard(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Heard> {
        loop {
            let frame = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(_) => return Poll::Ready(Heard::Gone),
            };
            self.heard_at = now;
            match frame {
                // It may be kept for long. As a part of what was read it would keep all of that, and
                // the next read would need new memory.
                Frame::Binary(bytes) => return Poll::Ready(Heard::Binary(Bytes::copy_from_slice(&bytes))),
                Frame::Text(_) => return Poll::Ready(Heard::Text),
                Frame::Close(_) => return Poll::Ready(Heard::Gone),
                // There is hardly ever more than one ping on its way.
                Frame::Pong(_) => (self.alive_at, self.ponged) = (Some(self.pinged_at), true),
                // The library has queued the pong; the next flush sends it.
                Frame::Ping(_) | Frame::Frame(_) => self.unflushed = true,
            }
        }
    }

    /// The peer is not listened to now, so its silence means nothing.
    pub(super) fn not_read(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Whether the leg takes another message now; wakes when it does.
    pub(super) fn has_room(&mut self, cx: &mut Context<'_>) -> bool {
        matches!(Pin::new(&mut self.socket).poll_ready(cx), Poll::Ready(Ok(())))
    }

    /// Queues one message; it leaves with the next flush.
    pub(super) fn queue(&mut self, message: Bytes) {
        self.unflushed = true;
        // A failed write shows as a failed read right after; one path is enough.
        let _ = Pin::new(&mut self.socket).start_send(Frame::Binary(message));
    }

    /// Sends what is queued; true once everything has left.
    pub(super) fn poll_flushed(&mut self, cx: &mut Context<'_>) -> bool {
        if self.unflushed && Pin::new(&mut self.socket).poll_flush(cx).is_ready() {
            self.unflushed = false;
        }
        !self.unflushed
    }

    /// Pings when due; false when the peer has been silent too long.
    pub(super) fn keep_alive(&mut self, every: Duration, now: Instant) -> bool {
        if now.duration_since(self.heard_at) > every * SILENT_PINGS {
            return false;
        }
        if now.duration_since(self.pinged_at) >= every {
            self.ping(now);
        }
        true
    }

    /// When the peer was surely there and read what was sent before.
    pub(super) fn alive_at(&self) -> Option<Instant> {
        self.alive_at
    }

    /// Asks the peer whether it is there, unless it has been asked.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.ponged {
            self.ping(now);
        }
    }

    fn ping(&mut self, now: Instant) {
        (self.pinged_at, self.ponged, self.unflushed) = (now, false, true);
        let _ = Pin::new(&mut self.socket).start_send(Frame::Ping(Bytes::from_static(b"keepalive")));
    }

    /// When `keep_alive` wants to be called again.
    pub(super) fn ping_due(&self, every: Duration) -> Instant {
        self.pinged_at + every
    }

    /// Starts a polite close; a broken peer may miss it.
    pub(super) fn close(&mut self, policy_violation: bool) {
        let code = if policy_violation { CloseCode::Policy } else { CloseCode::Normal };
        self.unflushed = true;
        let frame = CloseFrame { code, reason: "".into() };
        let _ = Pin::new(&mut self.socket).start_send(Frame::Close(Some(frame)));
    }
}
