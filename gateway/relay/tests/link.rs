//! Connections of a simulation: cut at any byte, and message by message.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use crate::socket::websocket_config;

/// What one direction of a connection holds, bytes.
const PIPE: usize = 64 * 1024;

/// How many bytes pass each end of a connection before it is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lives {
    pub(super) near_reads: usize,
    pub(super) near_writes: usize,
    pub(super) far_reads: usize,
}

impl Lives {
    pub(super) const FOREVER: Self =
        Self { near_reads: usize::MAX, near_writes: usize::MAX, far_reads: usize::MAX };
}

/// One end of a connection.
pub(super) struct Link {
    pipe: Option<DuplexStream>,
    reads: usize,
    writes: usize,
    reader: Option<Waker>,
}

impl Link {
    fn new(pipe: DuplexStream, reads: usize, writes: usize) -> Self {
        Self { pipe: Some(pipe), reads, writes, reader: None }
    }

    fn cut(&mut self) {
        self.pipe = None;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reader = Some(cx.waker().clone());
        let most = self.reads.min(into.remaining());
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(())) };
        let mut part = ReadBuf::new(into.initialize_unfilled_to(most));
        let read = Pin::new(pipe).poll_read(cx, &mut part);
        let count = part.filled().len();
        into.advance(count);
        self.reads -= count;
        if self.reads == 0 {
            self.cut();
        }
        read
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let most = self.writes.min(bytes.len());
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let wrote = Pin::new(pipe).poll_write(cx, &bytes[..most]);
        if let Poll::Ready(Ok(count)) = wrote {
            self.writes -= count;
            if self.writes == 0 {
                self.cut();
            }
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.as_mut().map_or(Poll::Ready(Ok(())), |pipe| Pin::new(pipe).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut();
        Poll::Ready(Ok(()))
    }
}

/// The relay's leg and the far end of it.
pub(super) async fn connect(lives: Lives, role: Role) -> (WebSocketStream<Link>, Far) {
    let (near, far) = tokio::io::duplex(PIPE);
    let near = Link::new(near, lives.near_reads, lives.near_writes);
    let far = Link::new(far, lives.far_reads, usize::MAX);
    let other = if role == Role::Server { Role::Client } else { Role::Server };
    let near = WebSocketStream::from_raw_socket(near, role, Some(websocket_config())).await;
    let far = WebSocketStream::from_raw_socket(far, other, Some(websocket_config())).await;
    (near, Far::new(far))
}

/// The far end of a leg, its two directions independent of each other.
pub(super) struct Far {
    out: UnboundedSender<Frame>,
    heard: UnboundedReceiver<Bytes>,
    mute: watch::Sender<bool>,
    deaf: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

impl Far {
    fn new(socket: WebSocketStream<Link>) -> Self {
        let (mut sink, mut stream) = socket.split();
        let (out, mut to_send) = unbounded_channel();
        let (to_hear, heard) = unbounded_channel();
        let (mute, mut silence) = watch::channel(false);
        let (deaf, mut deafness) = watch::channel(false);
        let writer = tokio::spawn(async move {
            let write = async {
                while let Some(frame) = to_send.recv().await {
                    if sink.send(frame).await.is_err() {
                        break;
                    }
                }
            };
            until(&mut silence, write).await;
        });
        let reader = tokio::spawn(async move {
            let read = async {
                while let Some(Ok(frame)) = stream.next().await {
                    match frame {
                        Frame::Binary(raw) => drop(to_hear.send(raw)),
                        Frame::Close(_) => break,
                        _ => {}
                    }
                }
            };
            until(&mut deafness, read).await;
            drop(to_hear);
        });
        Self { out, heard, mute, deaf, tasks: [writer, reader] }
    }

    /// Sends a message; nobody is told if the connection is gone.
    pub(super) fn put(&self, raw: Bytes) {
        let _ = self.out.send(Frame::Binary(raw));
    }

    /// Closes as the service does about once an hour.
    pub(super) fn bye(&self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "Bye".into() };
        let _ = self.out.send(Frame::Close(Some(frame)));
    }

    /// The next message; `None` once the connection is gone.
    pub(super) async fn hear(&mut self) -> Option<Bytes> {
        self.heard.recv().await
    }

    /// Stops reading, writing and answering, without hanging up.
    pub(super) fn freeze(&self) {
        self.mute.send_replace(true);
        self.stop_reading();
    }

    /// Goes on writing, and reads nothing more.
    pub(super) fn stop_reading(&self) {
        self.deaf.send_replace(true);
    }
}

/// Lets the work go on until it is frozen, and then never end.
async fn until(frozen: &mut watch::Receiver<bool>, work: impl Future<Output = ()>) {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        _ = frozen.changed() => std::future::pending().await,
        () = &mut work => {}
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
