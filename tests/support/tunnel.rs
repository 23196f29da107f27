//! The client's side of a port session, and servers to connect to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use data_channel::smux::{self, Command, Frames, Piece};
use data_channel::{Flag, PayloadType};
use serde_json::json;
use tokio::net::TcpListener;

use super::{Heard, Person, Terminal};

/// A forwarding of one port of a machine, opened by hand.
pub struct Tunnel {
    pub terminal: Terminal,
    frames: Frames,
    /// How much of the terminal's output has been read.
    read: usize,
    /// What came on each stream.
    pub received: BTreeMap<u32, Vec<u8>>,
    /// The streams that the agent has ended.
    pub ended: BTreeSet<u32>,
}

impl Tunnel {
    /// Starts a session to a port of the machine; its handshake is over.
    pub async fn to_port(person: &Person, target: &str, port: u16) -> Self {
        let parameters = json!({"portNumber": [port.to_string()], "localPortNumber": ["0"]});
        Self::start(person, target, "AWS-StartPortForwardingSession", parameters).await
    }

    /// The same, with any document.
    pub async fn start(person: &Person, target: &str, document: &str, parameters: serde_json::Value) -> Self {
        let body = json!({"Target": target, "DocumentName": document, "Parameters": parameters});
        let ticket = person.start_as(&body).await;
        let terminal = Terminal::open(&person.door, &ticket).await;
        let (received, ended) = (BTreeMap::new(), BTreeSet::new());
        let mut tunnel = Self { terminal, frames: Frames::default(), read: 0, received, ended };
        while !tunnel.heard(PayloadType::HandshakeComplete, None) {
            tunnel.listen().await;
        }
        tunnel
    }

    /// Sends bytes of the port stream, cut as a plugin cuts them.
    pub async fn send(&mut self, bytes: &[u8]) {
        for payload in bytes.chunks(1_024) {
            self.terminal.send(PayloadType::Output, payload).await;
        }
    }

    pub async fn say(&mut self, command: Command, stream: u32) {
        let mut bytes = Vec::new();
        smux::encode(command, stream, &mut bytes);
        self.send(&bytes).await;
    }

    pub async fn write(&mut self, stream: u32, data: &[u8]) {
        let mut bytes = Vec::new();
        smux::encode_data(stream, data, &mut bytes);
        self.send(&bytes).await;
    }

    /// Waits until a stream has brought these bytes.
    pub async fn until(&mut self, stream: u32, bytes: &[u8]) {
        while self.received.get(&stream).map_or(0, Vec::len) < bytes.len() {
            self.next().await;
        }
        assert!(self.received[&stream] == bytes, "stream {stream} is not as it was sent");
    }

    /// Waits for so much output of a session without streams.
    pub async fn until_bytes(&mut self, length: usize) {
        while self.terminal.output.len() < length {
            self.listen().await;
        }
    }

    pub async fn until_ended(&mut self, stream: u32) {
        while !self.ended.contains(&stream) {
            self.next().await;
        }
    }

    /// Whether the agent has said that it did not reach the destination.
    pub fn is_refused(&self) -> bool {
        self.heard(PayloadType::Flag, Some(&Flag::ConnectToPortError.encode()))
    }

    fn heard(&self, kind: PayloadType, payload: Option<&[u8]>) -> bool {
        let mut others = self.terminal.others.iter();
        others.any(|(of, bytes)| *of == kind && payload.is_none_or(|payload| payload == bytes.as_slice()))
    }

    async fn listen(&mut self) {
        let heard = self.terminal.next().await;
        assert!(matches!(heard, Heard::Output | Heard::Acknowledge), "{heard:?}");
    }

    /// Waits for the next message and sorts what came by streams.
    pub async fn next(&mut self) {
        self.listen().await;
        let mut rest = &self.terminal.output[self.read..];
        while let Some(piece) = self.frames.next(&mut rest).unwrap() {
            match piece {
                Piece::Data(stream, data) => self.received.entry(stream).or_default().extend_from_slice(data),
                Piece::Frame(frame) if frame.command == Command::Close => {
                    self.ended.insert(frame.stream);
                }
                Piece::Frame(_) => {}
            }
        }
        self.read = self.terminal.output.len();
    }
}

/// A server that sends back whatever comes.
pub async fn echo() -> SocketAddr {
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

/// A port of this machine that nobody listens on.
pub async fn silent_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}
