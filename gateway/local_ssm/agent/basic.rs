//! A port session in basic mode: one connection, its bytes as they are.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use data_channel::{Flag, PayloadType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::destination::{Destination, Dial};
use super::endpoint::Happened;
use crate::local_ssm::sessions::Status;

/// Most bytes of one read; it goes out in payloads of 1024.
const READ: usize = 16 << 10;
/// Most bytes that wait for the connection: then input is not acknowledged.
const WAITING_MAX: usize = 1 << 20;
/// What a waiting message costs beside its payload: header and handle.
const MESSAGE_COST: usize = 256;

/// The one connection and what waits for it.
pub(super) struct Basic {
    destination: Destination,
    /// Whether a closed connection is dialled again; SSH ends instead.
    forwards: bool,
    connection: Connection,
    waiting: VecDeque<Waiting>,
    cost: usize,
}

enum Connection {
    Open(TcpStream),
    /// Closed; dialled again when the next byte for it comes.
    Closed,
    Dialling(Dial),
}

enum Waiting {
    Bytes(Bytes),
    Flag(Flag),
}

impl Basic {
    /// Around the connection that was dialled first.
    pub(super) fn new(destination: Destination, forwards: bool, connection: TcpStream) -> Self {
        let (connection, waiting) = (Connection::Open(connection), VecDeque::new());
        Self { destination, forwards, connection, waiting, cost: 0 }
    }

    /// Whether more may be sent to the connection.
    pub(super) fn has_room(&self) -> bool {
        self.cost < WAITING_MAX
    }

    /// Takes bytes for the connection.
    pub(super) fn take(&mut self, payload: Bytes) {
        if !payload.is_empty() {
            self.cost += payload.len() + MESSAGE_COST;
            self.waiting.push_back(Waiting::Bytes(payload));
        }
    }

    /// Takes a flag; it counts once the bytes before it are written.
    pub(super) fn flag(&mut self, flag: Flag) {
        self.cost += MESSAGE_COST;
        self.waiting.push_back(Waiting::Flag(flag));
    }

    /// Writes what waits, reads what came. May be dropped and called again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wants_output: bool) -> Poll<Happened> {
        loop {
            match &mut self.connection {
                Connection::Dialling(dial) => match dial.as_mut().poll(cx) {
                    Poll::Ready(Ok(connection)) => self.connection = Connection::Open(connection),
                    Poll::Ready(Err(_)) => return over(Status::Failed),
                    Poll::Pending => return Poll::Pending,
                },
                Connection::Closed => match self.waiting.front() {
                    None => return Poll::Pending,
                    Some(Waiting::Bytes(_)) => {
                        self.connection = Connection::Dialling(self.destination.dial())
                    }
                    Some(Waiting::Flag(Flag::TerminateSession)) => return over(Status::Terminated),
                    Some(Waiting::Flag(_)) => self.taken(),
                },
                Connection::Open(connection) => match self.waiting.front_mut() {
                    Some(Waiting::Flag(Flag::TerminateSession)) => return over(Status::Terminated),
                    Some(Waiting::Flag(Flag::DisconnectToPort)) if !self.forwards => {
                        return over(Status::Failed);
                    }
                    Some(Waiting::Flag(flag)) => {
                        if *flag == Flag::DisconnectToPort {
                            self.connection = Connection::Closed;
                        }
                        self.taken();
                    }
                    Some(Waiting::Bytes(bytes)) => match Pin::new(connection).poll_write(cx, bytes) {
                        Poll::Ready(Ok(written)) => {
                            bytes.advance(written);
                            if bytes.is_empty() {
                                self.taken();
                            } else {
                                self.cost = self.cost.saturating_sub(written);
                            }
                        }
                        // What is there may still be read to its end; bytes
                        // that could not be written go to the next one.
                        Poll::Ready(Err(_)) | Poll::Pending => return self.poll_read(cx, wants_output),
                    },
                    None => return self.poll_read(cx, wants_output),
                },
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, wants_output: bool) -> Poll<Happened> {
        let Connection::Open(connection) = &mut self.connection else { return Poll::Pending };
        if !wants_output {
            return Poll::Pending;
        }
        let mut room = [const { MaybeUninit::uninit() }; READ];
        let mut into = ReadBuf::uninit(&mut room);
        let ended = match Pin::new(connection).poll_read(cx, &mut into) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if !into.filled().is_empty() => {
                return Poll::Ready(Happened::Output(PayloadType::Output, into.filled().to_vec()));
            }
            Poll::Ready(Ok(())) => Status::Terminated,
            Poll::Ready(Err(_)) => Status::Failed,
        };
        if !self.forwards {
            return over(ended);
        }
        self.connection = Connection::Closed;
        Poll::Ready(Happened::Moved)
    }

    fn taken(&mut self) {
        self.waiting.pop_front();
        self.cost = if self.waiting.is_empty() { 0 } else { self.cost.saturating_sub(MESSAGE_COST) };
    }
}

fn over(status: Status) -> Poll<Happened> {
    Poll::Ready(Happened::Over(status, String::new()))
}
