//! One simulated session: agent, service, gateway, plugin, in its own time.

use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, UnboundedSender, channel, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::{
    Carries, Control, Counters, Destination, Ended, Forward, Meters, Parts, Redial, Resumed, Rules, Times,
    run,
};
use super::agent::Agent;
use super::carried;
use super::link::{Far, Link, connect};
use super::no_keys;
use super::plugin::{Door, Plugin};
use super::weather::{Dice, Weather};
use crate::metrics::Metrics;
use crate::recorder::{ByHand, Recording};
use crate::session::SessionId;

/// No session of this size takes longer, whatever the weather.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);
/// Least age of a message whose acknowledge the agent does not lose.
const TOO_EARLY: Duration = Duration::from_millis(2);
pub(super) const BANNER: &str = "This session is recorded.";

/// What came out at every side.
pub(super) struct Outcome {
    pub(super) ended: Ended,
    pub(super) agent: Agent,
    pub(super) plugin: Plugin,
    pub(super) hand: Arc<Mutex<ByHand>>,
    pub(super) typed: Vec<u8>,
}

/// Lives through one session; panics if an acknowledge is wrong.
pub(super) fn live(seed: u64) -> (Weather, Outcome) {
    let mut dice = Dice::new(seed);
    let weather = Weather::of(&mut dice);
    live_in(weather, dice)
}

/// The same in any weather.
pub(super) fn live_in(weather: Weather, mut dice: Dice) -> (Weather, Outcome) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let outcome = runtime.block_on(session(&weather, &mut dice));
    (weather, outcome)
}

async fn session(weather: &Weather, dice: &mut Dice) -> Outcome {
    let to_type: VecDeque<Vec<u8>> = match weather.streams() {
        Some(streams) => carried::dialling(streams, dice).into(),
        None => (0..weather.input)
            .map(|_| {
                let len = dice.among(1..=1024) as usize;
                // Keys only: they are recorded whether anything is shown or not.
                dice.bytes(len).iter().map(|byte| byte & 0x1f).collect()
            })
            .collect(),
    };
    let typed: Vec<u8> = to_type.iter().flatten().copied().collect();
    let (recording, hand) = ByHand::begin("alice-1");
    let hand = Arc::new(Mutex::new(hand));
    let (to_agent, links) = unbounded_channel();
    let dials = Arc::new(Mutex::new((dice.fork(), weather.upstream_cuts)));
    let service = Service { weather: weather.clone(), dials, to_agent };
    let (orders, control) = channel(8);
    let door: Door = Arc::new(Mutex::new(orders));

    let mut agent = Agent::new(weather, dice.fork(), typed.len());
    let mut plugin = Plugin::new(weather, dice.fork(), to_type, Arc::clone(&door));
    plugin.count = Arc::clone(&agent.printed);
    let mut written = Written {
        hand: Arc::clone(&hand),
        is_port: weather.port.is_some(),
        seen: 0,
        numbers: HashSet::new(),
    };
    let gateway = Gateway {
        service,
        hand: Arc::clone(&hand),
        door,
        attached: Arc::clone(&plugin.attached),
        dice: dice.fork(),
        began: Instant::now(),
    };
    let lived = {
        let mut relay = pin!(gateway.run(recording, control));
        let mut far = pin!(agent.run(links, |agent, number| written.judges(agent, number)));
        let mut near = pin!(plugin.run());
        let mut hung_up = false;
        timeout(PATIENCE, async {
            loop {
                tokio::select! {
                    biased;
                    ended = &mut relay => return ended,
                    () = &mut far => {}
                    () = &mut near, if !hung_up => hung_up = true,
                }
            }
        })
        .await
    };
    let ended = lived.unwrap_or_else(|_| panic!("it jams: {}; {}", agent.state(), plugin.state()));
    hand.lock().unwrap().write();
    Outcome { ended, agent, plugin, hand, typed }
}

/// The service on the way to the agent; every dial is a new connection.
#[derive(Clone)]
struct Service {
    weather: Weather,
    dials: Arc<Mutex<(Dice, u64)>>,
    to_agent: UnboundedSender<Far>,
}

impl Service {
    async fn dial(self) -> Result<Option<WebSocketStream<Link>>, String> {
        let lives = {
            let (dice, cuts) = &mut *self.dials.lock().unwrap();
            self.weather.lives(dice, cuts)
        };
        let (near, far) = connect(lives, Role::Client).await;
        self.to_agent.send(far).map_err(|error| error.to_string())?;
        Ok(Some(near))
    }

    fn redial(&self) -> Redial<Link> {
        let service = self.clone();
        Box::new(move || {
            let service = service.clone();
            let pause = service.dials.lock().unwrap().0.millis(1..=2_000);
            Box::pin(async move {
                sleep(pause).await;
                service.dial().await
            })
        })
    }
}

/// The gateway's processes, one after the other.
struct Gateway {
    service: Service,
    hand: Arc<Mutex<ByHand>>,
    door: Door,
    attached: Arc<AtomicBool>,
    dice: Dice,
    began: Instant,
}

impl Gateway {
    async fn run(mut self, recording: Recording, control: Receiver<Control<Link>>) -> Ended {
        let weather = self.service.weather.clone();
        let upstream = self.service.clone().dial().await.unwrap();
        let mut parts = self.parts((recording, control), (upstream, None));
        let mut left = weather.restarts;
        loop {
            let dice = self.dice.fork();
            let relay = recorded_by_hand(run(parts), Arc::clone(&self.hand), (weather.journal_ms, dice));
            let mut relay = Box::pin(relay);
            let lives = if left == 0 { PATIENCE } else { self.dice.millis(0..=20_000) };
            left = left.saturating_sub(1);
            tokio::select! {
                (recording, _, ended) = &mut relay => {
                    drop(recording);
                    return ended;
                }
                () = sleep(lives) => {}
            }
            if self.dice.among(0..=1) == 0 {
                let orders = self.door.lock().unwrap().clone();
                let _ = orders.send(Control::Leave).await;
                let (recording, _, ended) = relay.await;
                if ended != Ended::Left {
                    return ended;
                }
                self.hand.lock().unwrap().write();
                recording.leave();
            } else {
                // SIGKILL: nobody is told, and what was not written is gone.
                drop(relay);
            }
            let (orders, control) = channel(8);
            let (recording, recovered) = self.hand.lock().unwrap().restart();
            sleep(self.dice.millis(0..=5_000)).await;
            *self.door.lock().unwrap() = orders;
            let resumed = Resumed {
                recovered,
                kind: weather.kind(),
                age: self.began.elapsed(),
                away: self.attached.load(Ordering::Relaxed).then_some(Duration::ZERO),
            };
            parts = self.parts((recording, control), (None, Some(resumed)));
        }
    }

    fn parts(
        &self,
        (recording, control): (Recording, Receiver<Control<Link>>),
        (upstream, resumed): (Option<WebSocketStream<Link>>, Option<Resumed>),
    ) -> Parts<Link, Link> {
        let weather = &self.service.weather;
        Parts {
            session: SessionId::parse("alice-1").unwrap(),
            recording,
            carries: match weather.port {
                None => Carries::Terminal,
                Some(load) => Carries::Port(Forward {
                    destination: Destination::new(None, 5432),
                    capture: load.capture,
                    connections_max: 16,
                }),
            },
            rules: Rules {
                record_input: true,
                banner: weather.banner.then(|| BANNER.to_owned()),
                idle_timeout: weather.idle_timeout,
                max_duration: weather.max_duration,
                read_only: false,
            },
            data_keys: no_keys(),
            data_key: None,
            input_keys: vec![[7; 32]],
            upstream,
            redial: self.service.redial(),
            control,
            presence: Box::new(|_| {}),
            meters: Arc::new(Meters::new(&Metrics::new().unwrap())),
            counters: Arc::new(Counters::default()),
            times: Times::default(),
            resumed,
        }
    }
}

/// Polls the relay, and writes what it recorded a while later.
pub(super) async fn recorded_by_hand<T>(
    relay: impl Future<Output = T>,
    hand: Arc<Mutex<ByHand>>,
    (slowest_ms, mut dice): (u64, Dice),
) -> T {
    let mut relay = pin!(relay);
    let mut pause = None;
    poll_fn(move |cx| {
        loop {
            if let Poll::Ready(over) = relay.as_mut().poll(cx) {
                return Poll::Ready(over);
            }
            if pause.is_none() && hand.lock().unwrap().has_news() {
                pause = Some(Box::pin(sleep(dice.millis(0..=slowest_ms))));
            }
            let Some(sleeping) = &mut pause else { return Poll::Pending };
            if sleeping.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            pause = None;
            hand.lock().unwrap().write();
        }
    })
    .await
}

/// What is in the journal, as the one who judges acknowledges sees it.
struct Written {
    hand: Arc<Mutex<ByHand>>,
    is_port: bool,
    seen: usize,
    numbers: HashSet<i64>,
}

impl Written {
    /// Nothing is acknowledged before it is recorded and 2 ms old.
    fn judges(&mut self, agent: &Agent, number: i64) {
        let hand = self.hand.lock().unwrap();
        self.numbers.extend(hand.output.iter().skip(self.seen).filter_map(|covered| covered.sequence));
        self.seen = hand.output.len();
        let put = agent.put.get(&number).unwrap_or_else(|| panic!("{number} never came to the gateway"));
        let age = put.elapsed();
        assert!(age >= TOO_EARLY, "{number} is acknowledged after {age:?}");
        if self.is_port {
            let covered = hand.flow.as_ref().map_or(0, |flow| flow.output);
            return assert!(number < covered, "{number} is acknowledged, no note covers it");
        }
        let first = agent.said.first().map_or(i64::MAX, |(first, _)| *first);
        assert!(number < first || self.numbers.contains(&number), "{number} is acknowledged, not recorded");
    }
}
