//! One stream of a multiplexed session and the connection behind it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;

use super::Connection;

/// Bytes that all connections together may leave unread before the session
/// stops reading; what `xtaci/smux` allows too.
const UNREAD: usize = 4 << 20;
/// What a piece costs beside its bytes: headers and keeping it.
const PIECE: usize = 256;
/// Bytes read from a connection at once.
const READ: usize = 16 * 1024;
/// Pieces written to a connection at once: 64 KB.
const WRITE: usize = 64;
/// A connection that says nothing more is told what is still on its way;
/// smux cannot close one direction only, so silence ends it.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection says to the session.
pub(super) enum Up {
    /// It begins.
    Open(u32),
    /// It sent bytes.
    Data(u32, Bytes),
    /// It has ended.
    Close(u32),
}

/// Bytes for a connection, and their place in the session's allowance.
struct Piece {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// The streams that are open.
pub(super) struct Streams {
    open: Mutex<HashMap<u32, Inlet>>,
    unread: Arc<Semaphore>,
}

#[derive(Clone)]
struct Inlet {
    /// Bounded by the session's allowance, not by itself.
    pieces: mpsc::UnboundedSender<Piece>,
    given: Arc<AtomicU64>,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self { open: Mutex::default(), unread: Arc::new(Semaphore::new(UNREAD)) }
    }

    /// Gives bytes to a stream's connection; those of a closed one are lost.
    ///
    /// Waits while connections leave too much unread: one that is not read
    /// holds up all others then, as smux version 1 has no windows.
    pub(super) async fn give(&self, stream: u32, bytes: Bytes) {
        let Some(inlet) = self.lock().get(&stream).cloned() else { return };
        let cost = u32::try_from((bytes.len() + PIECE).min(UNREAD)).unwrap_or(u32::MAX);
        let room = tokio::select! {
            room = Arc::clone(&self.unread).acquire_many_owned(cost) => room,
            () = inlet.pieces.closed() => return,
        };
        if let Ok(_room) = room {
            inlet.given.fetch_add(1, Ordering::Relaxed);
            // A connection that ended just now needs them no more.
            let _ = inlet.pieces.send(Piece { bytes, _room });
        }
    }

    /// The far side has closed a stream: its connection gets the rest.
    pub(super) fn close(&self, stream: u32) {
        self.lock().remove(&stream);
    }

    /// Makes a stream of a connection; what it returns carries it.
    pub(super) fn open(
        self: &Arc<Self>,
        stream: u32,
        connection: Connection,
        outbox: mpsc::Sender<Up>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (pieces, inbox) = mpsc::unbounded_channel();
        let given = Arc::new(AtomicU64::new(0));
        self.lock().insert(stream, Inlet { pieces, given: Arc::clone(&given) });
        let streams = Arc::clone(self);
        async move {
            carry(stream, connection, (inbox, given), &outbox).await;
            streams.close(stream);
            // Without a session nobody needs to know.
            let _ = outbox.send(Up::Close(stream)).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Inlet>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries both directions until the connection has ended.
async fn carry(
    stream: u32,
    connection: Connection,
    (inbox, given): (mpsc::UnboundedReceiver<Piece>, Arc<AtomicU64>),
    outbox: &mpsc::Sender<Up>,
) {
    let written = AtomicU64::new(0);
    let mut writing = std::pin::pin!(write(inbox, connection.writer, &written));
    let ended = tokio::select! {
        () = &mut writing => return,
        ended = read(stream, connection.reader, outbox) => ended,
    };
    let progress = || (given.load(Ordering::Relaxed), written.load(Ordering::Relaxed));
    let mut before = progress();
    while ended.is_ok() {
        tokio::select! {
            () = &mut writing => return,
            () = sleep(LINGER) => {}
        }
        let now = progress();
        // A connection that is slow to read is not one that is finished.
        if now == before && now.0 == now.1 {
            return;
        }
        before = now;
    }
}

async fn read(
    stream: u32,
    mut from: impl AsyncRead + Unpin,
    outbox: &mpsc::Sender<Up>,
) -> std::io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ);
    while from.read_buf(&mut buffer).await? > 0 {
        if outbox.send(Up::Data(stream, buffer.split().freeze())).await.is_err() {
            break;
        }
        buffer.reserve(READ);
    }
    Ok(())
}

/// Writes what comes; ends with the stream, or with the connection.
async fn write(
    mut inbox: mpsc::UnboundedReceiver<Piece>,
    mut to: impl AsyncWrite + Unpin,
    written: &AtomicU64,
) {
    let (mut pieces, mut bytes) = (Vec::with_capacity(WRITE), BytesMut::new());
    loop {
        let count = inbox.recv_many(&mut pieces, WRITE).await;
        if count == 0 {
            // The far side has closed: so does this one, both ways.
            let _ = to.shutdown().await;
            return;
        }
        for piece in &pieces {
            bytes.extend_from_slice(&piece.bytes);
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
        // Only now there is room for more.
        pieces.clear();
        written.fetch_add(count as u64, Ordering::Relaxed);
    }
}
