//! The output direction's memory: what was forwarded and not yet acknowledged.
//!
//! Pure bookkeeping, no I/O. Every output message has one place here from
//! the moment it is recorded until the client has acknowledged it, so that
//! a client that comes back gets at once what it may have missed.
//!
//! Numbers pass through until the gateway says something of its own, a
//! notice. It takes the next number, and what the agent says after it goes to
//! the client under numbers that are higher by one, and by one more after the
//! next notice. With no notice there is nothing to copy and nothing to map.

mod before;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use data_channel::acknowledge::Acknowledge;
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
/// How long ago a message was sent that is judged like one ignored so often.
const SILENCE: Duration = Duration::from_secs(2);
/// More messages for every time that a client came back and got none of
/// what is kept acknowledged: what is new shows which acknowledges are lost.
const PROBE: usize = 64;
/// Times that the window grows so; 1024 messages more in all.
const PROBES_MAX: usize = 16;
/// What one of those messages takes at the most, bytes; peers send 1.2 KB.
const PROBE_BYTES: usize = 2048;
/// When the relay itself repeats a message; the agent does it so with its own.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// What a message's number says about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next one: record and forward.
    Fresh,
    /// Came before its turn and may be held.
    Early,
    /// Came before its turn and is too far ahead to hold.
    TooEarly,
    /// Seen before; it waits for the client's acknowledge.
    Repeat,
    /// Seen before and acknowledged.
    Done,
    /// Recorded by an earlier process; nobody knows whether the client has it.
    Owed,
}

/// A message that was recorded and awaits the client's acknowledge.
pub(super) struct Sent {
    /// As the client gets it, under the client's number.
    message: Message,
    /// The agent's number for as long as the agent waits for its acknowledge;
    /// it never does so for a notice.
    number: Option<i64>,
    position: Position,
    received: Instant,
    /// When it was last sent; only the relay repeats what has no number.
    sent: Instant,
    /// Place in this connection's order of sending; 0 while unsent.
    order: u64,
    /// Place of its first repeat on this connection; 0 if none.
    repeated: u64,
    ever_sent: bool,
    /// How often the agent has repeated it.
    repeats: u32,
}

/// An acknowledge that the agent waits for, and what it has to wait for.
pub(super) struct Owed {
    /// With the agent's number.
    pub(super) acknowledge: Acknowledge,
    /// Whether the client knows the message under another number.
    pub(super) renumbered: bool,
    pub(super) position: Position,
    pub(super) received: Instant,
}

impl Sent {
    fn new(message: Message, number: Option<i64>, (position, received): (Position, Instant)) -> Self {
        let (order, repeated, repeats) = (0, 0, 0);
        Self {
            message,
            number,
            position,
            received,
            sent: received,
            order,
            repeated,
            ever_sent: false,
            repeats,
        }
    }

    /// The acknowledge that the agent is owed, once.
    fn owed(&mut self) -> Option<Owed> {
        let sequence = self.number.take()?;
        let acknowledge = Acknowledge { sequence, ..Acknowledge::of(&self.message) };
        let renumbered = sequence != self.message.sequence();
        Some(Owed { acknowledge, renumbered, position: self.position, received: self.received })
    }

    fn due_again(&self) -> Instant {
        let pause = AGAIN.saturating_mul(self.repeats.saturating_add(1));
        self.sent + pause.min(AGAIN_MAX)
    }
}

/// The output direction of one session.
#[derive(Default)]
pub(super) struct Output {
    /// The number that the agent's next message has.
    next: i64,
    /// Messages of the agent that came before their turn.
    early: BTreeMap<i64, Message>,
    early_bytes: usize,
    /// The client's number of the first entry of `window`.
    base: i64,
    /// Entries by number; `None` once acknowledged.
    window: VecDeque<Option<Sent>>,
    bytes: usize,
    /// The client's number to send next on this connection.
    cursor: i64,
    order: u64,
    in_order: u32,
    /// The client's number of the last message that the agent does not keep
    /// any more though the client may lack it.
    debt: Option<i64>,
    /// What an earlier process did; none in a session that is our own.
    before: Option<Box<Before>>,
    /// The client's numbers of the notices in the window, ascending.
    notices: VecDeque<i64>,
    /// Notices that are not in the window any more.
    past_notices: i64,
    /// Connections since the first entry of the window was acknowledged.
    stuck: usize,
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
        let slot = self.slot(self.at_client(sequence));
        let sent = slot.and_then(|slot| self.window.get(slot)?.as_ref());
        // What is acknowledged to the agent is done, though the client may still get it.
        match &self.before {
            _ if sent.is_some_and(|sent| sent.number.is_some()) => Arrival::Repeat,
            Some(before) if sent.is_none() && before.may_lack(sequence) => Arrival::Owed,
            _ => Arrival::Done,
        }
    }

    /// Whether the relay may read more from upstream.
    pub(super) fn has_room(&self) -> bool {
        let more = PROBE * self.stuck.saturating_sub(1).min(PROBES_MAX);
        self.window.len() < UNACKNOWLEDGED_MAX + more
            && self.bytes < UNACKNOWLEDGED_BYTES_MAX + more * PROBE_BYTES
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
        let number = Some(message.sequence());
        let at_client = self.client_next();
        let message = if at_client == self.next { message } else { message.renumbered(at_client) };
        self.next += 1;
        self.keep(message, number, (position, received));
    }

    /// Keeps a notice under the number that [`Output::client_next`] says.
    pub(super) fn accept_notice(&mut self, message: Message, position: Position, now: Instant) {
        self.notices.push_back(message.sequence());
        self.keep(message, None, (position, now));
    }

    /// The number that the client expects after what is kept.
    pub(super) fn client_next(&self) -> i64 {
        self.base.saturating_add(i64::try_from(self.window.len()).unwrap_or(i64::MAX))
    }

    fn keep(&mut self, message: Message, number: Option<i64>, (position, received): (Position, Instant)) {
        self.bytes += message.raw().len();
        let mut sent = Sent::new(message, number, (position, received));
        if let Some(before) = self.before.as_mut().filter(|_| number.is_some()) {
            before.accepted(&mut sent);
        }
        self.window.push_back(Some(sent));
    }

    /// The position that a notice waits for whose turn it is.
    ///
    /// A notice that is in no record would after a crash have the number of
    /// another message, which the client would take for a repeat.
    pub(super) fn waits_for(&self) -> Option<Position> {
        let is_notice = self.notices.contains(&self.cursor);
        let slot = self.slot(self.cursor).filter(|_| is_notice)?;
        self.window.get(slot)?.as_ref().map(|sent| sent.position)
    }

    /// The next message to send on this connection.
    pub(super) fn send_next(&mut self, now: Instant) -> Option<Bytes> {
        while self.cursor < self.client_next() {
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
            sent.sent = now;
            return Some(sent.message.raw().clone());
        }
        None
    }

    /// The message again, because the agent repeats it under its number.
    pub(super) fn repeat(&mut self, sequence: i64, now: Instant) -> Option<Bytes> {
        self.send_again(self.at_client(sequence), now)
    }

    /// What the agent is owed though the client keeps silent about it.
    ///
    /// The agent repeats its oldest message alone, so one acknowledge that
    /// got lost would keep everything back that got lost after it. When the
    /// client has passed over enough repeats, the agent need not wait for it
    /// any more, nor for what was sent as long ago: it is recorded, and kept
    /// and repeated here until the client has it.
    pub(super) fn silence(&mut self, sequence: i64, now: Instant) -> Vec<Owed> {
        let at_client = self.at_client(sequence);
        let slot = self.slot(at_client);
        let sent = slot.and_then(|slot| self.window.get(slot)?.as_ref());
        if sent.is_none_or(|sent| sent.repeats < IGNORED_REPEATS) {
            return Vec::new();
        }
        let long_sent = |sent: &&mut Sent| {
            let long_ago = sent.sent + SILENCE <= now;
            sent.order > 0 && (long_ago || sent.message.sequence() == at_client)
        };
        self.window.iter_mut().flatten().filter(long_sent).filter_map(Sent::owed).collect()
    }

    /// When the relay repeats the oldest message, if the agent does not.
    ///
    /// A stock client drops without a trace what comes before it is ready.
    pub(super) fn due_again(&self) -> Option<Instant> {
        let oldest = self.window.front()?.as_ref()?;
        (oldest.number.is_none() && oldest.order > 0).then(|| oldest.due_again())
    }

    /// The oldest message, if it is due again.
    pub(super) fn repeat_oldest(&mut self, now: Instant) -> Option<Bytes> {
        self.due_again().filter(|due| *due <= now)?;
        self.send_again(self.base, now)
    }

    fn send_again(&mut self, at_client: i64, now: Instant) -> Option<Bytes> {
        if at_client >= self.cursor {
            return None;
        }
        let slot = self.slot(at_client)?;
        let sent = self.window.get_mut(slot)?.as_mut()?;
        self.order += 1;
        sent.sent = now;
        sent.repeats = sent.repeats.saturating_add(1);
        // Any earlier repeat proves the same, so the first one counts.
        if sent.repeated == 0 {
            sent.repeated = self.order;
        }
        Some(sent.message.raw().clone())
    }

    /// Whether everything recorded was sent on this connection.
    pub(super) fn all_sent(&self) -> bool {
        self.cursor >= self.client_next()
    }

    /// Starts over on a new connection with what is not acknowledged.
    pub(super) fn restart(&mut self) {
        self.cursor = self.base;
        self.order = 0;
        self.stuck = self.stuck.saturating_add(1);
        for sent in self.window.iter_mut().flatten() {
            sent.order = 0;
            sent.repeated = 0;
            sent.repeats = 0;
        }
    }

    /// Takes the client's acknowledge of the client's number; `None` if it
    /// is not awaited.
    ///
    /// Returns what the agent is owed for it, and for older messages whose
    /// acknowledge is surely lost: they were repeated, and the client
    /// acknowledged something sent later.
    pub(super) fn acknowledged(&mut self, sequence: i64) -> Option<(Option<Owed>, Vec<Owed>)> {
        let slot = self.slot(sequence)?;
        let mut sent = self.window.get_mut(slot)?.take()?;
        self.bytes -= sent.message.raw().len();
        self.in_order = if slot == 0 { self.in_order.saturating_add(1) } else { self.in_order };
        let lost = if slot > 0 { self.lost_before(sent.order) } else { Vec::new() };
        if let Some(before) = &mut self.before {
            before.acknowledged(sequence);
        }
        self.shrink();
        Some((sent.owed(), lost))
    }

    fn lost_before(&mut self, order: u64) -> Vec<Owed> {
        let mut lost = Vec::new();
        for entry in &mut self.window {
            let Some(sent) = entry else { continue };
            let settled = self.in_order >= SETTLED_AFTER || sent.repeats >= IGNORED_REPEATS;
            if !settled || sent.repeated == 0 || sent.repeated >= order {
                break;
            }
            self.bytes -= sent.message.raw().len();
            if let Some(before) = &mut self.before {
                before.acknowledged(sent.message.sequence());
            }
            lost.extend(sent.owed());
            *entry = None;
        }
        lost
    }

    fn shrink(&mut self) {
        while matches!(self.window.front(), Some(None)) {
            self.window.pop_front();
            self.base += 1;
            self.stuck = 0;
        }
        while self.notices.pop_front_if(|number| *number < self.base).is_some() {
            self.past_notices += 1;
        }
        // A burst's memory goes back once it is over.
        if self.window.is_empty() && self.window.capacity() > 64 {
            self.window = VecDeque::new();
        }
    }

    /// The client's number of one of the agent's, from the window on.
    fn at_client(&self, sequence: i64) -> i64 {
        let mut number = sequence.saturating_add(self.past_notices);
        for notice in &self.notices {
            if *notice > number {
                break;
            }
            number = number.saturating_add(1);
        }
        number
    }

    fn slot(&self, at_client: i64) -> Option<usize> {
        at_client.checked_sub(self.base).and_then(|slot| usize::try_from(slot).ok())
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
        std::iter::from_fn(|| output.send_next(Instant::now())).count()
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
        assert!(output.repeat(4, Instant::now()).is_some());
        let (_, lost) = output.acknowledged(5).unwrap();
        assert!(lost.is_empty(), "5 was sent before the repeat, so it proves nothing");
        output.accept(message(10), Position::default(), Instant::now());
        send_all(&mut output);
        let (_, lost) = output.acknowledged(10).unwrap();
        assert_eq!(lost.iter().map(|owed| owed.acknowledge.sequence).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn nothing_is_repaired_before_the_client_has_settled() {
        let mut output = accepted(3);
        send_all(&mut output);
        assert!(output.repeat(0, Instant::now()).is_some());
        output.accept(message(3), Position::default(), Instant::now());
        send_all(&mut output);
        let (_, lost) = output.acknowledged(3).unwrap();
        assert!(lost.is_empty());
    }

    fn sequence_of(raw: &Bytes) -> i64 {
        Message::parse(raw.clone()).unwrap().sequence()
    }

    #[test]
    fn after_a_notice_the_client_counts_one_more() {
        let now = Instant::now();
        let mut output = accepted(2);
        output.accept_notice(message(output.client_next()), Position::default(), now);
        output.accept(message(2), Position::default(), now);
        output.accept_notice(message(output.client_next()), Position::default(), now);
        output.accept(message(3), Position::default(), now);
        let sent: Vec<i64> =
            std::iter::from_fn(|| output.send_next(now)).map(|raw| sequence_of(&raw)).collect();
        assert_eq!(sent, [0, 1, 2, 3, 4, 5]);
        for (agent, client) in [(0, 0), (1, 1), (2, 3), (3, 5)] {
            assert_eq!(output.arrival(agent), Arrival::Repeat);
            assert_eq!(sequence_of(&output.repeat(agent, now).unwrap()), client);
        }
        let numbers: Vec<Option<i64>> =
            (0..6).map(|client| agents_number(output.acknowledged(client).unwrap().0)).collect();
        assert_eq!(numbers, [Some(0), Some(1), None, Some(2), None, Some(3)]);
        assert_eq!(output.arrival(3), Arrival::Done);
        assert_eq!(output.arrival(4), Arrival::Fresh);
        output.accept(message(4), Position::default(), now);
        assert_eq!(sequence_of(&output.send_next(now).unwrap()), 6);
        assert_eq!(agents_number(output.acknowledged(6).unwrap().0), Some(4));
    }

    #[test]
    fn a_notice_is_sent_again_until_it_is_acknowledged() {
        let start = Instant::now();
        let mut output = accepted(1);
        output.accept_notice(message(1), Position::default(), start);
        while output.send_next(start).is_some() {}
        assert_eq!(output.due_again(), None, "the oldest is the agent's, which it repeats itself");
        output.acknowledged(0).unwrap();
        assert!(output.repeat_oldest(start).is_none());
        let due = output.due_again().unwrap();
        assert_eq!(sequence_of(&output.repeat_oldest(due).unwrap()), 1);
        assert!(output.due_again().unwrap() > due);
        output.acknowledged(1).unwrap();
        assert_eq!(output.due_again(), None);
    }

    #[test]
    fn an_agent_does_not_wait_for_ever_for_a_client_that_keeps_silent() {
        let mut output = accepted(5);
        send_all(&mut output);
        output.acknowledged(0).unwrap();
        let now = Instant::now() + SILENCE;
        for _ in 1..IGNORED_REPEATS {
            output.repeat(1, now).unwrap();
            assert!(output.silence(1, now).is_empty());
        }
        output.accept(message(5), Position::default(), now);
        output.send_next(now).unwrap();
        output.repeat(1, now).unwrap();
        let owed: Vec<i64> = output.silence(1, now).iter().map(|owed| owed.acknowledge.sequence).collect();
        assert_eq!(owed, [1, 2, 3, 4], "5 was sent too late to be judged");
        assert_eq!(output.arrival(1), Arrival::Done);
        assert_eq!(output.arrival(5), Arrival::Repeat);
        // The client still gets them, from here alone, and owes nobody anything for it.
        let due = output.due_again().unwrap();
        assert_eq!(sequence_of(&output.repeat_oldest(due).unwrap()), 1);
        output.restart();
        assert_eq!(send_all(&mut output), 5);
        assert!(output.acknowledged(1).unwrap().0.is_none());
    }

    fn agents_number(owed: Option<Owed>) -> Option<i64> {
        owed.map(|owed| owed.acknowledge.sequence)
    }

    #[test]
    fn a_full_window_opens_a_little_for_a_client_that_came_back() {
        let mut output = accepted(UNACKNOWLEDGED_MAX as i64);
        output.restart();
        send_all(&mut output);
        assert!(!output.has_room());
        // All of them were printed, and all their acknowledges lost: the client says no word.
        output.restart();
        send_all(&mut output);
        assert!(output.has_room());
        for _ in 0..10_000 {
            output.restart();
        }
        let mut most = UNACKNOWLEDGED_MAX as i64;
        while output.has_room() {
            output.accept(message(most), Position::default(), Instant::now());
            most += 1;
        }
        assert_eq!(most as usize, UNACKNOWLEDGED_MAX + PROBE * PROBES_MAX);
    }

    #[test]
    fn reading_stops_when_a_client_acknowledges_nothing() {
        let output = accepted(UNACKNOWLEDGED_MAX as i64);
        assert!(!output.has_room());
    }
}
