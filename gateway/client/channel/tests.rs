//! The channel against a far side that drops, repeats and reorders.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use data_channel::handshake::{HandshakeComplete, HandshakeRequest, HandshakeResponse, RequestedAction};
use data_channel::{
    Acknowledge, ChannelClosed, Draft, Message, MessageType, OpenDataChannel, PayloadType, Uuid,
};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::*;
use crate::client::Trust;

const SIZE: Size = Size { cols: 80, rows: 24 };

/// The near side: a channel at work.
struct Near {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Event>,
    resumes: Arc<AtomicUsize>,
    task: JoinHandle<Result<End, ClientError>>,
}

impl Near {
    async fn event(&mut self) -> Event {
        self.events.recv().await.expect("the channel ended")
    }

    async fn type_text(&self, text: &str) {
        self.commands.send(Command::Input(Bytes::copy_from_slice(text.as_bytes()))).await.unwrap();
    }
}

/// The far side: gateway and agent in one.
struct Far {
    listener: TcpListener,
}

struct FarSocket {
    socket: WebSocketStream<TcpStream>,
    open: OpenDataChannel,
}

impl Far {
    async fn start() -> (Self, Opened) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream_url =
            format!("ws://{}/v1/data-channel/s-1?role=publish_subscribe", listener.local_addr().unwrap());
        (Self { listener }, Opened { session_id: "s-1".to_owned(), stream_url, token: "first".to_owned() })
    }

    async fn accept(&self) -> FarSocket {
        let mut socket = accept_async(self.listener.accept().await.unwrap().0).await.unwrap();
        let Frame::Text(text) = socket.next().await.unwrap().unwrap() else { panic!("no text frame first") };
        FarSocket { open: OpenDataChannel::parse(&text).unwrap(), socket }
    }
}

impl FarSocket {
    async fn message(&mut self) -> Message {
        loop {
            if let Frame::Binary(raw) = self.socket.next().await.unwrap().unwrap() {
                let message = Message::parse(raw).unwrap();
                assert!(message.digest_matches());
                return message;
            }
        }
    }

    /// The next input message that is not an acknowledge.
    async fn input(&mut self) -> Message {
        loop {
            let message = self.message().await;
            if message.message_type() == MessageType::InputStreamData {
                return message;
            }
        }
    }

    async fn acknowledged(&mut self) -> i64 {
        loop {
            let message = self.message().await;
            if message.message_type() == MessageType::Acknowledge {
                return Acknowledge::parse(message.payload()).unwrap().sequence;
            }
        }
    }

    async fn send(&mut self, raw: Bytes) {
        self.socket.send(Frame::Binary(raw)).await.unwrap();
    }

    async fn say(&mut self, sequence: i64, payload_type: PayloadType, payload: &[u8]) {
        let message_type = MessageType::OutputStreamData;
        let draft = Draft {
            message_type,
            created_ms: 1,
            sequence,
            flags: 0,
            id: Uuid::new_v4(),
            payload_type,
            payload,
        };
        self.send(draft.encode()).await;
    }

    async fn acknowledge(&mut self, message: &Message) {
        self.send(Acknowledge::of(message).encode(1)).await;
    }
}

fn near(opened: Opened, fresh_tokens: usize) -> Near {
    let resumes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&resumes);
    let resume = move || {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        let opened = Opened {
            session_id: "s-1".to_owned(),
            stream_url: String::new(),
            token: format!("fresh-{number}"),
        };
        std::future::ready(Ok((number <= fresh_tokens).then_some(opened)))
    };
    let (commands, take_commands) = mpsc::channel(64);
    let (give_events, events) = mpsc::channel(64);
    let dialer = Dialer::new(Trust::system().tls().unwrap(), None);
    let channel = Channel::new(opened, dialer, resume, Carries::Terminal(SIZE), (take_commands, give_events));
    Near { commands, events, resumes, task: tokio::spawn(channel.run()) }
}

#[tokio::test]
async fn a_plain_shell_begins_with_output_and_gets_the_size() {
    let (far, opened) = Far::start().await;
    let mut near = near(opened, 0);
    let mut agent = far.accept().await;
    assert_eq!(
        (agent.open.token_value.as_str(), agent.open.client_version.as_deref()),
        ("first", Some("1.2.999.0"))
    );
    agent.say(0, PayloadType::Output, b"$ ").await;
    assert_eq!(near.event().await, Event::Output(Bytes::from_static(b"$ ")));
    assert_eq!(agent.acknowledged().await, 0);
    let size = agent.input().await;
    assert_eq!(
        (size.sequence(), size.payload_type(), size.payload()),
        (0, PayloadType::Size, &SIZE.encode()[..])
    );
    agent.acknowledge(&size).await;
    near.type_text("ls\r").await;
    let input = agent.input().await;
    assert_eq!((input.sequence(), input.payload()), (1, &b"ls\r"[..]));
}

#[tokio::test]
async fn a_repeated_message_is_shown_once_and_acknowledged_again() {
    let (far, opened) = Far::start().await;
    let mut near = near(opened, 0);
    let mut agent = far.accept().await;
    agent.say(1, PayloadType::Output, b"b").await;
    assert_eq!(agent.acknowledged().await, 1);
    agent.say(0, PayloadType::Output, b"a").await;
    agent.say(0, PayloadType::Output, b"a").await;
    agent.say(1, PayloadType::Output, b"b").await;
    agent.say(2, PayloadType::Output, b"c").await;
    let mut numbers = Vec::new();
    for _ in 0..4 {
        numbers.push(agent.acknowledged().await);
    }
    assert_eq!(numbers, [0, 0, 1, 2]);
    for expected in ["a", "b", "c"] {
        assert_eq!(near.event().await, Event::Output(Bytes::from(expected)));
    }
}

#[tokio::test]
async fn a_wrong_digest_is_dropped_and_not_acknowledged() {
    let (far, opened) = Far::start().await;
    let mut near = near(opened, 0);
    let mut agent = far.accept().await;
    let draft = Draft {
        message_type: MessageType::OutputStreamData,
        created_ms: 1,
        sequence: 0,
        flags: 0,
        id: Uuid::new_v4(),
        payload_type: PayloadType::Output,
        payload: b"good",
    };
    let mut bad = draft.encode().to_vec();
    *bad.last_mut().unwrap() ^= 1;
    agent.send(Bytes::from(bad)).await;
    agent.send(Bytes::from_static(b"garbage")).await;
    agent.send(draft.encode()).await;
    assert_eq!(near.event().await, Event::Output(Bytes::from_static(b"good")));
    assert_eq!(agent.acknowledged().await, 0);
}

#[tokio::test]
async fn a_handshake_is_answered_before_anything_is_typed() {
    let (far, opened) = Far::start().await;
    let mut near = near(opened, 0);
    near.type_text("early").await;
    let mut agent = far.accept().await;
    let request = HandshakeRequest::new("3.3.0.0", "NonInteractiveCommands", Value::Null);
    agent.say(0, PayloadType::HandshakeRequest, &request.encode()).await;
    let answer = agent.input().await;
    assert_eq!((answer.sequence(), answer.payload_type()), (0, PayloadType::HandshakeResponse));
    let answered = HandshakeResponse::parse(answer.payload()).unwrap();
    assert!(answered.is_success() && answered.client_version == "1.2.999.0");
    agent.acknowledge(&answer).await;
    let done = HandshakeComplete { customer_message: "Hello\u{1b}[2J\nyou".to_owned(), ..Default::default() };
    agent.say(1, PayloadType::HandshakeComplete, &done.encode()).await;
    assert_eq!(near.event().await, Event::Handshake(request));
    assert_eq!(near.event().await, Event::Message("Hello[2J\nyou".to_owned()));
    assert_eq!(agent.input().await.payload_type(), PayloadType::Size);
    assert_eq!(agent.input().await.payload(), b"early");
    agent.say(2, PayloadType::StdErr, b"oops").await;
    agent.say(3, PayloadType::ExitCode, b"EXIT_CODE: 3").await;
    assert_eq!(near.event().await, Event::StdErr(Bytes::from_static(b"oops")));
    assert_eq!(near.event().await, Event::ExitCode(Some(3), Bytes::from_static(b"EXIT_CODE: 3")));
}

#[tokio::test]
async fn a_second_handshake_request_is_answered_like_the_first() {
    // So a gateway keeps the numbers of a session that it has the key of.
    let (far, opened) = Far::start().await;
    let near = near(opened, 0);
    near.type_text("early").await;
    let mut agent = far.accept().await;
    let request = HandshakeRequest::new("3.3.0.0", "Standard_Stream", Value::Null);
    for sequence in 0..2 {
        agent.say(sequence, PayloadType::HandshakeRequest, &request.encode()).await;
        let answer = agent.input().await;
        assert_eq!((answer.sequence(), answer.payload_type()), (sequence, PayloadType::HandshakeResponse));
        assert!(HandshakeResponse::parse(answer.payload()).unwrap().is_success());
        agent.acknowledge(&answer).await;
    }
    agent.say(2, PayloadType::HandshakeComplete, &HandshakeComplete::default().encode()).await;
    assert_eq!(agent.input().await.payload_type(), PayloadType::Size);
    assert_eq!(agent.input().await.payload(), b"early");
}

#[tokio::test]
async fn what_this_client_cannot_do_is_said_clearly() {
    for (session_type, kms, word) in [("Telepathy", false, "Telepathy"), ("Standard_Stream", true, "KMS")] {
        let (far, opened) = Far::start().await;
        let mut near = near(opened, 0);
        let mut agent = far.accept().await;
        let mut request = HandshakeRequest::new("3.3.0.0", session_type, Value::Null);
        if kms {
            let action_parameters = json!({"KMSKeyId": "k"});
            request
                .requested_client_actions
                .push(RequestedAction { action_type: "KMSEncryption".to_owned(), action_parameters });
        }
        agent.say(0, PayloadType::HandshakeRequest, &request.encode()).await;
        let Event::Unsupported(text) = near.event().await else { panic!("{session_type} was accepted") };
        assert!(text.contains(word), "{text}");
        let answer = HandshakeResponse::parse(agent.input().await.payload()).unwrap();
        assert!(!answer.is_success());
    }
}

#[tokio::test]
async fn a_port_has_no_size_and_its_bytes_and_flags_are_as_they_were() {
    let (far, opened) = Far::start().await;
    let mut near = near(opened, 0);
    let mut agent = far.accept().await;
    // It was expected to be a shell: only the handshake tells.
    let request = HandshakeRequest::new("3.3.0.0", "Port", json!({"portNumber": "22"}));
    agent.say(0, PayloadType::HandshakeRequest, &request.encode()).await;
    assert_eq!(near.event().await, Event::Handshake(request));
    let answer = agent.input().await;
    assert!(HandshakeResponse::parse(answer.payload()).unwrap().is_success());
    agent.acknowledge(&answer).await;
    agent.say(1, PayloadType::HandshakeComplete, &HandshakeComplete::default().encode()).await;
    near.commands.send(Command::Resize(Size { cols: 1, rows: 1 })).await.unwrap();
    near.type_text("\n").await;
    near.commands.send(Command::Flag(Flag::TerminateSession)).await.unwrap();
    let first = agent.input().await;
    assert_eq!(
        (first.sequence(), first.payload_type(), first.payload()),
        (1, PayloadType::Output, &b"\n"[..])
    );
    let flag = agent.input().await;
    assert_eq!((flag.payload_type(), flag.payload()), (PayloadType::Flag, &[0, 0, 0, 2][..]));
    agent.say(2, PayloadType::Output, b"\n").await;
    agent.say(3, PayloadType::Flag, &Flag::ConnectToPortError.encode()).await;
    assert_eq!(near.event().await, Event::Output(Bytes::from_static(b"\n")));
    assert_eq!(near.event().await, Event::Flag(Flag::ConnectToPortError));
}

#[tokio::test]
async fn a_closed_channel_ends_with_its_text() {
    let (far, opened) = Far::start().await;
    let mut near = near(opened, 0);
    let mut agent = far.accept().await;
    agent.send(ChannelClosed::message("s-1", "ended by policy\nask \u{7}security", 1)).await;
    assert_eq!(near.event().await, Event::Closed("ended by policy\nask security".to_owned()));
    assert!(matches!(near.task.await.unwrap(), Ok(End::Closed)));
    assert_eq!(near.resumes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_lost_connection_is_resumed_and_numbers_go_on() {
    let (far, opened) = Far::start().await;
    let mut near = near(opened, 9);
    let mut agent = far.accept().await;
    let client_id = agent.open.client_id.clone();
    agent.say(0, PayloadType::Output, b"one").await;
    let size = agent.input().await;
    agent.acknowledge(&size).await;
    near.type_text("lost").await;
    assert_eq!(agent.input().await.sequence(), 1);
    drop(agent);

    let mut agent = far.accept().await;
    assert_eq!(agent.open.client_id, client_id);
    assert_eq!(agent.open.token_value, "fresh-1");
    let again = agent.input().await;
    assert_eq!((again.sequence(), again.payload()), (1, &b"lost"[..]));
    agent.acknowledge(&again).await;
    agent.say(0, PayloadType::Output, b"one").await;
    agent.say(1, PayloadType::Output, b"two").await;
    near.type_text("next").await;
    assert_eq!(agent.input().await.sequence(), 2);
    for expected in [
        Event::Output(Bytes::from_static(b"one")),
        Event::Lost,
        Event::Back,
        Event::Output(Bytes::from_static(b"two")),
    ] {
        assert_eq!(near.event().await, expected);
    }
}

#[tokio::test]
async fn a_session_that_is_over_is_not_redialled() {
    let (far, opened) = Far::start().await;
    let mut near = near(opened, 0);
    drop(far.accept().await);
    assert_eq!(near.event().await, Event::Lost);
    assert!(matches!(near.task.await.unwrap(), Ok(End::TimedOut)));
    assert_eq!(near.resumes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_refused_resume_ends_with_the_reason() {
    let (far, opened) = Far::start().await;
    let (_commands, take_commands) = mpsc::channel(1);
    let (give_events, _events) = mpsc::channel(8);
    let resume = || async {
        Err(ClientError::Api { code: "AccessDeniedException".to_owned(), message: "not any more".to_owned() })
    };
    let dialer = Dialer::new(Trust::system().tls().unwrap(), None);
    let channel = Channel::new(opened, dialer, resume, Carries::Terminal(SIZE), (take_commands, give_events));
    let task = tokio::spawn(channel.run());
    drop(far.accept().await);
    assert_eq!(task.await.unwrap().unwrap_err().to_string(), "not any more (AccessDeniedException)");
}

#[tokio::test]
async fn a_megabyte_is_pasted_whole_through_a_lossy_far_side() {
    let (far, opened) = Far::start().await;
    let near = near(opened, 9);
    let text: Vec<u8> = (0..1_048_576u32).map(|n| (n % 251) as u8).collect();
    let commands = near.commands.clone();
    let pasted = text.clone();
    let typing = tokio::spawn(async move {
        for chunk in pasted.chunks(1024) {
            commands.send(Command::Input(Bytes::copy_from_slice(chunk))).await.unwrap();
        }
    });
    let mut agent = far.accept().await;
    agent.say(0, PayloadType::Output, b"$ ").await;
    let mut pieces: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
    let mut seen = 0;
    while pieces.len() < 1025 {
        let message = agent.input().await;
        seen += 1;
        if seen == 300 || seen == 700 {
            drop(agent);
            agent = far.accept().await;
            continue;
        }
        // Every 50th is lost on its way, and so is its acknowledge.
        if seen % 50 != 0 {
            pieces.insert(message.sequence(), message.payload().to_vec());
            agent.acknowledge(&message).await;
        }
    }
    typing.await.unwrap();
    pieces.remove(&0);
    assert!(pieces.into_values().flatten().eq(text));
}

#[tokio::test]
async fn output_waits_for_a_slow_terminal_and_none_is_lost() {
    let (far, opened) = Far::start().await;
    let mut near = near(opened, 0);
    let mut agent = far.accept().await;
    let sender = tokio::spawn(async move {
        for sequence in 0..2000 {
            agent.say(sequence, PayloadType::Output, format!("{sequence};").as_bytes()).await;
        }
        agent
    });
    let mut all = Vec::new();
    for _ in 0..2000 {
        let Event::Output(bytes) = near.event().await else { panic!("something else than output") };
        all.extend_from_slice(&bytes);
    }
    let expected: String = (0..2000).map(|n| format!("{n};")).collect();
    assert_eq!(String::from_utf8(all).unwrap(), expected);
    drop(sender.await.unwrap());
}
