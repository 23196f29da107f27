//! How do bytes cross the network in few system calls?
//!
//! TLS reads four kilobytes at a time and writes each record by itself. Under
//! load that is a system call for every few messages, so what one read can
//! bring is fetched at once and what leaves is collected until the flush. A
//! quiet socket keeps no memory: it borrows buffers of the thread.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread::LocalKey;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Bytes fetched by one read: four TLS records of full size.
const READ: usize = 64 * 1024;
/// Bytes collected before they are written without waiting for the flush.
const WRITE: usize = 32 * 1024;
/// Buffers of either kind that a thread keeps for its sockets.
const SPARE_MAX: usize = 16;

/// Read and write buffer of a WebSocket, bytes; each holds both for its life.
///
/// The library zero-fills its read buffer on every read, so 128 KiB (its
/// default) costs 14 µs a message and 250 KB a session for nothing.
const FRAME_BUFFER: usize = 4 * 1024;
/// Largest WebSocket message taken, bytes; peers send 1.2 KB.
pub const MESSAGE_MAX: usize = 256 * 1024;

/// The settings of every WebSocket that carries a data channel.
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(FRAME_BUFFER)
        .write_buffer_size(FRAME_BUFFER)
        .max_write_buffer_size(MESSAGE_MAX * 2)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX))
}

thread_local! {
    /// Where reads go; each is as long as a read.
    static READING: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// Where writes are collected; all are empty.
    static WRITING: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A TCP connection under TLS.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    /// Bytes that were read and not asked for yet, from `taken` to `filled`;
    /// no memory if there are none.
    fetched: Vec<u8>,
    taken: usize,
    filled: usize,
    /// Bytes that wait for the flush, from `written` on.
    leaving: Vec<u8>,
    written: usize,
}

impl Socket {
    /// Takes a connection over; small messages leave at once.
    pub fn new(tcp: TcpStream) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        Ok(Self { tcp, fetched: Vec::new(), taken: 0, filled: 0, leaving: Vec::new(), written: 0 })
    }

    /// The connection itself.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Gives what was fetched before; false if there is nothing.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = self.fetched.get(self.taken..self.filled).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        let part = rest.get(..buf.remaining()).unwrap_or(rest);
        buf.put_slice(part);
        self.taken += part.len();
        if self.taken == self.filled {
            put_back(&READING, mem::take(&mut self.fetched));
        }
        true
    }

    /// Fetches what one read brings.
    fn poll_fetch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = borrow(&READING).unwrap_or_else(|| vec![0; READ]);
        let mut fetched = ReadBuf::new(&mut space);
        let read = Pin::new(&mut self.tcp).poll_read(cx, &mut fetched);
        (self.taken, self.filled) = (0, fetched.filled().len());
        if self.filled > 0 {
            self.fetched = space;
        } else {
            put_back(&READING, space);
        }
        read
    }

    /// Where to collect what leaves.
    fn leaving(&mut self) -> &mut Vec<u8> {
        if self.leaving.capacity() == 0 {
            self.leaving = borrow(&WRITING).unwrap_or_else(|| Vec::with_capacity(WRITE));
        }
        &mut self.leaving
    }

    /// Writes everything that was collected.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.leaving.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.written = 0;
        self.leaving.clear();
        // One that had to grow is the thread's no more.
        if self.leaving.capacity() == WRITE {
            put_back(&WRITING, mem::take(&mut self.leaving));
        } else {
            self.leaving = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room for so many bytes; one write may always be collected.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<()>> {
        let fits = self.leaving.is_empty() || self.leaving.len() + bytes <= WRITE;
        if fits { Poll::Ready(Ok(())) } else { self.poll_leave(cx) }
    }
}

/// A buffer of the thread, if one is spare.
fn borrow(spare: &'static LocalKey<RefCell<Vec<Vec<u8>>>>) -> Option<Vec<u8>> {
    spare.with_borrow_mut(Vec::pop)
}

/// Gives a buffer to the thread, unless it has enough of them.
fn put_back(spare: &'static LocalKey<RefCell<Vec<Vec<u8>>>>, buffer: Vec<u8>) {
    spare.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.give(buf) {
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= READ {
            return Pin::new(&mut this.tcp).poll_read(cx, buf);
        }
        ready!(this.poll_fetch(cx))?;
        this.give(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_room(cx, buf.len()))?;
        this.leaving().extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        ready!(this.poll_room(cx, bytes))?;
        let leaving = this.leaving();
        bufs.iter().for_each(|buf| leaving.extend_from_slice(buf));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_leave(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_leave(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Socket::new(near.unwrap()).unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_was_fetched_is_given_in_order_whatever_is_asked_for() {
        let (mut socket, mut peer) = pair().await;
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move { peer.write_all(&sent).await.map(|()| drop(peer)) });
        let mut heard = Vec::new();
        for size in [1, 7, 4096, 100_000].into_iter().cycle() {
            let mut part = vec![0; size];
            match socket.read(&mut part).await.unwrap() {
                0 => break,
                read => heard.extend_from_slice(&part[..read]),
            }
        }
        writing.await.unwrap().unwrap();
        assert!(heard == expected);
        assert_eq!(socket.fetched.capacity(), 0, "a quiet socket keeps what it read");
    }

    #[tokio::test]
    async fn what_is_written_leaves_with_the_flush_and_not_before() {
        let (mut socket, mut peer) = pair().await;
        socket.write_all(b"two ").await.unwrap();
        socket.write_all(b"parts").await.unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), peer.read_u8()).await;
        assert!(early.is_err(), "it left before the flush");
        socket.flush().await.unwrap();
        let mut heard = [0; 9];
        peer.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"two parts");
    }

    #[tokio::test]
    async fn much_leaves_without_a_flush_and_memory_goes_back() {
        let (mut socket, mut peer) = pair().await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n >> 4) as u8).collect();
        let expected = sent.clone();
        let reading = tokio::spawn(async move {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).await.map(|_| heard)
        });
        for part in sent.chunks(1111) {
            socket.write_all(part).await.unwrap();
            assert!(socket.leaving.len() <= WRITE);
        }
        socket.shutdown().await.unwrap();
        assert!(reading.await.unwrap().unwrap() == expected);
        assert_eq!(socket.leaving.capacity(), 0, "a quiet socket keeps what it wrote");
    }
}
