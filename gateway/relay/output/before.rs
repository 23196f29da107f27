//! A session that an earlier process began: what the client may lack of it.
//!
//! Everything below a number is recorded, and nobody knows how much of it the
//! client has: it may have acknowledged it, printed it without a word, or
//! never seen it. The agent repeats what it got no acknowledge of, the oldest
//! one every 100 ms. From that one on the client gets everything again, out of
//! the recording; a stock client ignores what it has and acknowledges the rest.
//!
//! The agent gets its acknowledges at once, from here: it sends what it lost
//! on the way only once all before it is acknowledged, and a client that has
//! all before it acknowledges nothing. This is safe because the recording says
//! from where on the client may lack something, until it has it. The client's
//! first acknowledge ends this: what it acknowledges it did not have, so it
//! had nothing after it.

use std::collections::{BTreeMap, BTreeSet};

use data_channel::message::{Draft, Message, MessageType, SYN};
use data_channel::payload::PayloadType;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Output, SETTLED_AFTER, Sent};
use crate::recorder::{Position, Recorded, Recovered, Stream};
use crate::session::now_ms;

/// How far back the client may lack something: what a relay keeps, and more.
const BACK_MAX: i64 = 9 * 1024;
/// Messages after which a client that was there surely had its handler.
const BEGUN_AFTER: i64 = 16;
/// Times that one number must come, and no lower one, to be the oldest.
const OLDEST_AFTER: u32 = 3;

/// What an earlier process did with the output.
#[derive(Default)]
pub(super) struct Before {
    /// Numbers below it are recorded.
    next: i64,
    /// Recorded messages by number, as long as they may be needed.
    recorded: BTreeMap<i64, Recorded>,
    /// Numbers that the client has acknowledged since.
    sure: BTreeSet<i64>,
    /// Acknowledges go to the agent without waiting for the client.
    answering: bool,
    /// The last number that was answered so, while the recording says it.
    owed_to: Option<i64>,
    /// The lowest number that came early, and how often.
    lowest: Option<(i64, u32)>,
    /// A message came in its turn: the agent's place is known.
    found: bool,
}

impl Before {
    /// Whether the client may lack a message that is not kept for it.
    pub(super) fn may_lack(&self, sequence: i64) -> bool {
        (self.next - BACK_MAX..self.next).contains(&sequence) && !self.sure.contains(&sequence)
    }

    /// A new message: the earlier process may have sent it to the client.
    pub(super) fn accepted(&mut self, sent: &mut Sent) {
        self.found = true;
        sent.ever_sent = self.answering;
        self.answer(sent);
    }

    /// The client has these.
    pub(super) fn acknowledged<'a>(&mut self, all: impl Iterator<Item = &'a Sent>) {
        self.answering = false;
        let numbers = all.map(|sent| sent.message.sequence());
        self.sure.extend(numbers.filter(|number| *number < self.next));
    }

    fn answer(&mut self, sent: &mut Sent) {
        sent.answered = self.answering;
        if sent.answered {
            self.owed_to = self.owed_to.max(Some(sent.message.sequence()));
        }
    }
}

impl Output {
    /// Goes on after an earlier process; `attached`: a client was there.
    pub(in crate::relay) fn go_on(&mut self, recovered: &Recovered, attached: bool) {
        let next = recovered.next_output.unwrap_or(0);
        let answering = attached && next >= BEGUN_AFTER;
        (self.next, self.base, self.cursor) = (next, next, next);
        if answering {
            self.in_order = SETTLED_AFTER;
        }
        let numbered = |message: &Recorded| Some((message.sequence?, message.clone()));
        let recorded = recovered.messages.iter().filter_map(numbered).collect();
        let owed_to = answering.then_some(next - 1);
        self.before = Some(Box::new(Before { next, recorded, answering, owed_to, ..Before::default() }));
    }

    /// Whether messages are acknowledged upstream without the client.
    pub(in crate::relay) fn is_answering(&self) -> bool {
        self.before.as_ref().is_some_and(|before| before.answering)
    }

    /// Keeps for the client what it may lack from a number on.
    ///
    /// The message is the agent's, if it sent one; recorded bytes come first.
    /// Gives the numbers that were added and are to be answered.
    pub(in crate::relay) fn take_back(
        &mut self,
        from: i64,
        message: Option<&Message>,
        now: Instant,
    ) -> Vec<Message> {
        let Some(mut before) = self.before.take() else { return Vec::new() };
        let from = from.max(before.next - BACK_MAX);
        while self.base > from {
            self.base -= 1;
            self.window.push_front(None);
        }
        let mut answered = Vec::new();
        for number in from..before.next.min(self.next) {
            let Some(place) = self.slot(number).and_then(|slot| self.window.get_mut(slot)) else { break };
            if place.is_some() || before.sure.contains(&number) {
                continue;
            }
            let recorded = before.recorded.remove(&number).map(|recorded| rebuilt(number, &recorded));
            let repeated = || message.filter(|message| message.sequence() == number).cloned();
            let Some(message) = recorded.flatten().or_else(repeated) else { continue };
            let mut sent = Sent::new(message, Position::default(), now);
            sent.ever_sent = true;
            before.answer(&mut sent);
            self.bytes += sent.message.raw().len();
            if sent.answered {
                answered.push(sent.message.clone());
            }
            *place = Some(sent);
        }
        self.cursor = self.cursor.min(from);
        before.lowest = None;
        self.before = Some(before);
        answered
    }

    /// The first recorded message that is still at hand.
    pub(in crate::relay) fn recorded_from(&self) -> Option<i64> {
        let before = self.before.as_ref().filter(|before| !before.found)?;
        before.recorded.first_key_value().map(|(number, _)| *number)
    }

    /// True once when the client has all that was answered for it.
    pub(in crate::relay) fn is_paid(&mut self) -> bool {
        let Some(before) = &mut self.before else { return false };
        if before.answering || before.owed_to.is_none_or(|last| last >= self.base) {
            return false;
        }
        before.owed_to = None;
        // A late repeat is answered with what the agent says.
        before.recorded = BTreeMap::new();
        true
    }

    /// The lowest number that the client may lack.
    pub(in crate::relay) fn lacks_from(&self) -> i64 {
        self.base
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

    /// Goes on with a number that is the agent's oldest.
    pub(in crate::relay) fn skip_to(&mut self, sequence: i64) {
        let nothing_waits = self.window.is_empty();
        if nothing_waits {
            (self.base, self.cursor) = (sequence, sequence);
        } else {
            for _ in self.next..sequence {
                self.window.push_back(None);
            }
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
