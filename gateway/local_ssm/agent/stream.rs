//! One smux stream of a port session and its TCP connection.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::destination::Dial;

/// Most bytes of one read; it goes out in payloads of 1024.
const READ: usize = 16 << 10;
/// Most room kept for the next bytes once none wait.
const KEPT: usize = 64 << 10;

/// A connection, or one on its way, and the bytes for it.
pub(super) struct Stream {
    connection: Connection,
    waiting: BytesMut,
    finishing: bool,
}

enum Connection {
    Dialling(Dial),
    Open(TcpStream),
}

/// What became of a stream.
pub(super) enum Step {
    /// The connection could not be made.
    Refused,
    /// The target sent bytes.
    Read(Vec<u8>),
    /// The connection is over, whoever closed it.
    Ended,
}

impl Stream {
    /// A stream whose connection is being dialled.
    pub(super) fn new(dial: Dial) -> Self {
        Self { connection: Connection::Dialling(dial), waiting: BytesMut::new(), finishing: false }
    }

    /// How many bytes wait for the connection.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes bytes for the connection.
    pub(super) fn take(&mut self, data: &[u8]) {
        if !self.finishing {
            self.waiting.extend_from_slice(data);
        }
    }

    /// Ends the connection once what waits is written.
    ///
    /// There is no half-close: what the target still says is not read.
    pub(super) fn finish(&mut self) {
        self.finishing = true;
    }

    /// Dials, writes, reads. May be dropped and called again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wants_output: bool) -> Poll<Step> {
        if let Connection::Dialling(dial) = &mut self.connection {
            match ready!(dial.as_mut().poll(cx)) {
                Ok(connection) => self.connection = Connection::Open(connection),
                Err(_) => return Poll::Ready(Step::Refused),
            }
        }
        let Connection::Open(connection) = &mut self.connection else { return Poll::Pending };
        while !self.waiting.is_empty() {
            match Pin::new(&mut *connection).poll_write(cx, &self.waiting) {
                Poll::Ready(Ok(written)) => self.waiting.advance(written),
                Poll::Ready(Err(_)) => return Poll::Ready(Step::Ended),
                Poll::Pending => break,
            }
        }
        if self.waiting.is_empty() {
            if self.finishing {
                return Poll::Ready(Step::Ended);
            }
            if self.waiting.capacity() > KEPT {
                self.waiting = BytesMut::new();
            }
        }
        if !wants_output {
            return Poll::Pending;
        }
        let mut room = [const { MaybeUninit::uninit() }; READ];
        let mut into = ReadBuf::uninit(&mut room);
        let read = ready!(Pin::new(connection).poll_read(cx, &mut into));
        let some = read.is_ok() && !into.filled().is_empty();
        Poll::Ready(if some { Step::Read(into.filled().to_vec()) } else { Step::Ended })
    }
}
