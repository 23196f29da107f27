//! One relay between a client and an agent that a test plays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_channel::{Acknowledge, ChannelClosed, Draft, Message, MessageType, PayloadType, Uuid};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::*;
use super::no_keys;
use crate::asciicast::{Event, Header};
use crate::metrics::Metrics;
use crate::recorder::read::LineReader;
use crate::recorder::{
    End, Evidence, PublicKey, Recorder, RecorderConfig, Report, Sealed, SigningKey, verify,
};
use crate::session::Durability;
use crate::socket::websocket_config;

/// Longest any test waits for one thing; reached only when it never comes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const SESSION: &str = "alice-0123456789";

/// One end of a data channel, played by a test.
pub(super) struct Peer {
    socket: WebSocketStream<DuplexStream>,
    kind: MessageType,
    next: i64,
}

impl Peer {
    /// Sends the next message of its direction.
    pub(super) async fn say(&mut self, payload_type: PayloadType, payload: &[u8]) {
        self.next += 1;
        self.say_at(self.next - 1, payload_type, payload).await;
    }

    pub(super) async fn say_at(&mut self, sequence: i64, payload_type: PayloadType, payload: &[u8]) {
        let draft = Draft {
            message_type: self.kind,
            created_ms: 1,
            sequence,
            flags: 0,
            id: Uuid::new_v4(),
            payload_type,
            payload,
        };
        self.put(draft.encode()).await;
    }

    pub(super) async fn acknowledge(&mut self, message: &Message) {
        self.put(Acknowledge::of(message).encode(1)).await;
    }

    pub(super) async fn put(&mut self, raw: bytes::Bytes) {
        // A relay that has ended is noticed when listening.
        let _ = self.socket.send(Frame::Binary(raw)).await;
    }

    /// The next message; `None` once the relay has hung up.
    pub(super) async fn hear(&mut self) -> Option<Message> {
        loop {
            let heard = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("something comes");
            match heard {
                Some(Ok(Frame::Binary(raw))) => return Some(Message::parse(raw).unwrap()),
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Whether no message of that type comes until the other end hangs up.
    pub(super) async fn hears_no(&mut self, message_type: MessageType) -> bool {
        while let Some(message) = self.hear().await {
            if message.message_type() == message_type {
                return false;
            }
        }
        true
    }

    /// The next message of that type, which must come.
    pub(super) async fn hear_of(&mut self, message_type: MessageType) -> Message {
        loop {
            let message = self.hear().await.expect("the relay goes on");
            if message.message_type() == message_type {
                return message;
            }
        }
    }

    /// Everything that still comes, up to the last words.
    pub(super) async fn last_words(&mut self) -> (Vec<Message>, String) {
        let mut before = Vec::new();
        while let Some(message) = self.hear().await {
            if message.message_type() == MessageType::ChannelClosed {
                let said = ChannelClosed::parse(message.payload()).unwrap().output;
                self.socket.close(None).await.ok();
                return (before, said);
            }
            before.push(message);
        }
        panic!("the relay hung up without a word: {before:?}");
    }
}

/// A relay with both of its peers, and its recorder.
pub(super) struct Rig {
    pub(super) client: Peer,
    pub(super) agent: Peer,
    pub(super) counters: Arc<Counters>,
    pub(super) metrics: Arc<Metrics>,
    relay: JoinHandle<(Recording, u64, Ended)>,
    _control: mpsc::Sender<Control<DuplexStream>>,
    _recorder: Recorder,
    folder: tempfile::TempDir,
}

impl Rig {
    pub(super) async fn start(carries: Carries, content: &str, rules: Rules) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let recorder = recorder(folder.path(), &metrics);
        let session = SessionId::parse(SESSION).unwrap();
        let mut header = Header::new(1_763_800_000);
        header.postern = serde_json::json!({
            "session": SESSION, "content": content, "host": "localhost", "port": 5432,
        })
        .as_object()
        .cloned();
        let recording = recorder.begin(&session, header, Durability::Process).unwrap();
        let (upstream, agent) = legs(MessageType::OutputStreamData).await;
        let (client_leg, client) = client_legs().await;
        let (orders, control) = mpsc::channel(8);
        orders.send(Control::Attach(Box::new(client_leg))).await.ok().unwrap();
        let counters = Arc::new(Counters::default());
        let parts = Parts {
            session,
            recording,
            carries,
            rules,
            upstream: Some(upstream),
            redial: Box::new(|| Box::pin(async { Ok(None) })),
            control,
            presence: Box::new(|_| {}),
            meters: Arc::new(Meters::new(&metrics)),
            counters: Arc::clone(&counters),
            times: Times::default(),
            data_keys: no_keys(),
            data_key: None,
            input_keys: vec![[7; 32]],
            resumed: None,
        };
        let relay = tokio::spawn(run(parts));
        Self { client, agent, counters, metrics, relay, _control: orders, _recorder: recorder, folder }
    }

    /// Waits for the end, seals, and tells what there is.
    pub(super) async fn end(self) -> Ending {
        let (recording, age_ms, ended) = self.relay.await.unwrap();
        let sealed = recording.seal(age_ms, &End::new(ended.reason())).await.unwrap();
        let key = PublicKey::read(&self.folder.path().join("keys/key.pub")).unwrap();
        Ending { ended, sealed, key, metrics: self.metrics, _folder: self.folder }
    }

    /// The recording as a crash of the gateway now would leave it.
    pub(super) fn crashed(&self) -> Vec<Event> {
        let copy = tempfile::tempdir().unwrap();
        for folder in ["spool", "spool/journal", "keys"] {
            std::fs::create_dir(copy.path().join(folder)).unwrap();
            for entry in std::fs::read_dir(self.folder.path().join(folder)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    std::fs::copy(entry.path(), copy.path().join(folder).join(entry.file_name())).unwrap();
                }
            }
        }
        let recovering = recorder(copy.path(), &Arc::new(Metrics::new().unwrap()));
        recovering.seal_left(&SessionId::parse(SESSION).unwrap());
        events(&copy.path().join("spool").join(format!("{SESSION}.cast.zst")))
    }
}

/// What is left of a session.
pub(super) struct Ending {
    pub(super) ended: Ended,
    pub(super) sealed: Sealed,
    pub(super) key: PublicKey,
    pub(super) metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

impl Ending {
    pub(super) fn events(&self) -> Vec<Event> {
        events(&self.sealed.path)
    }

    pub(super) fn evidence(&self) -> Evidence {
        match verify(&self.sealed.path, std::slice::from_ref(&self.key)).unwrap() {
            Report::Sealed(evidence) => *evidence,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn recorder(folder: &Path, metrics: &Arc<Metrics>) -> Recorder {
    let key = SigningKey::open(&folder.join("keys/key")).unwrap();
    Recorder::open(RecorderConfig { spool: folder.join("spool") }, key, Arc::clone(metrics)).unwrap()
}

pub(super) fn events(path: &PathBuf) -> Vec<Event> {
    let mut reader = LineReader::new(std::fs::File::open(path).unwrap());
    let mut events = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        events.extend(Event::parse(line).ok());
    }
    events
}

/// An upstream leg and the agent at its other end.
pub(super) async fn legs(kind: MessageType) -> (WebSocketStream<DuplexStream>, Peer) {
    let (near, far) = duplex(1 << 20);
    let near = WebSocketStream::from_raw_socket(near, Role::Client, Some(websocket_config())).await;
    let socket = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    (near, Peer { socket, kind, next: 0 })
}

/// A client leg and the client at its other end.
pub(super) async fn client_legs() -> (WebSocketStream<DuplexStream>, Peer) {
    let (near, far) = duplex(1 << 20);
    let near = WebSocketStream::from_raw_socket(near, Role::Server, Some(websocket_config())).await;
    let socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
    (near, Peer { socket, kind: MessageType::InputStreamData, next: 0 })
}
