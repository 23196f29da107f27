//! Which input messages are new: each is recorded once, none is missed.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;

use data_channel::message::Message;

use crate::recorder::INPUT_DIGEST;

/// Numbers that may be ahead of the first one missing.
///
/// The stock plugin keeps 10,000 messages; more is no client's burst.
const AHEAD_MAX: i64 = 12_000;
/// No client gets so far, in any number of years.
const NUMBER_MAX: i64 = 1 << 48;
/// Numbers remembered that the agent has not taken, about 80 bytes each.
///
/// A stock client forgets all but 10,000 of its own; beyond this a message
/// has to be sent again once the agent has taken some.
const UNTAKEN_MAX: usize = 24_000;
/// Where a message holds the SHA-256 of its payload, the part that counts.
const DIGEST: std::ops::Range<usize> = 80..80 + INPUT_DIGEST;

/// What an input message is to the record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Not seen before.
    Fresh,
    /// Not seen before, under a number that was.
    Other,
    /// Seen before, or of no effect at the agent.
    Repeat,
    /// Too far ahead of what is missing, or of what the agent has taken.
    TooEarly,
}

struct Seen {
    digest: [u8; INPUT_DIGEST],
    taken: bool,
}

/// The input messages that the agent may still act upon.
///
/// Until the agent has taken a number, another payload under the same
/// number may be the one it acts upon, so a different one is new.
#[derive(Default)]
pub(super) struct TypedMessages {
    /// The lowest number never seen.
    next: i64,
    seen: BTreeMap<i64, Seen>,
    /// Below it an earlier process may have missed a number.
    unsure_below: i64,
    /// The first number to come says where the client is.
    adrift: bool,
}

impl TypedMessages {
    /// Goes on after an earlier process that recorded these.
    ///
    /// What it did not record is new, wherever it comes in.
    pub(super) fn after(recorded: BTreeMap<i64, [u8; INPUT_DIGEST]>) -> Self {
        let seen = recorded.into_iter().map(|(number, digest)| (number, Seen { digest, taken: false }));
        Self { seen: seen.collect(), adrift: true, ..Self::default() }
    }

    /// Says what the message is, and remembers it.
    pub(super) fn arrival(&mut self, message: &Message) -> Typed {
        let sequence = message.sequence();
        if self.adrift {
            if sequence > NUMBER_MAX {
                return Typed::TooEarly;
            }
            (self.next, self.unsure_below, self.adrift) = (sequence, sequence, false);
        }
        if sequence > self.next.saturating_add(AHEAD_MAX) {
            return Typed::TooEarly;
        }
        let digest = digest(message);
        let full = self.seen.len() >= UNTAKEN_MAX && !self.forget_doubt();
        match self.seen.get(&sequence) {
            Some(seen) if seen.taken || seen.digest == digest => return Typed::Repeat,
            Some(_) => return Typed::Other,
            None if sequence < self.next && sequence >= self.unsure_below => return Typed::Repeat,
            None if full => return Typed::TooEarly,
            None => {
                self.seen.insert(sequence, Seen { digest, taken: false });
                while self.seen.contains_key(&self.next) {
                    self.next += 1;
                }
            }
        }
        Typed::Fresh
    }

    /// The other message under a number passes too.
    pub(super) fn replace(&mut self, message: &Message) {
        if let Some(seen) = self.seen.get_mut(&message.sequence()) {
            seen.digest = digest(message);
        }
    }

    /// The agent acknowledged the number.
    pub(super) fn taken(&mut self, sequence: i64) {
        if let Some(seen) = self.seen.get_mut(&sequence) {
            seen.taken = true;
        }
        while let Some((first, seen)) = self.seen.range(self.unsure_below..self.next).next() {
            let first = *first;
            if !seen.taken {
                break;
            }
            self.seen.remove(&first);
        }
    }

    /// Makes room among what is in doubt; false if nothing is.
    ///
    /// It is recorded again then, rather than not at all.
    fn forget_doubt(&mut self) -> bool {
        let doubtful = self.seen.first_entry().filter(|first| *first.key() < self.unsure_below);
        doubtful.map(OccupiedEntry::remove).is_some()
    }
}

/// What a message says, so short that it can be noted.
pub(super) fn digest(message: &Message) -> [u8; INPUT_DIGEST] {
    let mut digest = [0; INPUT_DIGEST];
    if let Some(bytes) = message.raw().get(DIGEST) {
        digest.copy_from_slice(bytes);
    }
    digest
}

#[cfg(test)]
mod tests {
    use data_channel::message::{Draft, MessageType};
    use data_channel::payload::PayloadType;
    use uuid::Uuid;

    use super::*;

    fn message(sequence: i64, payload: &[u8]) -> Message {
        let draft = Draft {
            message_type: MessageType::InputStreamData,
            created_ms: 1,
            sequence,
            flags: 0,
            id: Uuid::new_v4(),
            payload_type: PayloadType::Output,
            payload,
        };
        Message::parse(draft.encode()).unwrap()
    }

    #[test]
    fn a_repeat_is_not_recorded_again() {
        let mut typed = TypedMessages::default();
        assert_eq!(typed.arrival(&message(0, b"ls")), Typed::Fresh);
        assert_eq!(typed.arrival(&message(0, b"ls")), Typed::Repeat);
        typed.taken(0);
        assert_eq!(typed.arrival(&message(0, b"rm")), Typed::Repeat);
        assert!(typed.seen.is_empty());
    }

    #[test]
    fn a_jump_ahead_hides_nothing_that_follows() {
        let mut typed = TypedMessages::default();
        assert_eq!(typed.arrival(&message(1_000_000_000, b"x")), Typed::TooEarly);
        assert_eq!(typed.arrival(&message(5, b"x")), Typed::Fresh);
        for sequence in 0..5 {
            assert_eq!(typed.arrival(&message(sequence, b"x")), Typed::Fresh);
        }
        assert_eq!(typed.arrival(&message(5, b"x")), Typed::Repeat);
    }

    #[test]
    fn other_bytes_under_a_number_that_the_agent_has_not_taken_are_recorded() {
        let mut typed = TypedMessages::default();
        assert_eq!(typed.arrival(&message(0, b"harmless")), Typed::Fresh);
        assert_eq!(typed.arrival(&message(0, b"rm -rf /")), Typed::Other);
    }

    #[test]
    fn what_the_agent_never_takes_costs_a_bounded_amount() {
        let mut typed = TypedMessages::default();
        let fresh = (0..50_000).filter(|sequence| typed.arrival(&message(*sequence, b"x")) == Typed::Fresh);
        assert_eq!(fresh.count(), UNTAKEN_MAX);
        typed.taken(0);
        assert_eq!(typed.arrival(&message(UNTAKEN_MAX as i64, b"x")), Typed::Fresh);
    }

    #[test]
    fn after_a_restart_what_was_recorded_is_a_repeat_and_all_else_is_new() {
        let mut before = TypedMessages::default();
        before.arrival(&message(5, b"ls"));
        let digest = before.seen.remove(&5).unwrap().digest;
        let mut typed = TypedMessages::after([(5, digest)].into());
        assert_eq!(typed.arrival(&message(20_000, b"x")), Typed::Fresh);
        typed.taken(20_000);
        assert_eq!(typed.arrival(&message(5, b"ls")), Typed::Repeat);
        assert_eq!(typed.arrival(&message(5, b"rm")), Typed::Other);
        assert_eq!(typed.arrival(&message(6, b"y")), Typed::Fresh);
        assert_eq!(typed.arrival(&message(6, b"y")), Typed::Repeat);
        for sequence in 20_001..40_000 {
            assert_eq!(typed.arrival(&message(sequence, b"z")), Typed::Fresh);
            typed.taken(sequence);
        }
        assert_eq!(typed.arrival(&message(30_000, b"z")), Typed::Repeat);
        assert!(typed.seen.len() < 10);
    }

    #[test]
    fn what_is_in_doubt_makes_room_for_what_is_typed() {
        let recorded = (0..UNTAKEN_MAX as i64).map(|number| (number, [0; INPUT_DIGEST]));
        let mut typed = TypedMessages::after(recorded.collect());
        for sequence in 100_000..100_100 {
            assert_eq!(typed.arrival(&message(sequence, b"x")), Typed::Fresh);
        }
        assert_eq!(typed.seen.len(), UNTAKEN_MAX);
    }

    #[test]
    fn what_the_agent_has_taken_costs_no_memory() {
        let mut typed = TypedMessages::default();
        for sequence in 0..1000 {
            typed.arrival(&message(sequence, b"x"));
            typed.taken(sequence);
        }
        assert!(typed.seen.is_empty());
    }
}
