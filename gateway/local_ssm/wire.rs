//! One client's WebSocket, read and written by one task.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Read and write buffer of a connection, bytes: hundreds are open at once.
const BUFFER: usize = 8 << 10;
/// Longest message of a client, bytes: real ones are under 1.2 KB, but a
/// handshake answer with a KMS blob is longer.
const MESSAGE_MAX: usize = 64 << 10;
/// Messages that may wait to be written before the agent stops reading.
const QUEUE_MAX: usize = 64;
/// Messages that may wait with the acknowledges of a client that writes
/// and never reads; then its input is not taken.
const STUFFED: usize = 1_024;
/// How long a polite close may take: a round trip, with room.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// What came from a client.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message of the data channel.
    Binary(Bytes),
    /// A text; only the first one means something.
    Text(String),
    /// A ping or a pong: the client is there.
    Alive,
    /// Nothing came, but there is room to send again.
    Room,
    /// The connection is gone.
    Gone,
}

/// A WebSocket and what still has to be written to it.
pub(super) struct Wire {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    queue: VecDeque<Message>,
    unflushed: bool,
}

impl Wire {
    /// The server's side of an upgraded connection.
    pub(super) async fn new(upgraded: Upgraded) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_write_buffer_size(BUFFER + 2 * MESSAGE_MAX)
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        Self { socket, queue: VecDeque::new(), unflushed: false }
    }

    /// Writes a message when there is room, after those before it.
    pub(super) fn send(&mut self, message: Bytes) {
        self.queue.push_back(Message::Binary(message));
    }

    /// Asks the client whether it is there.
    pub(super) fn ping(&mut self) {
        self.queue.push_back(Message::Ping(Bytes::from_static(b"keepalive")));
    }

    /// Whether more may be sent without a queue growing.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_MAX
    }

    /// Whether not even acknowledges should be added.
    pub(super) fn is_stuffed(&self) -> bool {
        self.queue.len() >= STUFFED
    }

    /// Writes what can be written now, then waits for what comes next.
    ///
    /// May be dropped and called again: nothing is lost.
    pub(super) async fn hear(&mut self) -> Heard {
        poll_fn(|cx| {
            let was_full = !self.has_room();
            if self.poll_write(cx).is_err() {
                return Poll::Ready(Heard::Gone);
            }
            if was_full && self.has_room() {
                return Poll::Ready(Heard::Room);
            }
            self.poll_read(cx)
        })
        .await
    }

    /// Starts what can be written now; `hear` finds out if it failed.
    pub(super) async fn start_writing(&mut self) {
        poll_fn(|cx| {
            let _ = self.poll_write(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Closes politely: what waits is written, then the peer may go first.
    ///
    /// A connection closed with unread bytes is reset, and the reset can
    /// overtake the last message; so the peer's bytes are read to their end.
    pub(super) async fn close(mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        self.queue.push_back(Message::Close(Some(frame)));
        let farewell = async { while !matches!(self.hear().await, Heard::Gone) {} };
        // A peer that never answers is left; nothing waits for it.
        let _ = timeout(CLOSE_WAIT, farewell).await;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        while !self.queue.is_empty() {
            match self.socket.poll_ready_unpin(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => break,
            }
            if let Some(message) = self.queue.pop_front() {
                self.socket.start_send_unpin(message)?;
                self.unflushed = true;
            }
        }
        if self.unflushed
            && let Poll::Ready(flushed) = self.socket.poll_flush_unpin(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        self.socket.poll_next_unpin(cx).map(|next| match next {
            Some(Ok(Message::Binary(bytes))) => Heard::Binary(bytes),
            Some(Ok(Message::Text(text))) => Heard::Text(text.as_str().to_owned()),
            Some(Ok(_)) => Heard::Alive,
            Some(Err(_)) | None => Heard::Gone,
        })
    }
}
