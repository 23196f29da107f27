//! What goes wrong in one simulated session; all of it follows from a seed.

use std::time::Duration;

use serde_json::{Value, json};

use super::link::Lives;
use crate::session::SessionKind;

/// Random numbers of one actor; the same for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of their own for somebody else.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range, its end included.
    pub(super) fn among(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    pub(super) fn millis(&mut self, range: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.among(range))
    }

    /// True that many times in a thousand.
    pub(super) fn one_in_a_thousand(&mut self, times: u64) -> bool {
        self.next() % 1000 < times
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| b"etaoin shrdlu 012345\r\n\x1b[m\xc3\xa9\xff"[(self.next() % 28) as usize])
            .take(len)
            .collect()
    }
}

/// The circumstances of one session.
#[derive(Debug, Clone)]
pub(super) struct Weather {
    /// What the agent's handshake names; most shells have none.
    pub(super) handshake: Option<&'static str>,
    pub(super) banner: bool,
    /// Whether the policy ends quiet sessions, so that there are warnings.
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_duration: Option<Duration>,
    /// Messages of the agent and of the person.
    pub(super) output: u64,
    pub(super) input: u64,
    /// Pauses of the agent long enough for a warning.
    pub(super) long_pauses: u64,
    /// One way, on each side.
    pub(super) client_latency: Duration,
    pub(super) upstream_latency: Duration,
    /// Longest time until lines are in the journal.
    pub(super) journal_ms: u64,
    /// Of a thousand messages between service and gateway.
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) delayed: u64,
    /// How often each side loses its connection.
    pub(super) client_cuts: u64,
    pub(super) upstream_cuts: u64,
    /// Longest time that a client is away, ms.
    pub(super) away_ms: u64,
    /// How often the gateway is killed, or stopped, and started again.
    pub(super) restarts: u64,
    /// What a port session carries; none is a terminal's.
    pub(super) port: Option<PortLoad>,
}

/// What a port session carries, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct PortLoad {
    /// Connections in smux; none: one connection without it, as for SSH.
    pub(super) streams: Option<u64>,
    pub(super) capture: bool,
}

impl Weather {
    pub(super) fn of(dice: &mut Dice) -> Self {
        let calm = dice.among(0..=3) == 0;
        let rate = |dice: &mut Dice, most| if calm { 0 } else { dice.among(0..=most) };
        let idle = dice.among(0..=1) == 0;
        Self {
            handshake: [None, None, Some("Standard_Stream"), Some("NonInteractiveCommands")]
                [dice.among(0..=3) as usize],
            banner: dice.among(0..=2) == 0,
            idle_timeout: idle.then_some(Duration::from_secs(120)),
            max_duration: (dice.among(0..=2) == 0).then_some(Duration::from_secs(120 * 60)),
            output: dice.among(1..=300),
            input: dice.among(0..=60),
            long_pauses: if idle { dice.among(0..=3) } else { 0 },
            client_latency: dice.millis(1..=60),
            upstream_latency: dice.millis(1..=60),
            journal_ms: dice.among(1..=60),
            lost: rate(dice, 40),
            doubled: rate(dice, 40),
            delayed: rate(dice, 40),
            client_cuts: dice.among(0..=5),
            upstream_cuts: dice.among(0..=5),
            // Nothing happens in a session whose client is away and whose agent is done.
            away_ms: [300, 3_000, if idle { 10_000 } else { 300_000 }][dice.among(0..=2) as usize],
            restarts: dice.among(0..=3),
            port: None,
        }
    }

    /// The same of a port session.
    pub(super) fn of_port(dice: &mut Dice) -> Self {
        let weather = Self::of(dice);
        let streams = (dice.among(0..=3) > 0).then(|| dice.among(1..=6));
        let port = Some(PortLoad { streams, capture: dice.among(0..=1) == 0 });
        let restarts = dice.among(1..=4);
        // Its warnings are seen by nobody, and its agent pauses as it likes.
        let (idle_timeout, max_duration, long_pauses) = (None, None, 0);
        Self { handshake: Some("Port"), idle_timeout, max_duration, long_pauses, restarts, port, ..weather }
    }

    /// Whether connections come in smux.
    pub(super) fn streams(&self) -> Option<u64> {
        self.port.and_then(|load| load.streams)
    }

    /// What the agent's handshake says of the session.
    pub(super) fn properties(&self) -> Value {
        match self.port {
            None => Value::Null,
            Some(PortLoad { streams: None, .. }) => json!({"portNumber": "5432"}),
            Some(_) => json!({"portNumber": "5432", "type": "LocalPortForwarding"}),
        }
    }

    /// The kind of session that the handshake names.
    pub(super) fn kind(&self) -> SessionKind {
        match self.handshake {
            Some("NonInteractiveCommands") => SessionKind::NonInteractiveCommand,
            Some("Port") => SessionKind::Port,
            _ => SessionKind::Shell,
        }
    }

    /// How long the next connection lives.
    pub(super) fn lives(&self, dice: &mut Dice, cuts: &mut u64) -> Lives {
        if *cuts == 0 {
            return Lives::FOREVER;
        }
        *cuts -= 1;
        let bytes = dice.among(1..=60_000) as usize;
        match dice.among(0..=3) {
            0 => Lives { near_reads: bytes, ..Lives::FOREVER },
            1 => Lives { near_writes: bytes, ..Lives::FOREVER },
            2 => Lives { far_reads: bytes, ..Lives::FOREVER },
            // Cut later, between two messages.
            _ => Lives::FOREVER,
        }
    }
}
