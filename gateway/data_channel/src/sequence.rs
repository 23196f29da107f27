//! Numbers on a lossy leg: what to send again, what to deliver in order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::message::{Draft, Message};

/// RTO before the first acknowledge; the peers' value.
const INITIAL_RTO: Duration = Duration::from_millis(200);
/// RTT before the first acknowledge; the peers' value.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Least distance of the RTO from the RTT; the peers' value.
const GRANULARITY: Duration = Duration::from_millis(10);
/// Longest RTO; the peers' value.
const RTO_MAX: Duration = Duration::from_secs(1);
/// Most messages from the oldest unacknowledged on; the plugin's value.
const OUTGOING_MAX: usize = 10_000;
/// Most messages held out of order; the plugin's value.
const HELD_MAX: usize = 10_000;
/// Most bytes held out of order: 4 MiB, seven seconds of a peer's full rate.
const HELD_BYTES_MAX: usize = 4 << 20;
/// Acknowledged timers that may stay before they are swept, beside as many
/// again as messages wait: sweeping then costs nothing per message.
const STALE_TIMERS: usize = 64;

/// Too many messages wait for an acknowledge; send nothing new for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} messages wait for an acknowledge")]
pub struct QueueFull(pub usize);

/// The sending side: numbers messages, keeps them until acknowledged.
///
/// `now` is a [`Duration`] since any one instant and never runs backwards. A
/// message is kept before the caller has its bytes, so no acknowledge comes
/// too early.
#[derive(Debug)]
pub struct Outgoing {
    /// By number from `base` on; `None` once acknowledged, never in front.
    slots: VecDeque<Option<Slot>>,
    base: i64,
    /// One for each waiting message, in the order of sending; older ones of
    /// acknowledged messages may be among them, never in front.
    timers: VecDeque<Timer>,
    waiting: usize,
    limit: usize,
    rtt: Duration,
    variation: Duration,
    rto: Duration,
}

#[derive(Debug)]
struct Slot {
    raw: Bytes,
    first_sent: Duration,
}

#[derive(Debug)]
struct Timer {
    sequence: i64,
    /// `None`: due at once.
    sent: Option<Duration>,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl Outgoing {
    /// Nothing sent yet; the first message has this number.
    pub fn starting_at(sequence: i64) -> Self {
        Self {
            slots: VecDeque::new(),
            base: sequence,
            timers: VecDeque::new(),
            waiting: 0,
            limit: OUTGOING_MAX,
            rtt: INITIAL_RTT,
            variation: Duration::ZERO,
            rto: INITIAL_RTO,
        }
    }

    /// Refuses from this many messages on (10,000 unless told).
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// The number of the next message.
    pub fn next_sequence(&self) -> i64 {
        self.base.saturating_add(i64::try_from(self.slots.len()).unwrap_or(i64::MAX))
    }

    /// Numbers, encodes and keeps a message; the draft's number is ignored.
    ///
    /// Refuses when the oldest waiting message is `limit` numbers back; then
    /// no number is used and nothing is discarded.
    pub fn send(&mut self, draft: Draft<'_>, now: Duration) -> Result<Bytes, QueueFull> {
        if self.is_full() {
            return Err(QueueFull(self.waiting));
        }
        let sequence = self.next_sequence();
        let raw = Draft { sequence, ..draft }.encode();
        self.slots.push_back(Some(Slot { raw: raw.clone(), first_sent: now }));
        self.timers.push_back(Timer { sequence, sent: Some(now) });
        self.waiting += 1;
        Ok(raw)
    }

    /// Forgets the message; false if it was not waiting.
    pub fn acknowledged(&mut self, sequence: i64, now: Duration) -> bool {
        let Some(index) = index(self.base, sequence) else { return false };
        let Some(slot) = self.slots.get_mut(index).and_then(Option::take) else { return false };
        self.waiting -= 1;
        self.measure(now.saturating_sub(slot.first_sent));
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
        self.sweep_timers();
        true
    }

    /// The next message to send again, if one is due; ask until `None`.
    ///
    /// Each counts as sent now, so the caller may stop asking when its socket
    /// is full and go on later.
    pub fn due(&mut self, now: Duration) -> Option<Bytes> {
        if self.next_due()? > now {
            return None;
        }
        let sequence = self.timers.pop_front()?.sequence;
        self.timers.push_back(Timer { sequence, sent: Some(now) });
        let raw = self.slots.get(index(self.base, sequence)?)?.as_ref()?.raw.clone();
        self.sweep_timers();
        Some(raw)
    }

    /// When [`Outgoing::due`] has something next; `None` if nothing waits.
    pub fn next_due(&self) -> Option<Duration> {
        let timer = self.timers.front()?;
        Some(timer.sent.map_or(Duration::ZERO, |sent| sent.saturating_add(self.rto)))
    }

    /// Makes every waiting message due at once, in order: a new connection.
    pub fn reconnected(&mut self) {
        let numbers = self.base..;
        let waiting = numbers.zip(&self.slots).filter(|(_, slot)| slot.is_some());
        self.timers = waiting.map(|(sequence, _)| Timer { sequence, sent: None }).collect();
    }

    /// How many messages wait for an acknowledge.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether [`Outgoing::send`] refuses.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.limit
    }

    /// When the oldest waiting message was first sent.
    pub fn waiting_since(&self) -> Option<Duration> {
        self.slots.front()?.as_ref().map(|slot| slot.first_sent)
    }

    /// How long a message waits before it is sent again; at most a second.
    pub fn rto(&self) -> Duration {
        self.rto
    }

    /// Takes a round trip into account, with the peers' gains and order.
    ///
    /// Unlike the peers we count from a message's first sending. Counted from
    /// its last, a link slower than the RTO looks fast and is flooded.
    fn measure(&mut self, sample: Duration) {
        let sample = sample.min(RTO_MAX);
        self.variation = (self.variation * 3 + sample.abs_diff(self.rtt)) / 4;
        self.rtt = (self.rtt * 7 + sample) / 8;
        self.rto = (self.rtt + GRANULARITY.max(self.variation * 4)).min(RTO_MAX);
    }

    fn sweep_timers(&mut self) {
        let (base, slots) = (self.base, &self.slots);
        let waits = |timer: &Timer| {
            index(base, timer.sequence).and_then(|index| slots.get(index)).is_some_and(Option::is_some)
        };
        while self.timers.front().is_some_and(|timer| !waits(timer)) {
            self.timers.pop_front();
        }
        if self.timers.len() > 2 * self.waiting + STALE_TIMERS {
            self.timers.retain(waits);
        }
    }
}

/// Where a number is, counted from the base.
fn index(base: i64, sequence: i64) -> Option<usize> {
    usize::try_from(sequence.checked_sub(base)?).ok()
}

/// What became of a message that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was expected: it and what was held behind it can be delivered.
    Deliver,
    /// It came before: acknowledge it again, the first one may be lost.
    Duplicate,
    /// It came early and is kept until those before it are there.
    Held,
    /// It came early and there is no room: it has to be sent again.
    Full,
}

impl Arrival {
    /// Whether the message is to be acknowledged, once it is safe.
    pub fn wants_acknowledge(self) -> bool {
        self != Self::Full
    }
}

/// The receiving side: puts messages in order, each exactly once.
///
/// Two unequal messages of one number can come from a real plugin; the first
/// one counts, as with the agent.
#[derive(Debug)]
pub struct Incoming {
    expected: i64,
    held: BTreeMap<i64, Message>,
    held_bytes: usize,
    limit: usize,
    limit_bytes: usize,
}

impl Default for Incoming {
    fn default() -> Self {
        Self::expecting(0)
    }
}

impl Incoming {
    /// Nothing came yet; the first message to deliver has this number.
    pub fn expecting(sequence: i64) -> Self {
        Self {
            expected: sequence,
            held: BTreeMap::new(),
            held_bytes: 0,
            limit: HELD_MAX,
            limit_bytes: HELD_BYTES_MAX,
        }
    }

    /// Holds less out of order (10,000 messages and 4 MiB unless told).
    pub fn with_limits(self, messages: usize, bytes: usize) -> Self {
        Self { limit: messages, limit_bytes: bytes, ..self }
    }

    /// The number of the next message to deliver.
    pub fn expected(&self) -> i64 {
        self.expected
    }

    /// How many messages are held out of order.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes a stream message; what can be delivered is appended in order.
    ///
    /// Only the message given is to be acknowledged: what was held behind it
    /// has been when it came. A caller that cannot handle data yet does not
    /// call this and does not acknowledge, as an agent without its process.
    pub fn receive(&mut self, message: Message, deliver: &mut Vec<Message>) -> Arrival {
        let sequence = message.sequence();
        if sequence < self.expected || self.held.contains_key(&sequence) {
            return Arrival::Duplicate;
        }
        if sequence > self.expected {
            return self.hold(message);
        }
        self.deliver(message, deliver);
        while let Some(next) = self.held.remove(&self.expected) {
            self.held_bytes = self.held_bytes.saturating_sub(next.raw().len());
            self.deliver(next, deliver);
        }
        Arrival::Deliver
    }

    fn deliver(&mut self, message: Message, deliver: &mut Vec<Message>) {
        self.expected = self.expected.saturating_add(1);
        deliver.push(message);
    }

    fn hold(&mut self, message: Message) -> Arrival {
        let bytes = self.held_bytes.saturating_add(message.raw().len());
        // A number too far ahead would take the room of one that is nearer.
        let in_reach = index(self.expected, message.sequence()).is_some_and(|ahead| ahead <= self.limit);
        if !in_reach || bytes > self.limit_bytes {
            return Arrival::Full;
        }
        self.held_bytes = bytes;
        self.held.insert(message.sequence(), message);
        Arrival::Held
    }
}

#[cfg(test)]
mod tests;
