//! A scripted agent: echoes keystrokes, or sends output as it is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data_channel::{
    Acknowledge, ChannelClosed, Draft, Message, MessageType, OpenDataChannel, PayloadType, Uuid,
};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message as Frame;

use super::Socket;
use crate::corpus::Corpus;
use crate::measure::now_ms;
use crate::pacer::Pacer;
use crate::script::{EXIT, Run};

/// What all agents share.
pub struct Agents {
    corpus: Arc<Vec<Vec<u8>>>,
    pacer: Pacer,
}

impl Agents {
    /// Makes the corpus and starts the pacer.
    pub fn new(corpus: Corpus) -> anyhow::Result<Self> {
        Ok(Self { corpus: Arc::new(corpus.messages()?), pacer: Pacer::start() })
    }

    /// Plays one session until either side ends it.
    pub async fn play(&self, socket: Socket) {
        let (sink, stream) = socket.split();
        let (orders, inbox) = unbounded_channel();
        let id = Uuid::new_v4().as_u64_pair().0;
        let agent = Agent {
            sink,
            corpus: Arc::clone(&self.corpus),
            from: usize::try_from(id % self.corpus.len() as u64).unwrap_or_default(),
            id,
            next: 0,
            in_flight: 0,
            run: None,
            ticks: 0,
        };
        tokio::select! {
            _ = hear(stream, &orders, &self.pacer, id) => {}
            _ = agent.speak(inbox) => {}
        }
    }
}

/// What the hearing half wants of the speaking one.
enum Order {
    /// Send these bytes: an acknowledge.
    Send(Bytes),
    /// Output these bytes: an echo.
    Echo(Bytes),
    /// One message was acknowledged.
    Acknowledged,
    Run(Run),
    /// One paced message is due.
    Tick,
    Exit,
}

async fn hear(
    mut stream: SplitStream<Socket>,
    orders: &UnboundedSender<Order>,
    pacer: &Pacer,
    id: u64,
) -> Option<()> {
    loop {
        let raw = match stream.next().await?.ok()? {
            Frame::Binary(raw) => raw,
            Frame::Text(text) => {
                OpenDataChannel::parse(&text).ok()?;
                continue;
            }
            Frame::Close(_) => return None,
            _ => continue,
        };
        let message = Message::parse(raw).ok()?;
        match message.message_type() {
            MessageType::Acknowledge => {
                Acknowledge::parse(message.payload()).ok()?;
                orders.send(Order::Acknowledged).ok()?;
            }
            MessageType::InputStreamData => {
                orders.send(Order::Send(Acknowledge::of(&message).encode(now_ms()))).ok()?;
                orders.send(understand(message.payload_bytes(), orders, pacer, id)).ok()?;
            }
            _ => {}
        }
    }
}

fn understand(input: Bytes, orders: &UnboundedSender<Order>, pacer: &Pacer, id: u64) -> Order {
    if &*input == EXIT {
        return Order::Exit;
    }
    let Some(run) = Run::parse(&input) else { return Order::Echo(input) };
    if let Some(every) = run.every {
        // Sessions start at different points of their interval.
        let phase = Duration::from_nanos(id % u64::try_from(every.as_nanos()).unwrap_or(u64::MAX).max(1));
        let (orders, mut left) = (orders.clone(), run.count);
        pacer.every(Instant::now() + phase, every, move |_| {
            left = left.saturating_sub(1);
            orders.send(Order::Tick).is_ok() && left > 0
        });
    }
    Order::Run(run)
}

struct Agent {
    sink: SplitSink<Socket, Frame>,
    corpus: Arc<Vec<Vec<u8>>>,
    from: usize,
    id: u64,
    next: i64,
    in_flight: u64,
    run: Option<Run>,
    ticks: u64,
}

impl Agent {
    async fn speak(mut self, mut inbox: UnboundedReceiver<Order>) -> Option<()> {
        loop {
            while let Ok(order) = inbox.try_recv() {
                self.obey(order).await?;
            }
            if self.may_send() {
                self.send_next().await?;
                continue;
            }
            self.sink.flush().await.ok()?;
            let order = inbox.recv().await?;
            self.obey(order).await?;
        }
    }

    async fn obey(&mut self, order: Order) -> Option<()> {
        match order {
            Order::Send(raw) => self.sink.feed(Frame::Binary(raw)).await.ok()?,
            Order::Echo(payload) => self.output(&payload).await?,
            Order::Acknowledged => self.in_flight = self.in_flight.saturating_sub(1),
            Order::Tick => self.ticks += 1,
            Order::Run(run) => (self.run, self.ticks) = (Some(run), 0),
            Order::Exit => {
                let closed = ChannelClosed::message("bench", "", now_ms());
                self.sink.send(Frame::Binary(closed)).await.ok()?;
                // The other side hangs up; that ends the hearing half.
                std::future::pending::<()>().await;
            }
        }
        Some(())
    }

    fn may_send(&self) -> bool {
        self.run.as_ref().is_some_and(|run| {
            run.count > 0 && self.in_flight < run.window && (run.every.is_none() || self.ticks > 0)
        })
    }

    async fn send_next(&mut self) -> Option<()> {
        let run = self.run.as_mut()?;
        run.count -= 1;
        self.ticks = self.ticks.saturating_sub(1);
        let place = self.from + usize::try_from(self.next).ok()?;
        let corpus = Arc::clone(&self.corpus);
        self.output(corpus.get(place % corpus.len())?).await
    }

    async fn output(&mut self, payload: &[u8]) -> Option<()> {
        let draft = Draft {
            message_type: MessageType::OutputStreamData,
            created_ms: now_ms(),
            sequence: self.next,
            flags: u64::from(self.next == 0),
            id: Uuid::from_u64_pair(self.id, self.next.unsigned_abs()),
            payload_type: PayloadType::Output,
            payload,
        };
        self.next += 1;
        self.in_flight += 1;
        self.sink.feed(Frame::Binary(draft.encode())).await.ok()
    }
}
