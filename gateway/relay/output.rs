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
use data_channel::payload::PayloadType;
use tokio::time::Instant;

use crate::recorder::Position;

use before::Before;

/// Messages kept for a client that does not acknowledge, and their bytes.
///
/// Beyond it the relay stops reading upstream: the agent holds 100 MB.
const UNACKNOWLEDGED_MAX: usize = 8192;
const UNACKNOWLEDGED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Places that stay when all is acknowledged.
const KEPT: usize = 16;
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
/// The same for a client that answers pings meanwhile.
const PROVEN_REPEATS: u32 = 2;
/// How long a message is on its way to a client that is there.
const ON_THE_WAY: Duration = Duration::from_millis(150);
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
    /// When it was first sent on this connection.
    first_sent: Instant,
    /// How often the agent has repeated it.
    repeats: u32,
    /// It is sent once that is recorded; zero: at once.
    passes_at: Position,
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
        let (order, repeated, repeats, passes_at) = (0, 0, 0, Position::default());
        Self {
            message,
            number,
            position,
            received,
            sent: received,
            order,
            repeated,
            ever_sent: false,
            first_sent: received,
            repeats,
            passes_at,
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
    answered: bool,
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
        let mut sent = Sent::new(message, number, (position, received));
        if let Some(before) = self.before.as_mut() {
            before.accepted(&mut sent);
        }
        self.keep(sent);
    }

    /// The message that was just kept is sent only once that is recorded.
    pub(super) fn passes_at(&mut self, position: Position) {
        if let Some(Some(sent)) = self.window.back_mut() {
            sent.passes_at = position;
        }
    }

    /// Keeps a notice under the number that [`Output::client_next`] says.
    pub(super) fn accept_notice(&mut self, message: Message, position: Position, now: Instant) {
        self.notices.push_back(message.sequence());
        // In no record it would after a crash have the number of another
        // message, which the client would take for a repeat.
        let passes_at = position;
        self.keep(Sent { passes_at, ..Sent::new(message, None, (position, now)) });
    }

    /// The number that the client expects after what is kept.
    pub(super) fn client_next(&self) -> i64 {
        self.base.saturating_add(i64::try_from(self.window.len()).unwrap_or(i64::MAX))
    }

    fn keep(&mut self, sent: Sent) {
        self.bytes += sent.message.raw().len();
        self.window.push_back(Some(sent));
    }

    /// The position that the message waits for whose turn it is.
    pub(super) fn waits_for(&self) -> Option<Position> {
        let slot = self.slot(self.cursor)?;
        let passes_at = self.window.get(slot)?.as_ref()?.passes_at;
        (passes_at > Position::default()).then_some(passes_at)
    }

    /// The type of the next message to send on this connection.
    pub(super) fn next_type(&self) -> Option<PayloadType> {
        let slot = self.slot(self.cursor)?;
        Some(self.window.get(slot)?.as_ref()?.message.payload_type())
    }

    /// The next message to send on this connection.
    pub(super) fn send_next(&mut self, now: Instant) -> Option<Bytes> {
        if !self.knows_where_to_begin(now) {
            return None;
        }
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
            (sent.sent, sent.first_sent) = (now, now);
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
        self.silence_until(sequence, now, None)
    }

    /// The same, if `alive` is given of what was sent a while before it: then
    /// the client was surely there.
    pub(super) fn silence_until(&mut self, sequence: i64, now: Instant, alive: Option<Instant>) -> Vec<Owed> {
        let at_client = self.at_client(sequence);
        let slot = self.slot(at_client);
        let sent = slot.and_then(|slot| self.window.get(slot)?.as_ref());
        let enough = if alive.is_some() { PROVEN_REPEATS } else { IGNORED_REPEATS };
        if sent.is_none_or(|sent| sent.repeats < enough) {
            return Vec::new();
        }
        // What no recording has, a later process could not give the client; a settled one has it.
        let (settled, answered) = (self.in_order >= SETTLED_AFTER, self.answered);
        let long_sent = |sent: &&mut Sent| {
            let long_ago = sent.sent + SILENCE <= now;
            let answered = answered && sent.message.sequence() == 0;
            let there = alive.is_none_or(|alive| sent.first_sent + ON_THE_WAY <= alive);
            // Any client acknowledges a handshake that is new to it.
            let kept = if alive.is_some() { sent.is_handshake() } else { sent.is_recorded() };
            sent.order > 0
                && there
                && (settled || answered || kept)
                && (long_ago || sent.message.sequence() == at_client)
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

    /// The client's handler surely runs: it says what only that one says.
    ///
    /// Repeats that were sent before may have come before it, to be dropped.
    pub(super) fn settle(&mut self) {
        self.begin_anyhow();
        if self.in_order >= SETTLED_AFTER {
            return;
        }
        self.in_order = SETTLED_AFTER;
        self.window.iter_mut().flatten().for_each(|sent| sent.repeated = 0);
    }

    /// The client has answered the first message, so it has that one.
    pub(super) fn answered(&mut self) {
        self.answered = true;
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
        if self.window.is_empty() && self.window.capacity() > KEPT {
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
mod tests;
