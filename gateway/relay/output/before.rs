//! A session that an earlier process began: what the client may lack of it.
//!
//! Everything below a number is recorded, and nobody knows how much of it the
//! client has: it may have acknowledged it, printed it without a word, or
//! never seen it. The agent repeats what it got no acknowledge of, the oldest
//! one every 100 ms. From that one on the client gets everything again, out of
//! the recording; a stock client ignores what it has and acknowledges the rest.
//!
//! When the client is there again the agent gets its acknowledges at once,
//! from here: it sends what it lost on the way only once all before it is
//! acknowledged, and a client that has all before it acknowledges nothing.
//! This is safe because the recording says from where on the client may lack
//! something, until it has it. The client's first acknowledge ends this: what
//! it acknowledges it did not have, so it had nothing after it.
//!
//! Of a port session there is nothing to give back, so the agent keeps all
//! that the client has not acknowledged, and repeats it. A client that may not
//! be ready is sent nothing until it is clear which message is the oldest.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use data_channel::message::{Draft, Message, MessageType, SYN};
use data_channel::payload::PayloadType;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Arrival, Output, Owed, SETTLED_AFTER, Sent};
use crate::recorder::{FlowStage, FlowState, Position, Recorded, Recovered, Stream};
use crate::session::now_ms;

/// How far back the client may lack something: what a relay keeps, and more.
const BACK_MAX: i64 = 9 * 1024;
/// Times that one number must come, and no lower one, to be the oldest.
const OLDEST_AFTER: u32 = 3;
/// An agent that repeats nothing for so long got all its acknowledges.
const NOTHING_AFTER: Duration = Duration::from_secs(3);
/// Messages of the longest handshake: two requests and its end.
const HANDSHAKE_MAX: i64 = 3;

/// What an earlier process did with the output.
#[derive(Default)]
pub(super) struct Before {
    /// The agent's numbers below it are recorded.
    next: i64,
    /// The client's number of that one.
    client_next: i64,
    /// Recorded messages by the client's number, as long as they may be needed.
    recorded: BTreeMap<i64, Recorded>,
    /// The client's numbers of the notices among them, ascending.
    notices: Vec<i64>,
    /// The client has acknowledged everything below this number of its own.
    floor: i64,
    /// Whether the agent was told so, all at once.
    told: bool,
    /// The client's numbers that it has acknowledged since.
    sure: BTreeSet<i64>,
    /// The recording has what was said.
    has_bytes: bool,
    /// What is sent the client may have: it has acknowledged nothing yet.
    answering: bool,
    /// The client's number of the next message to be acknowledged so.
    answered: i64,
    /// The lowest number that came early, and how often.
    lowest: Option<(i64, u32)>,
    /// A message came in its turn, or must: the agent's place is known.
    found: bool,
    /// Nobody knows yet what to send first to a client that may not be ready.
    at_a_loss: bool,
    /// The lowest number that came meanwhile, and how often.
    first: Option<(i64, u32)>,
    /// When the agent has been silent for long enough.
    silent_at: Option<Instant>,
}

impl Before {
    fn of(recovered: &Recovered) -> Self {
        if let Some(state) = &recovered.flow {
            return Self::of_port(state, recovered.settled);
        }
        let next = recovered.next_output.unwrap_or(0);
        let notices = i64::try_from(recovered.notices).unwrap_or(i64::MAX);
        let client_next = next.saturating_add(notices);
        let mut before =
            Self { next, client_next, has_bytes: true, floor: i64::MIN, told: true, ..Self::default() };
        // The notices before the first of these messages.
        let known = recovered.messages.iter().filter(|message| message.sequence.is_none()).count();
        let mut passed = notices.saturating_sub(i64::try_from(known).unwrap_or(0));
        let mut number = None;
        for message in &recovered.messages {
            let at_client = match (message.sequence, number) {
                (Some(sequence), _) => sequence.saturating_add(passed),
                (None, Some(last)) => last + 1,
                // Nobody knows any more what was before it.
                (None, None) => {
                    passed += 1;
                    continue;
                }
            };
            if message.sequence.is_none() {
                passed += 1;
                before.notices.push(at_client);
            }
            number = Some(at_client);
            before.recorded.insert(at_client, message.clone());
        }
        let first = recovered.messages.first().and_then(|message| message.sequence);
        if let Some(first) = first.filter(|first| (1..=HANDSHAKE_MAX).contains(first) && !recovered.settled) {
            // The handshake was over, so the client has answered all of it but its end.
            (before.floor, before.at_a_loss) = (first - 1, true);
        }
        before
    }

    /// Of a port session, whose notes say what was seen.
    fn of_port(state: &FlowState, settled: bool) -> Self {
        // The client has what it answered.
        let answered = !matches!(state.stage, None | Some(FlowStage::Requested { .. }));
        let floor = state.acknowledged.max(i64::from(answered));
        // Whatever the agent got an acknowledge of is in a note.
        let (next, found) = (state.output, true);
        Self { next, client_next: next, floor, found, at_a_loss: !settled, ..Self::default() }
    }

    /// Whether the client may lack a message that is not kept for it.
    pub(super) fn may_lack(&self, sequence: i64) -> bool {
        (self.next - BACK_MAX..self.next).contains(&sequence)
            && sequence >= self.floor
            && !self.sure.contains(&self.at_client(sequence))
    }

    /// A new message: the earlier process may have sent it to the client.
    pub(super) fn accepted(&mut self, sent: &mut Sent) {
        self.found = true;
        sent.ever_sent = self.answering;
    }

    /// The client has the message of this number of its own.
    pub(super) fn acknowledged(&mut self, at_client: i64) {
        self.answering = false;
        if at_client < self.client_next {
            self.sure.insert(at_client);
            while self.sure.remove(&self.floor) {
                self.floor += 1;
            }
        }
    }

    /// The client's number of one of the agent's.
    fn at_client(&self, sequence: i64) -> i64 {
        let mut number = sequence.saturating_add(self.past_notices(i64::MIN));
        for notice in &self.notices {
            if *notice > number {
                break;
            }
            number = number.saturating_add(1);
        }
        number
    }

    /// How many notices are below a number of the client's.
    fn past_notices(&self, at_client: i64) -> i64 {
        let known = self.notices.iter().filter(|notice| **notice >= at_client).count();
        self.client_next - self.next - i64::try_from(known).unwrap_or(0)
    }
}

impl Sent {
    /// Whether a later process finds it in the recording.
    pub(super) fn is_recorded(&self) -> bool {
        !self.is_handshake() && self.message.payload_type() != PayloadType::Flag
    }

    /// Whether it is a part of the handshake.
    pub(super) fn is_handshake(&self) -> bool {
        matches!(
            self.message.payload_type(),
            PayloadType::HandshakeRequest | PayloadType::HandshakeComplete | PayloadType::EncChallengeRequest
        )
    }
}

impl Output {
    /// Goes on after an earlier process.
    pub(in crate::relay) fn go_on(&mut self, recovered: &Recovered) {
        let mut before = Before::of(recovered);
        before.answering = recovered.settled;
        self.next = before.next;
        (self.base, self.cursor) = (before.client_next, before.client_next);
        self.past_notices = before.client_next - before.next;
        if before.answering {
            self.in_order = SETTLED_AFTER;
        }
        before.answered = before.client_next;
        self.before = Some(Box::new(before));
    }

    /// Whether the client surely takes messages, and is silent about repeats.
    pub(in crate::relay) fn is_settled(&self) -> bool {
        self.in_order >= SETTLED_AFTER
    }

    /// What the agent is owed now though a client that is there is silent.
    pub(in crate::relay) fn answers(&mut self) -> Vec<Owed> {
        let Some(before) = self.before.as_mut().filter(|before| before.answering && before.has_bytes) else {
            return Vec::new();
        };
        let place = |number: i64| usize::try_from(number - self.base).unwrap_or(0);
        let (from, to) = (place(before.answered), place(self.cursor));
        before.answered = self.cursor;
        let sent = self.window.iter_mut().take(to).skip(from).flatten();
        sent.filter_map(Sent::owed).collect()
    }

    /// Keeps for the client what it may lack from a number of the agent's on.
    ///
    /// The message is the agent's, if it sent one; recorded bytes come first.
    pub(in crate::relay) fn take_back(&mut self, from: i64, message: Option<&Message>, now: Instant) {
        let Some(mut before) = self.before.take() else { return };
        let mut from = before.at_client(from.max(before.next - BACK_MAX));
        let of_agent = from;
        // A notice before it has no number of the agent's to be asked for.
        while before.notices.contains(&(from - 1)) {
            from -= 1;
        }
        let repeated = message.map(|message| message.renumbered(of_agent));
        self.reach_back(from, &before);
        for number in from..before.client_next {
            let Some(place) = self.slot(number).and_then(|slot| self.window.get_mut(slot)) else { break };
            if place.is_some() || before.sure.contains(&number) {
                continue;
            }
            let recorded = before.recorded.remove(&number);
            let sequence =
                recorded.as_ref().map_or(message.map(Message::sequence), |recorded| recorded.sequence);
            let again = || repeated.clone().filter(|_| number == of_agent);
            let Some(message) = recorded.and_then(|it| rebuilt(number, &it)).or_else(again) else { continue };
            self.bytes += message.raw().len();
            let mut sent = Sent::new(message, sequence, (Position::default(), now));
            sent.ever_sent = true;
            *place = Some(sent);
        }
        self.cursor = self.cursor.min(from);
        before.answered = before.answered.min(from);
        before.lowest = None;
        self.before = Some(before);
    }

    /// Makes places for what the client may lack, from its number on.
    fn reach_back(&mut self, from: i64, before: &Before) {
        while self.base > from {
            self.base -= 1;
            self.window.push_front(None);
        }
        let first = self.base;
        let later: Vec<i64> =
            self.notices.iter().copied().filter(|notice| *notice >= before.client_next).collect();
        let earlier = before.notices.iter().copied().filter(|notice| *notice >= first);
        self.notices = earlier.chain(later).collect();
        self.past_notices = before.past_notices(first);
    }

    /// True once when the client has all that the agent does not keep.
    pub(in crate::relay) fn is_paid(&mut self) -> bool {
        if self.debt.is_none_or(|last| last >= self.base) {
            return false;
        }
        self.debt = None;
        if let Some(before) = &mut self.before {
            // A late repeat is answered with what the agent says.
            before.recorded = BTreeMap::new();
        }
        true
    }

    /// The agent keeps nothing any more of what was said so far.
    pub(in crate::relay) fn is_in_debt(&mut self) {
        self.debt = self.debt.max(Some(self.client_next() - 1));
    }

    /// Whether the client may lack what the agent does not keep.
    pub(in crate::relay) fn owes(&self) -> bool {
        self.debt.is_some()
    }

    /// The first of the agent's numbers that the client may lack.
    pub(in crate::relay) fn lacks_from(&self) -> i64 {
        self.base - self.past_notices
    }

    /// The first recorded message that is still at hand.
    pub(in crate::relay) fn recorded_from(&self) -> Option<i64> {
        let before = self.before.as_ref().filter(|before| !before.found)?;
        before.recorded.values().find_map(|recorded| recorded.sequence)
    }

    /// Notes an early message; says if the agent has nothing older.
    ///
    /// What is between was acknowledged: it needed no recording.
    pub(in crate::relay) fn is_oldest(&mut self, sequence: i64) -> bool {
        let Some(before) = self.before.as_mut().filter(|before| !before.found) else { return false };
        if !self.window.is_empty() && sequence > self.next.saturating_add(BACK_MAX) {
            return false;
        }
        let times = match before.lowest {
            Some((lowest, _)) if lowest < sequence => return false,
            Some((lowest, times)) if lowest == sequence => times + 1,
            _ => 1,
        };
        before.lowest = Some((sequence, times));
        times >= OLDEST_AFTER
    }

    /// Notes that a message came, if it is not clear yet what to begin with.
    pub(in crate::relay) fn arrives(&mut self, sequence: i64) {
        let news = !matches!(self.arrival(sequence), Arrival::Done | Arrival::Early | Arrival::TooEarly);
        let Some(before) = self.before.as_mut().filter(|before| before.at_a_loss && news) else { return };
        let times = match before.first {
            Some((first, _)) if first < sequence => return,
            Some((first, times)) if first == sequence => times + 1,
            _ => 1,
        };
        before.first = Some((sequence, times));
        before.at_a_loss = times < OLDEST_AFTER;
    }

    /// The number below which the client has acknowledged everything.
    ///
    /// For port sessions, in which the agent's numbers are the client's.
    pub(in crate::relay) fn acknowledged_below(&self) -> i64 {
        match &self.before {
            Some(before) if before.floor < before.client_next => before.floor,
            Some(before) => self.base.max(before.client_next),
            None => self.base,
        }
    }

    /// Once: the numbers after a repeated one that the client had before.
    ///
    /// Their acknowledges got lost with the earlier process, and the agent
    /// would ask for one after the other.
    pub(in crate::relay) fn acknowledged_before(&mut self, repeated: i64) -> Range<i64> {
        let Some(before) = self.before.as_mut().filter(|before| !before.told) else { return 0..0 };
        before.told = true;
        (repeated + 1).max(before.floor - BACK_MAX)..before.floor
    }

    /// Whether it is clear what to send to the client first.
    ///
    /// It is if the agent repeats one message, or nothing for a while.
    pub(in crate::relay) fn knows_where_to_begin(&mut self, now: Instant) -> bool {
        let Some(before) = self.before.as_mut().filter(|before| before.at_a_loss) else { return true };
        let silent_at = *before.silent_at.get_or_insert(now + NOTHING_AFTER);
        before.at_a_loss = before.first.is_some() || now < silent_at;
        !before.at_a_loss
    }

    /// When it is clear at the latest, if the agent repeats nothing.
    pub(in crate::relay) fn begins_at(&self) -> Option<Instant> {
        let before = self.before.as_ref().filter(|before| before.at_a_loss && before.first.is_none())?;
        before.silent_at
    }

    /// The agent is heard (again) from now on.
    pub(in crate::relay) fn listens_again(&mut self) {
        if let Some(before) = &mut self.before {
            before.silent_at = None;
        }
    }

    /// The client is ready, or has no more time.
    pub(in crate::relay) fn begin_anyhow(&mut self) {
        if let Some(before) = &mut self.before {
            before.at_a_loss = false;
        }
    }

    /// Goes on with a number that is the agent's oldest.
    pub(in crate::relay) fn skip_to(&mut self, sequence: i64) {
        let skipped = sequence - self.next;
        if self.window.is_empty() {
            self.base += skipped;
            self.cursor = self.base;
        } else {
            self.window.extend((0..skipped).map(|_| None));
        }
        self.next = sequence;
    }
}

/// The message again as the client would have got it.
fn rebuilt(sequence: i64, recorded: &Recorded) -> Option<Message> {
    let payload_type = match recorded.stream {
        Stream::Output => PayloadType::Output,
        Stream::StdErr => PayloadType::StdErr,
        Stream::ExitCode => PayloadType::ExitCode,
    };
    let draft = Draft {
        message_type: MessageType::OutputStreamData,
        created_ms: now_ms(),
        sequence,
        flags: if sequence == 0 { SYN } else { 0 },
        id: Uuid::new_v4(),
        payload_type,
        payload: &recorded.bytes,
    };
    Message::parse(draft.encode()).ok()
}
