//! What relaying costs: one 1 KB output message through, its acknowledge back.
//!
//! Two legs in memory, recording on, through the relay's own task. The
//! acknowledge is held back for nothing but the recording.

// A bench that cannot set itself up has nothing to report.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use data_channel::{Acknowledge, Draft, Message, MessageType, PayloadType, Uuid};
use futures_util::{SinkExt, StreamExt};
use postern::asciicast::Header;
use postern::metrics::Metrics;
use postern::recorder::{Recorder, RecorderConfig, SigningKey};
use postern::relay::{self, Carries, Control, Counters, Meters, Parts, Rules, Times};
use postern::session::{Durability, SessionId};
use postern::socket::websocket_config;
use tokio::io::{DuplexStream, duplex};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Bytes that a leg holds, as a socket's buffer does.
const BUFFER: usize = 1 << 20;
/// Messages that are on their way at once.
const WINDOW: u64 = 64;

type Leg = WebSocketStream<DuplexStream>;

/// A relay, the agent on one side of it and the client on the other.
struct Rig {
    agent: Leg,
    client: Leg,
    next: i64,
    _control: mpsc::Sender<Control<DuplexStream>>,
    _recorder: Recorder,
    _folder: tempfile::TempDir,
}

async fn leg(near: Role, far: Role) -> (Leg, Leg) {
    let (this, that) = duplex(BUFFER);
    let near = WebSocketStream::from_raw_socket(this, near, Some(websocket_config())).await;
    (near, WebSocketStream::from_raw_socket(that, far, None).await)
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let key = SigningKey::open(&folder.path().join("key")).unwrap();
        let config = RecorderConfig { spool: folder.path().join("spool") };
        let recorder = Recorder::open(config, key, Arc::clone(&metrics)).unwrap();
        let session = SessionId::parse("bench-1").unwrap();
        let recording = recorder.begin(&session, Header::new(0), Durability::Process).unwrap();
        let (upstream, agent) = leg(Role::Client, Role::Server).await;
        let (client_leg, client) = leg(Role::Server, Role::Client).await;
        let (orders, control) = mpsc::channel(8);
        orders.send(Control::Attach(Box::new(client_leg))).await.ok().unwrap();
        let parts = Parts {
            session,
            recording,
            carries: Carries::Terminal,
            rules: Rules::default(),
            upstream: Some(upstream),
            redial: Box::new(|| Box::pin(async { Ok(None) })),
            data_keys: Box::new(|_| Box::pin(async { Err("there are no keys".to_owned()) })),
            data_key: None,
            input_keys: Vec::new(),
            control,
            presence: Box::new(|_| {}),
            meters: Arc::new(Meters::new(&metrics)),
            counters: Arc::new(Counters::default()),
            times: Times { acknowledge_after: Duration::ZERO, ..Times::default() },
            resumed: None,
        };
        tokio::spawn(relay::run(parts));
        Self { agent, client, next: 0, _control: orders, _recorder: recorder, _folder: folder }
    }

    /// So many messages through and acknowledged, a window at a time.
    async fn relay(&mut self, payload: &[u8], count: u64) {
        let mut left = count;
        while left > 0 {
            let window = left.min(WINDOW);
            for _ in 0..window {
                self.agent.feed(Frame::Binary(self.message(payload))).await.unwrap();
                self.next += 1;
            }
            self.agent.flush().await.unwrap();
            for _ in 0..window {
                let message = heard(&mut self.client).await;
                let acknowledge = Acknowledge::of(&message).encode(1);
                self.client.feed(Frame::Binary(acknowledge)).await.unwrap();
            }
            self.client.flush().await.unwrap();
            for _ in 0..window {
                heard(&mut self.agent).await;
            }
            left -= window;
        }
    }

    fn message(&self, payload: &[u8]) -> bytes::Bytes {
        let draft = Draft {
            message_type: MessageType::OutputStreamData,
            created_ms: 1,
            sequence: self.next,
            flags: 0,
            id: Uuid::from_u128(7),
            payload_type: PayloadType::Output,
            payload,
        };
        draft.encode()
    }
}

/// The next data-channel message; the relay's pings are passed over.
async fn heard(leg: &mut Leg) -> Message {
    loop {
        if let Frame::Binary(raw) = leg.next().await.unwrap().unwrap() {
            return Message::parse(raw).unwrap();
        }
    }
}

fn messages(c: &mut Criterion) {
    let payload = [b'x'; 1024];
    let runtime = Runtime::new().unwrap();
    let mut rig = runtime.block_on(Rig::start());
    let mut group = c.benchmark_group("relay");
    group.throughput(Throughput::Elements(1));
    group.bench_function("1 KB of output and its acknowledge", |b| {
        b.iter_custom(|count| {
            let since = Instant::now();
            runtime.block_on(rig.relay(&payload, count));
            since.elapsed()
        });
    });
    group.finish();
}

criterion_group!(benches, messages);
criterion_main!(benches);
