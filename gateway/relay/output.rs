//! The output direction's memory: what was forwarded and not yet acknowledged.
//!
//! Pure bookkeeping, no I/O. Every output message has one place here from
//! the moment it is recorded until the client has acknowledged it, so that
//! a client that comes back gets at once what it may have missed.

mod before;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use data_channel::message::Message;
use tokio::time::Instant;

use crate::recorder::Position;

use before::Before;

/// Messages kept for a client that does not acknowledge, and their bytes.
///
/// Beyond it the relay stops reading upstream: the agent holds 100 MB.
const UNACKNOWLEDGED_MAX: usize = 8192;
const UNACKNOWLEDGED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Messages held that came before their turn; the rest is sent again.
///
/// The stock agent sends one lost message in 100 ms and 100 new ones
/// meanwhile: room for the time it takes to repeat 80 of them.
const EARLY_MAX: usize = 8192;
const EARLY_BYTES_MAX: usize = 10 * 1024 * 1024;
/// In-order acknowledges after which the client's handler surely runs.
///
/// Before that the stock plugin ignores messages without a trace.
const SETTLED_AFTER: u32 = 4;
/// Repeats after which a client that acknowledges later messages has surely
/// seen this one: 2 s and more of the agent's timer.
const IGNORED_REPEATS: u32 = 20;

/// What a message's number says about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next one: record and forward.
    Fresh,
    /// Came before its turn and may be held.
    Early,
    /// Came before its turn and is too far ahead to hold.
    TooEarly,
    /// Seen before; the client has not acknowledged it.
    Repeat,
    /// Seen before and acknowledged by the client.
    Done,
    /// Recorded by an earlier process; nobody knows whether the client has it.
    Owed,
}

/// A message that was recorded and awaits the client's acknowledge.
pub(super) struct Sent {
    pub(super) message: Message,
    pub(super) position: Position,
    pub(super) received: Instant,
    /// Place in this connection's order of sending; 0 while unsent.
    order: u64,
    /// Place of its first repeat on this connection; 0 if none.
    repeated: u64,
    ever_sent: bool,
    /// How often the agent has repeated it.
    repeats: u32,
    /// The gateway has acknowledged it to the agent by itself.
    pub(super) answered: bool,
}

impl Sent {
    fn new(message: Message, position: Position, received: Instant) -> Self {
        let (order, repeated, repeats) = (0, 0, 0);
        Self { message, position, received, order, repeated, repeats, ever_sent: false, answered: false }
    }
}

/// The output direction of one session.
#[derive(Default)]
pub(super) struct Output {
    next: i64,
    early: BTreeMap<i64, Message>,
    early_bytes: usize,
    /// Number of the first entry of `window`.
    base: i64,
    /// Entries by number; `None` once acknowledged.
    window: VecDeque<Option<Sent>>,
    bytes: usize,
    /// Next number to send on this connection.
    cursor: i64,
    order: u64,
    in_order: u32,
    /// What an earlier process did; none in a session that is our own.
    before: Option<Box<Before>>,
}

impl Output {
    /// Says what the number means; changes nothing.
    pub(super) fn arrival(&self, sequence: i64) -> Arrival {
        if sequence == self.next {
            return Arrival::Fresh;
        }
        if sequence > self.next {
            let ahead = usize::try_from(sequence - self.next).unwrap_or(usize::MAX);
            return if ahead <= EARLY_MAX { Arrival::Early } else { Arrival::TooEarly };
        }
        let waiting = self.slot(sequence).is_some_and(|slot| matches!(self.window.get(slot), Some(Some(_))));
        match &self.before {
            _ if waiting => Arrival::Repeat,
            Some(before) if before.may_lack(sequence) => Arrival::Owed,
            _ => Arrival::Done,
        }
    }

    /// Whether the relay may read more from upstream.
    pub(super) fn has_room(&self) -> bool {
        self.window.len() < UNACKNOWLEDGED_MAX && self.bytes < UNACKNOWLEDGED_BYTES_MAX
    }

    /// Holds a message that came before its turn; false if there is no room.
    pub(super) fn hold(&mut self, message: Message) -> bool {
        let bytes = message.raw().len();
        if self.early_bytes + bytes > EARLY_BYTES_MAX || self.early.contains_key(&message.sequence()) {
            return false;
        }
        self.early_bytes += bytes;
        self.early.insert(message.sequence(), message);
        true
    }

    /// Takes the message whose turn has come, if it is held.
    pub(super) fn take_held(&mut self) -> Option<Message> {
        let held = self.early.remove(&self.next)?;
        self.early_bytes -= held.raw().len();
        Some(held)
    }

    /// Keeps the next message, now that it is recorded.
    pub(super) fn accept(&mut self, message: Message, position: Position, received: Instant) {
        self.next += 1;
        self.bytes += message.raw().len();
        let mut sent = Sent::new(message, position, received);
        if let Some(before) = &mut self.before {
            before.accepted(&mut sent);
        }
        self.window.push_back(Some(sent));
    }

    /// The next message to send on this connection.
    pub(super) fn send_next(&mut self) -> Option<Bytes> {
        while self.cursor < self.next {
            let slot = self.slot(self.cursor);
            self.cursor += 1;
            let Some(Some(sent)) = slot.and_then(|slot| self.window.get_mut(slot)) else { continue };
            // What was put before it later does not send it twice.
            if sent.order > 0 {
                continue;
            }
            self.order += 1;
            sent.order = self.order;
            if sent.ever_sent {
                sent.repeated = self.order;
            }
            sent.ever_sent = true;
            return Some(sent.message.raw().clone());
        }
        None
    }

    /// The message again, because the agent repeats it.
    pub(super) fn repeat(&mut self, sequence: i64) -> Option<Bytes> {
        if sequence >= self.cursor {
            return None;
        }
        let slot = self.slot(sequence)?;
        let sent = self.window.get_mut(slot)?.as_mut()?;
        self.order += 1;
        sent.repeats = sent.repeats.saturating_add(1);
        // Any earlier repeat proves the same, so the first one counts.
        if sent.repeated == 0 {
            sent.repeated = self.order;
        }
        Some(sent.message.raw().clone())
    }

    /// Whether everything recorded was sent on this connection.
    pub(super) fn all_sent(&self) -> bool {
        self.cursor >= self.next
    }

    /// Starts over on a new connection with what is not acknowledged.
    pub(super) fn restart(&mut self) {
        self.cursor = self.base;
        self.order = 0;
        for sent in self.window.iter_mut().flatten() {
            sent.order = 0;
            sent.repeated = 0;
        }
    }

    /// Takes the client's acknowledge; `None` if it is not awaited.
    ///
    /// Also returns older messages whose acknowledge is surely lost: they
    /// were repeated, and the client acknowledged something sent later.
    pub(super) fn acknowledged(&mut self, sequence: i64) -> Option<(Sent, Vec<Sent>)> {
        let slot = self.slot(sequence)?;
        let sent = self.window.get_mut(slot)?.take()?;
        self.bytes -= sent.message.raw().len();
        self.in_order = if slot == 0 { self.in_order.saturating_add(1) } else { self.in_order };
        let lost = if slot > 0 { self.lost_before(sent.order) } else { Vec::new() };
        if let Some(before) = &mut self.before {
            before.acknowledged(std::iter::once(&sent).chain(&lost));
        }
        self.shrink();
        Some((sent, lost))
    }

    fn lost_before(&mut self, order: u64) -> Vec<Sent> {
        let mut lost = Vec::new();
        for entry in &mut self.window {
            let Some(sent) = entry else { continue };
            let settled = self.in_order >= SETTLED_AFTER || sent.repeats >= IGNORED_REPEATS;
            if !settled || sent.repeated == 0 || sent.repeated >= order {
                break;
            }
            self.bytes -= sent.message.raw().len();
            lost.extend(entry.take());
        }
        lost
    }

    fn shrink(&mut self) {
        while matches!(self.window.front(), Some(None)) {
            self.window.pop_front();
            self.base += 1;
        }
        // A burst's memory goes back once it is over.
        if self.window.is_empty() && self.window.capacity() > 64 {
            self.window = VecDeque::new();
        }
    }

    fn slot(&self, sequence: i64) -> Option<usize> {
        sequence.checked_sub(self.base).and_then(|slot| usize::try_from(slot).ok())
    }
}

#[cfg(test)]
mod tests {
    use data_channel::message::{Draft, MessageType};
    use data_channel::payload::PayloadType;
    use uuid::Uuid;

    use super::*;

    fn message(sequence: i64) -> Message {
        let draft = Draft {
            message_type: MessageType::OutputStreamData,
            created_ms: 1,
            sequence,
            flags: 0,
            id: Uuid::new_v4(),
            payload_type: PayloadType::Output,
            payload: b"x",
        };
        Message::parse(draft.encode()).unwrap()
    }

    fn accepted(count: i64) -> Output {
        let mut output = Output::default();
        for sequence in 0..count {
            assert_eq!(output.arrival(sequence), Arrival::Fresh);
            output.accept(message(sequence), Position::default(), Instant::now());
        }
        output
    }

    fn send_all(output: &mut Output) -> usize {
        std::iter::from_fn(|| output.send_next()).count()
    }

    #[test]
    fn a_message_is_fresh_once_then_a_repeat_then_done() {
        let mut output = accepted(1);
        assert_eq!(output.arrival(0), Arrival::Repeat);
        assert_eq!(send_all(&mut output), 1);
        assert!(output.acknowledged(0).is_some());
        assert_eq!(output.arrival(0), Arrival::Done);
        assert!(output.acknowledged(0).is_none());
    }

    #[test]
    fn a_message_before_its_turn_waits_for_the_gap() {
        let mut output = Output::default();
        assert_eq!(output.arrival(2), Arrival::Early);
        assert!(output.hold(message(2)));
        assert!(output.take_held().is_none());
        output.accept(message(0), Position::default(), Instant::now());
        output.accept(message(1), Position::default(), Instant::now());
        assert_eq!(output.take_held().unwrap().sequence(), 2);
        assert_eq!(output.arrival(9000), Arrival::TooEarly);
        assert_eq!(output.arrival(i64::MAX), Arrival::TooEarly);
        assert_eq!(output.arrival(i64::MIN), Arrival::Done);
    }

    #[test]
    fn a_returning_client_gets_what_it_has_not_acknowledged() {
        let mut output = accepted(5);
        assert_eq!(send_all(&mut output), 5);
        output.acknowledged(0).unwrap();
        output.acknowledged(3).unwrap();
        output.restart();
        assert_eq!(send_all(&mut output), 3);
        assert!(output.all_sent());
    }

    #[test]
    fn a_lost_acknowledge_is_repaired_once_a_later_message_is_acknowledged() {
        let mut output = accepted(10);
        send_all(&mut output);
        for sequence in 0..4 {
            output.acknowledged(sequence).unwrap();
        }
        // Number 4 was printed by the client, its acknowledge got lost, and the agent repeats it.
        assert!(output.repeat(4).is_some());
        let (_, lost) = output.acknowledged(5).unwrap();
        assert!(lost.is_empty(), "5 was sent before the repeat, so it proves nothing");
        output.accept(message(10), Position::default(), Instant::now());
        send_all(&mut output);
        let (_, lost) = output.acknowledged(10).unwrap();
        assert_eq!(lost.iter().map(|sent| sent.message.sequence()).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn nothing_is_repaired_before_the_client_has_settled() {
        let mut output = accepted(3);
        send_all(&mut output);
        assert!(output.repeat(0).is_some());
        output.accept(message(3), Position::default(), Instant::now());
        send_all(&mut output);
        let (_, lost) = output.acknowledged(3).unwrap();
        assert!(lost.is_empty());
    }

    #[test]
    fn reading_stops_when_a_client_acknowledges_nothing() {
        let output = accepted(UNACKNOWLEDGED_MAX as i64);
        assert!(!output.has_room());
    }
}
