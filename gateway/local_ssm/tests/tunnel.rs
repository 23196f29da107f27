//! The client's side of smux, and servers to connect to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use data_channel::smux::{Command, Frames, Piece, encode, encode_data};
use data_channel::{Flag, PayloadType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::*;
use crate::local_ssm::Running;

pub(super) const FORWARD: &str = "AWS-StartPortForwardingSession";

/// A client with smux on top.
pub(super) struct Tunnel {
    pub(super) client: Client,
    frames: Frames,
    /// How much of the client's output has been read.
    read: usize,
    /// What came on each stream.
    pub(super) received: BTreeMap<u32, Vec<u8>>,
    /// The streams that the agent ended.
    pub(super) ended: BTreeSet<u32>,
    pub(super) keep_alives: usize,
}

impl Tunnel {
    /// A forwarding to port 80 of the target, ready for streams.
    pub(super) async fn open(running: &Running) -> Self {
        Self::over(connect_with(running, Some(FORWARD), &[("portNumber", "80")]).await).await
    }

    pub(super) async fn over(mut client: Client) -> Self {
        client.until_type(PayloadType::HandshakeComplete).await;
        Self {
            client,
            frames: Frames::default(),
            read: 0,
            received: BTreeMap::new(),
            ended: BTreeSet::new(),
            keep_alives: 0,
        }
    }

    /// Sends smux bytes, cut as a plugin cuts them.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        for payload in bytes.chunks(1_024) {
            self.client.send(PayloadType::Output, payload).await;
        }
    }

    pub(super) async fn say(&mut self, command: Command, stream: u32) {
        let mut bytes = Vec::new();
        encode(command, stream, &mut bytes);
        self.send(&bytes).await;
    }

    pub(super) async fn write(&mut self, stream: u32, data: &[u8]) {
        let mut bytes = Vec::new();
        encode_data(stream, data, &mut bytes);
        self.send(&bytes).await;
    }

    /// Waits for the next message and sorts what came.
    pub(super) async fn next(&mut self) {
        let next = self.client.next().await;
        assert!(matches!(next, Next::Data), "{next:?}");
        self.client.send_due().await;
        self.sort();
    }

    /// Sorts what came by streams.
    pub(super) fn sort(&mut self) {
        let mut rest = &self.client.output()[self.read..];
        while let Some(piece) = self.frames.next(&mut rest).unwrap() {
            match piece {
                Piece::Data(stream, data) => self.received.entry(stream).or_default().extend_from_slice(data),
                Piece::Frame(frame) => match frame.command {
                    Command::Close => assert!(self.ended.insert(frame.stream), "ended twice"),
                    Command::KeepAlive => self.keep_alives += 1,
                    Command::Data => assert!(!self.ended.contains(&frame.stream), "data after the end"),
                    Command::Open => panic!("an agent opens nothing"),
                },
            }
        }
        self.read = self.client.output().len();
    }

    pub(super) fn of(&self, stream: u32) -> &[u8] {
        self.received.get(&stream).map(Vec::as_slice).unwrap_or_default()
    }

    /// Waits until a stream has given these bytes, and no others.
    pub(super) async fn until(&mut self, stream: u32, bytes: &[u8]) {
        while self.of(stream).len() < bytes.len() {
            self.next().await;
        }
        assert!(self.of(stream) == bytes, "stream {stream} is not as it was sent");
    }

    pub(super) async fn until_ended(&mut self, stream: u32) {
        while !self.ended.contains(&stream) {
            self.next().await;
        }
    }

    pub(super) fn refusals(&self) -> usize {
        let flag = Flag::ConnectToPortError.encode();
        let flags = self.client.received.iter();
        flags.filter(|(kind, payload)| *kind == PayloadType::Flag && *payload == flag).count()
    }
}

/// A server that sends back whatever comes.
pub(super) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// Reads exactly these bytes off a connection.
pub(super) async fn reads(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, expected);
}

/// Reads a connection to its end.
pub(super) async fn ends(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

pub(super) async fn writes(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
}

/// Bytes that are different at every place that matters.
pub(super) fn pattern(length: usize, seed: u32) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}
