//! Which input messages are new: each is recorded once, none is missed.

use std::collections::BTreeMap;

use data_channel::message::Message;

/// Numbers that may be ahead of the first one missing.
///
/// The stock plugin keeps 10,000 messages; more is no client's burst.
const AHEAD_MAX: i64 = 12_000;
/// Numbers remembered that the agent has not taken, about 80 bytes each.
///
/// A stock client forgets all but 10,000 of its own; beyond this a message
/// has to be sent again once the agent has taken some.
const UNTAKEN_MAX: usize = 24_000;
/// Where a message holds the SHA-256 of its payload.
const DIGEST: std::ops::Range<usize> = 80..112;

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
    digest: [u8; 32],
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
}

impl TypedMessages {
    /// Says what the message is, and remembers it.
    pub(super) fn arrival(&mut self, message: &Message) -> Typed {
        let sequence = message.sequence();
        if sequence > self.next.saturating_add(AHEAD_MAX) {
            return Typed::TooEarly;
        }
        let digest = digest(message);
        let full = self.seen.len() >= UNTAKEN_MAX;
        match self.seen.get(&sequence) {
            Some(seen) if seen.taken || seen.digest == digest => return Typed::Repeat,
            Some(_) => return Typed::Other,
            None if sequence < self.next => return Typed::Repeat,
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
        let next = self.next;
        while let Some(first) = self.seen.first_entry() {
            if !first.get().taken || *first.key() >= next {
                break;
            }
            first.remove();
        }
    }
}

fn digest(message: &Message) -> [u8; 32] {
    let mut digest = [0; 32];
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
    fn what_the_agent_has_taken_costs_no_memory() {
        let mut typed = TypedMessages::default();
        for sequence in 0..1000 {
            typed.arrival(&message(sequence, b"x"));
            typed.taken(sequence);
        }
        assert!(typed.seen.is_empty());
    }
}
