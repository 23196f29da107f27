//! A relay whose two sides a test drives message by message.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_channel::acknowledge::Acknowledge;
use data_channel::control::ChannelClosed;
use data_channel::message::{Draft, Message, MessageType};
use data_channel::payload::PayloadType;
use tokio::sync::mpsc::{Sender, UnboundedReceiver, channel, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Role;
use uuid::Uuid;

use super::super::{Carries, Control, Counters, Ended, Meters, Parts, Presence, Rules, Times, run};
use super::link::{Far, Link, Lives, connect};
use super::no_keys;
use super::weather::Dice;
use super::world::recorded_by_hand;
use crate::metrics::Metrics;
use crate::recorder::ByHand;
use crate::session::{Durability, SessionId};

/// What never comes does not come in a simulated day either.
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Rig {
    pub(super) upstream: Far,
    redialled: UnboundedReceiver<Far>,
    pub(super) orders: Sender<Control<Link>>,
    pub(super) hand: Arc<Mutex<ByHand>>,
    pub(super) presence: UnboundedReceiver<Presence>,
    pub(super) metrics: Metrics,
    relay: JoinHandle<Ended>,
}

impl Rig {
    pub(super) async fn start(rules: Rules) -> Self {
        Self::recorded(rules, Durability::Process).await
    }

    /// A relay whose recording has to be that durable.
    pub(super) async fn recorded(rules: Rules, durability: Durability) -> Self {
        let (recording, hand) = ByHand::begin("alice-1");
        recording.require(durability);
        let hand = Arc::new(Mutex::new(hand));
        let (near, upstream) = connect(Lives::FOREVER, Role::Client).await;
        let (orders, control) = channel(8);
        let (to_test, redialled) = unbounded_channel();
        let (tell, presence) = unbounded_channel();
        let metrics = Metrics::new().unwrap();
        let parts = Parts {
            session: SessionId::parse("alice-1").unwrap(),
            recording,
            carries: Carries::Terminal,
            rules,
            upstream: Some(near),
            redial: Box::new(move || {
                let to_test = to_test.clone();
                Box::pin(async move {
                    let (near, far) = connect(Lives::FOREVER, Role::Client).await;
                    to_test.send(far).map_err(|error| error.to_string())?;
                    Ok(Some(near))
                })
            }),
            data_keys: no_keys(),
            data_key: None,
            input_keys: vec![[7; 32]],
            control,
            presence: Box::new(move |presence| {
                let _ = tell.send(presence);
            }),
            meters: Arc::new(Meters::new(&metrics)),
            counters: Arc::new(Counters::default()),
            times: Times::default(),
            resumed: None,
        };
        let relay = recorded_by_hand(run(parts), Arc::clone(&hand), (1, Dice::new(1)));
        let relay = tokio::spawn(async { relay.await.2 });
        Self { upstream, redialled, orders, hand, presence, metrics, relay }
    }

    /// A relay with a client and the first output acknowledged.
    pub(super) async fn lit(rules: Rules) -> (Self, Far) {
        let mut rig = Self::start(rules).await;
        let mut client = rig.attach().await;
        rig.say(0, b"$ ");
        assert_eq!(hear(&mut client).await.payload(), b"$ ");
        acknowledge(&client, 0);
        assert_eq!(rig.acknowledged().await, 0);
        (rig, client)
    }

    pub(super) async fn attach(&mut self) -> Far {
        let (near, far) = connect(Lives::FOREVER, Role::Server).await;
        self.orders.send(Control::Attach(Box::new(near))).await.unwrap();
        assert_eq!(self.becomes().await, Presence::Connected);
        far
    }

    /// The next change of the client's presence.
    pub(super) async fn becomes(&mut self) -> Presence {
        timeout(DAY, self.presence.recv()).await.expect("the presence does not change").unwrap()
    }

    /// The agent says something under this number.
    pub(super) fn say(&self, number: i64, text: &[u8]) {
        self.upstream.put(stream(MessageType::OutputStreamData, number, (PayloadType::Output, text)));
    }

    /// The next number that is acknowledged to the agent.
    pub(super) async fn acknowledged(&mut self) -> i64 {
        let message = hear(&mut self.upstream).await;
        assert_eq!(message.message_type(), MessageType::Acknowledge, "{:?}", message.payload());
        Acknowledge::parse(message.payload()).unwrap().sequence
    }

    /// Waits until the relay has dialled upstream again.
    ///
    /// The old connection stays as it is for as long as it is kept.
    pub(super) async fn redialled(&mut self) -> Far {
        let fresh = timeout(DAY, self.redialled.recv()).await.expect("nobody dials").unwrap();
        std::mem::replace(&mut self.upstream, fresh)
    }

    /// The client's connection breaks, and it is back at once.
    pub(super) async fn comes_back(&mut self, client: Far) -> Far {
        drop(client);
        assert_eq!(self.becomes().await, Presence::Disconnected);
        self.attach().await
    }

    pub(super) async fn ended(self) -> Ended {
        timeout(DAY, self.relay).await.expect("it does not end").unwrap()
    }
}

/// The next message on a connection that is there.
pub(super) async fn hear(far: &mut Far) -> Message {
    let raw = timeout(DAY, far.hear()).await.expect("nothing comes").expect("the connection is gone");
    Message::parse(raw).unwrap()
}

/// The sentence with which the session is closed; repeats are passed over.
pub(super) async fn closed(far: &mut Far) -> String {
    loop {
        let message = hear(far).await;
        if message.message_type() == MessageType::ChannelClosed {
            return ChannelClosed::parse(message.payload()).unwrap().output;
        }
    }
}

pub(super) fn acknowledge(far: &Far, number: i64) {
    let acknowledge = Acknowledge {
        message_type: MessageType::OutputStreamData,
        message_id: Uuid::from_u128(number as u128),
        sequence: number,
    };
    far.put(acknowledge.encode(1));
}

/// The person presses a key.
pub(super) fn press(far: &Far, number: i64, key: &[u8]) {
    far.put(stream(MessageType::InputStreamData, number, (PayloadType::Output, key)));
}

pub(super) fn stream(
    message_type: MessageType,
    sequence: i64,
    (payload_type, payload): (PayloadType, &[u8]),
) -> Bytes {
    let id = Uuid::from_u128(sequence as u128);
    Draft { message_type, created_ms: 1, sequence, flags: 0, id, payload_type, payload }.encode()
}
