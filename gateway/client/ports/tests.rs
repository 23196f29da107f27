//! Port sessions against a far side that is an agent in a few lines.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use data_channel::handshake::HandshakeComplete;
use data_channel::smux::{self, Command as Smux, Frames, Piece};
use data_channel::{
    Acknowledge, ChannelClosed, Draft, Flag, HandshakeRequest, HandshakeResponse, Message, MessageType,
    OpenDataChannel, PayloadType, Uuid,
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::*;
use crate::client::channel::{Carries, Dialer};
use crate::client::{Opened, Trust};

/// Bytes that a local program leaves unread at most, beside ours.
const LOCAL: usize = 1024;

/// The far side: gateway and agent in one, past the handshake.
struct Agent {
    socket: WebSocketStream<TcpStream>,
    listener: TcpListener,
    next: i64,
    expected: i64,
    /// Smux of the near side.
    frames: Frames,
    payload: BytesMut,
}

/// The near side: a session being carried.
struct Near {
    connections: mpsc::Sender<Connection>,
    notices: Arc<Mutex<Vec<Notice>>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<Ending, ClientError>>,
}

fn multiplexed() -> Value {
    json!({"type": "LocalPortForwarding", "portNumber": "80", "localPortNumber": "0"})
}

async fn start(agent_version: &str, properties: Value) -> (Near, Agent) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream_url = format!("ws://{}/v1/data-channel/s-1", listener.local_addr().unwrap());
    let opened = Opened { session_id: "s-1".to_owned(), stream_url, token: "t".to_owned() };
    let again = opened.stream_url.clone();
    let resume = move || {
        let stream_url = again.clone();
        let opened = Opened { session_id: "s-1".to_owned(), stream_url, token: "t".to_owned() };
        std::future::ready(Ok(Some(opened)))
    };
    let dialer = Dialer::new(Trust::system().tls().unwrap(), None);
    let line = Line::open(opened, dialer, resume, Carries::Port);
    let (begun, agent) = tokio::join!(
        PortSession::begin("s-1".to_owned(), line),
        Agent::shake_hands(listener, agent_version, properties)
    );
    let Ok(Begun::Port(session)) = begun else { panic!("this is no port session") };
    let (connections, take_connections) = mpsc::channel(1);
    let notices = Arc::new(Mutex::new(Vec::new()));
    let (stop, stopped) = oneshot::channel();
    let heard = Arc::clone(&notices);
    let task = tokio::spawn(async move {
        let tell = move |notice| heard.lock().unwrap().push(notice);
        let stop = async { stopped.await.unwrap_or_default() };
        session.carry(take_connections, stop, &tell).await
    });
    (Near { connections, notices, stop: Some(stop), task }, agent)
}

impl Near {
    /// A local program that connects.
    async fn connect(&self) -> DuplexStream {
        let (program, ours) = duplex(LOCAL);
        let (reader, writer) = split(ours);
        self.connections.send(Connection::new(reader, writer)).await.unwrap();
        program
    }
}

impl Agent {
    async fn shake_hands(listener: TcpListener, version: &str, properties: Value) -> Self {
        let socket = Self::accept(&listener).await;
        let (frames, payload) = (Frames::default(), BytesMut::new());
        let mut agent = Self { socket, listener, next: 0, expected: 0, frames, payload };
        let request = HandshakeRequest::new(version, "Port", properties);
        agent.say(PayloadType::HandshakeRequest, &request.encode()).await;
        let answer = agent.input().await;
        assert!(HandshakeResponse::parse(answer.payload()).unwrap().is_success());
        agent.say(PayloadType::HandshakeComplete, &HandshakeComplete::default().encode()).await;
        agent
    }

    async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
        let mut socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
        let Frame::Text(text) = socket.next().await.unwrap().unwrap() else { panic!("no text frame first") };
        OpenDataChannel::parse(&text).unwrap();
        socket
    }

    async fn say(&mut self, payload_type: PayloadType, payload: &[u8]) {
        let draft = Draft {
            message_type: MessageType::OutputStreamData,
            created_ms: 1,
            sequence: self.next,
            flags: 0,
            id: Uuid::new_v4(),
            payload_type,
            payload,
        };
        self.next += 1;
        self.socket.send(Frame::Binary(draft.encode())).await.unwrap();
    }

    /// The next input message in order; everything is acknowledged.
    async fn input(&mut self) -> Message {
        loop {
            let Frame::Binary(raw) = self.socket.next().await.unwrap().unwrap() else { continue };
            let message = Message::parse(raw).unwrap();
            if message.message_type() != MessageType::InputStreamData {
                continue;
            }
            self.socket.send(Frame::Binary(Acknowledge::of(&message).encode(1))).await.unwrap();
            if message.sequence() == self.expected {
                self.expected += 1;
                assert!(message.payload().len() <= 1024);
                return message;
            }
        }
    }

    /// The next thing that the near side says in smux; data as it came.
    async fn smux(&mut self) -> (Smux, u32, Vec<u8>) {
        loop {
            let mut rest = &self.payload[..];
            let piece = self.frames.next(&mut rest).unwrap().map(|piece| match piece {
                Piece::Frame(header) => (header.command, header.stream, Vec::new()),
                Piece::Data(stream, data) => (Smux::Data, stream, data.to_vec()),
            });
            let used = self.payload.len() - rest.len();
            let _ = self.payload.split_to(used);
            match piece {
                Some((Smux::Data, _, data)) if data.is_empty() => {}
                Some(said) => return said,
                None => {
                    let message = self.input().await;
                    assert_eq!(message.payload_type(), PayloadType::Output);
                    self.payload.extend_from_slice(message.payload());
                }
            }
        }
    }

    async fn data(&mut self, stream: u32, data: &[u8]) {
        let mut bytes = Vec::new();
        smux::encode_data(stream, data, &mut bytes);
        for payload in bytes.chunks(1024) {
            self.say(PayloadType::Output, payload).await;
        }
    }

    /// Says megabytes to stream 3 and then a word to stream 5, reading on.
    async fn flood(self, megabytes: usize, word: &'static [u8]) {
        let (mut sink, mut stream) = self.socket.split();
        let mut bytes = Vec::new();
        smux::encode_data(3, &vec![7; megabytes << 20], &mut bytes);
        smux::encode_data(5, word, &mut bytes);
        let said = async {
            for (sequence, payload) in (self.next..).zip(bytes.chunks(1024)) {
                let draft = Draft {
                    message_type: MessageType::OutputStreamData,
                    created_ms: 1,
                    sequence,
                    flags: 0,
                    id: Uuid::new_v4(),
                    payload_type: PayloadType::Output,
                    payload,
                };
                sink.send(Frame::Binary(draft.encode())).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = said => {}
            () = async { while let Some(Ok(_)) = stream.next().await {} } => {}
        }
    }

    async fn close(&mut self, stream: u32) {
        let mut bytes = Vec::new();
        smux::encode(Smux::Close, stream, &mut bytes);
        self.say(PayloadType::Output, &bytes).await;
    }

    async fn end(&mut self, text: &str) {
        self.socket.send(Frame::Binary(ChannelClosed::message("s-1", text, 1))).await.unwrap();
    }
}

#[tokio::test]
async fn every_connection_is_a_stream_of_its_own() {
    let (near, mut agent) = start("3.3.0.0", multiplexed()).await;
    let mut first = near.connect().await;
    assert_eq!(agent.smux().await, (Smux::Open, 3, vec![]));
    let mut second = near.connect().await;
    assert_eq!(agent.smux().await, (Smux::Open, 5, vec![]));
    first.write_all(b"one").await.unwrap();
    assert_eq!(agent.smux().await, (Smux::Data, 3, b"one".to_vec()));
    second.write_all(b"\n").await.unwrap();
    assert_eq!(agent.smux().await, (Smux::Data, 5, b"\n".to_vec()));
    agent.data(5, b"five").await;
    agent.data(3, b"three").await;
    let mut got = [0; 4];
    second.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"five");
    // The far side closes one: what it said before comes first.
    agent.close(3).await;
    let mut rest = String::new();
    first.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "three");
    assert_eq!(agent.smux().await, (Smux::Close, 3, vec![]));
    agent.end("").await;
    let ended = near.task.await.unwrap().unwrap();
    assert!(matches!(ended, Ending::Closed { text, .. } if text.is_empty()));
}

#[tokio::test]
async fn what_a_program_says_before_it_closes_arrives_and_so_does_the_answer() {
    let (near, mut agent) = start("3.3.0.0", multiplexed()).await;
    let mut program = near.connect().await;
    assert_eq!(agent.smux().await.0, Smux::Open);
    program.write_all(b"question").await.unwrap();
    program.shutdown().await.unwrap();
    assert_eq!(agent.smux().await, (Smux::Data, 3, b"question".to_vec()));
    // There is no half-close on the way: the answer still finds its program.
    agent.data(3, b"answer").await;
    agent.close(3).await;
    let mut answer = String::new();
    program.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
    assert_eq!(agent.smux().await.0, Smux::Close);
}

#[tokio::test]
async fn a_program_that_has_gone_is_closed_at_the_far_side() {
    let (near, mut agent) = start("3.3.0.0", multiplexed()).await;
    drop(near.connect().await);
    assert_eq!(agent.smux().await.0, Smux::Open);
    assert_eq!(agent.smux().await, (Smux::Close, 3, vec![]));
    // What comes for it later is nobody's.
    agent.data(3, b"late").await;
    let mut program = near.connect().await;
    assert_eq!(agent.smux().await, (Smux::Open, 5, vec![]));
    agent.data(5, b"hello").await;
    let mut got = [0; 5];
    program.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn a_refused_destination_is_told_and_the_session_goes_on() {
    let (near, mut agent) = start("3.3.0.0", multiplexed()).await;
    let mut program = near.connect().await;
    assert_eq!(agent.smux().await.0, Smux::Open);
    agent.say(PayloadType::Flag, &Flag::ConnectToPortError.encode()).await;
    agent.close(3).await;
    assert_eq!(program.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(near.notices.lock().unwrap()[..2], [Notice::Accepted, Notice::Refused]);
    let _next = near.connect().await;
    assert_eq!(agent.smux().await.0, Smux::Close);
    assert_eq!(agent.smux().await, (Smux::Open, 5, vec![]));
}

#[tokio::test]
async fn leaving_ends_the_session_behind_the_last_byte() {
    let (mut near, mut agent) = start("3.3.0.0", multiplexed()).await;
    let mut program = near.connect().await;
    program.write_all(b"last").await.unwrap();
    assert_eq!(agent.smux().await.0, Smux::Open);
    assert_eq!(agent.smux().await, (Smux::Data, 3, b"last".to_vec()));
    near.stop.take().unwrap().send(()).unwrap();
    let flag = agent.input().await;
    assert_eq!((flag.payload_type(), flag.payload()), (PayloadType::Flag, &[0, 0, 0, 2][..]));
    agent.end("").await;
    assert!(matches!(near.task.await.unwrap(), Ok(Ending::Left)));
    assert_eq!(program.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_program_that_does_not_read_costs_a_bounded_amount() {
    let (near, agent) = start("3.3.0.0", multiplexed()).await;
    let mut slow = near.connect().await;
    let mut quick = near.connect().await;
    let endless = tokio::spawn(agent.flood(32, b"after"));
    let mut got = [0; 5];
    tokio::select! {
        _ = quick.read_exact(&mut got) => panic!("32 MB were taken in"),
        // Its memory is what is looked at: by then everything stands still.
        () = standstill(&endless) => {}
    }
    let mut all = vec![0; 32 << 20];
    slow.read_exact(&mut all).await.unwrap();
    assert!(all.iter().all(|byte| *byte == 7));
    quick.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"after");
    endless.abort();
}

/// Waits until a writer has had every chance to go on, and has not.
async fn standstill(writer: &JoinHandle<()>) {
    for _ in 0..50_000 {
        tokio::task::yield_now().await;
        assert!(!writer.is_finished());
    }
}

#[tokio::test]
async fn a_lost_connection_is_taken_up_and_every_byte_arrives_once() {
    let (near, mut agent) = start("3.3.0.0", multiplexed()).await;
    let program = near.connect().await;
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut from, mut to) = split(program);
    let typed = sent.clone();
    let typing = tokio::spawn(async move {
        to.write_all(&typed).await.unwrap();
        to
    });
    assert_eq!(agent.smux().await.0, Smux::Open);
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let (_, _, data) = agent.smux().await;
        let before = got.len() / 300_000;
        got.extend_from_slice(&data);
        if got.len() / 300_000 > before {
            // First the old one breaks: nobody waits for its silence to end.
            agent.socket.get_mut().shutdown().await.unwrap();
            agent.socket = Agent::accept(&agent.listener).await;
        }
    }
    assert!(got == sent);
    agent.data(3, b"thanks").await;
    let mut thanks = [0; 6];
    from.read_exact(&mut thanks).await.unwrap();
    drop(typing.await.unwrap());
    let notices = near.notices.lock().unwrap().clone();
    assert!(notices.contains(&Notice::Lost) && notices.contains(&Notice::Back), "{notices:?}");
}

#[tokio::test]
async fn what_is_no_smux_ends_the_session_with_a_sentence() {
    let (near, mut agent) = start("3.3.0.0", multiplexed()).await;
    agent.say(PayloadType::Output, b"SSH-2.0-OpenSSH").await;
    agent.end("").await;
    let error = near.task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("not smux"), "{error}");
}

#[tokio::test]
async fn an_old_agent_has_one_connection_at_a_time() {
    let (near, mut agent) = start("3.0.100.0", multiplexed()).await;
    agent.say(PayloadType::Output, b"welcome ").await;
    let mut first = near.connect().await;
    let mut got = [0; 8];
    first.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"welcome ");
    first.write_all(b"one").await.unwrap();
    assert_eq!(agent.input().await.payload(), b"one");
    drop(first);
    let flag = agent.input().await;
    assert_eq!((flag.payload_type(), flag.payload()), (PayloadType::Flag, &[0, 0, 0, 1][..]));
    let mut second = near.connect().await;
    second.write_all(b"two").await.unwrap();
    assert_eq!(agent.input().await.payload(), b"two");
    agent.say(PayloadType::Output, b"2").await;
    second.read_exact(&mut got[..1]).await.unwrap();
    assert_eq!(got[0], b'2');
}

#[tokio::test]
async fn the_standard_streams_are_the_session() {
    let (near, mut agent) = start("3.3.0.0", json!({"portNumber": "22"})).await;
    let mut ssh = near.connect().await;
    agent.say(PayloadType::Output, b"SSH-2.0-x\r\n").await;
    let mut banner = [0; 11];
    ssh.read_exact(&mut banner).await.unwrap();
    assert_eq!(&banner, b"SSH-2.0-x\r\n");
    ssh.write_all(b"\n").await.unwrap();
    assert_eq!(agent.input().await.payload(), b"\n");
    ssh.shutdown().await.unwrap();
    let flag = agent.input().await;
    assert_eq!((flag.payload_type(), flag.payload()), (PayloadType::Flag, &[0, 0, 0, 2][..]));
    agent.end("").await;
    assert!(matches!(near.task.await.unwrap(), Ok(Ending::Left)));
}

#[tokio::test]
async fn what_the_far_side_says_last_is_not_cut_off() {
    let (near, mut agent) = start("3.3.0.0", json!({"portNumber": "22"})).await;
    let mut ssh = near.connect().await;
    let last: Vec<u8> = (0..100_000u32).map(|n| (n % 241) as u8).collect();
    let said = last.clone();
    let saying = tokio::spawn(async move {
        for payload in said.chunks(1000) {
            agent.say(PayloadType::Output, payload).await;
        }
        agent.end("the host went down").await;
        agent
    });
    let mut got = Vec::new();
    ssh.read_to_end(&mut got).await.unwrap();
    assert!(got == last);
    drop(saying.await.unwrap());
    let ended = near.task.await.unwrap().unwrap();
    assert!(matches!(ended, Ending::Closed { text, .. } if text == "the host went down"));
}

#[tokio::test]
async fn a_unix_socket_is_listened_on_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Unix(folder.path().join("forward"));
    let listener = Listener::bind(&place).await.unwrap();
    let (connected, accepted) =
        tokio::join!(tokio::net::UnixStream::connect(folder.path().join("forward")), listener.accept());
    let (mut connected, mut accepted) = (connected.unwrap(), accepted);
    connected.write_all(b"x").await.unwrap();
    let mut got = [0];
    accepted.reader.read_exact(&mut got).await.unwrap();
    drop(listener);
    assert!(!folder.path().join("forward").exists());
}
